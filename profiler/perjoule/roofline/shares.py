"""Which share of the machine's peaks a run used: a pure function of a result's raw parts."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from perjoule.records import UNSET, Missing, Peak, Peaks, Roofline
from perjoule.scenario import from_facts
from perjoule.stats.selection import select, stem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from perjoule.records import ModelFacts, Precision, RunResult, Sample, Window

# How far above 1 a share may lie before it is called impossible: peaks and run are minutes apart, and on a shared host
# bandwidth moves (docs/adr/0004-roofline.md).
TOLERANCE_SHARE = 0.15
NOT_MEASURED = "not measured"
_FP32_BITS, _HALF_BITS = 32, 16  # a weight


def roofline(result: RunResult) -> Roofline | str:
    """Return the shares, or why there are none.

    Bandwidth: median over the windows that count of bytes streamed / duration / best streaming rate; windows of
    decoding, or where requests were served together those of serving. Arithmetic: median over requests of
    2 x parameters x prompt tokens / prefill time / best rate of the precision that multiplied the weights: 2 N
    operations a token, N without the embedding (Kaplan et al. 2020, arXiv 2001.08361, section 2.1) and without the
    head, which is multiplied once a prompt. Attention is left out. Where a file does not say how many parameters those
    are, all are taken, which is too many.
    """
    peaks = result.peaks
    if not isinstance(peaks, Peaks):
        return str(result.peaks_missing) if peaks is None else NOT_MEASURED
    if peaks.disturbed is not None:
        return f"while the peaks were measured, {peaks.disturbed}"
    ran = result.backend.effective_options.get("threads")
    if ran != peaks.threads:
        return f"the peaks are those of {peaks.threads} threads; the engine ran with {ran}"
    if result.backend.device != "cpu":
        return f"the peaks are those of the CPU; the engine ran on {result.backend.device}"
    used = select(result.samples, result.windows, from_facts(result.scenario)).samples
    return Roofline(
        **_field("bandwidth_share", _bandwidth_share(result, peaks, used)),
        **_field("compute_share", _compute_share(result.model, peaks, used)),
        **_field("compute_precision", precision(result.model)),
    )


def impossible(found: Roofline | None) -> Iterator[str]:
    """Yield what is faster than the machine can be: a peak measured too low, or bytes or parameters counted wrongly."""
    if found is None:
        return
    for name, share in (("bandwidth", found.bandwidth_share), ("arithmetic", found.compute_share)):
        if share is not None and share > 1 + TOLERANCE_SHARE:
            yield f"{name}: {share:.0%} of the measured peak of this machine"


def precision(model: ModelFacts) -> Precision | Missing:
    """Return what the weights are multiplied in: 8-bit integers where they are stored in fewer than 16 bits."""
    if model.parameters is None or model.bits_per_weight is None:
        return Missing(reason="nothing is known of the model's weights")
    if not model.parameters:
        return Missing(reason="the engine multiplies nothing")
    if model.bits_per_weight >= _FP32_BITS:
        return "fp32"
    if model.bits_per_weight < _HALF_BITS:
        return "int8"
    if "bf16" in model.runtime_quantization.lower():
        return "bf16"
    return Missing(reason=f"there is no peak for {model.runtime_quantization}")


def _bandwidth_share(result: RunResult, peaks: Peaks, used: Sequence[Sample]) -> float | Missing:
    peak, model = peaks.bandwidth, result.model
    if peak is None:
        return Missing(reason=f"bandwidth was not measured: {peaks.bandwidth_missing}")
    windows = _windows(result.windows, used)
    unknown = next((w for w in windows if w.bytes_streamed is None), None)
    if unknown is not None:
        return Missing(reason=str(unknown.bytes_streamed_missing))
    rates = [(w.bytes_streamed or 0) / w.duration_s for w in windows if w.duration_s > 0]
    if not any(rates):
        return Missing(reason="nothing was streamed" if rates else "no window of decoding was measured")
    streamed, cache = model.streamed_bytes_per_token, peaks.cache_bytes
    if streamed is not None and cache is not None and streamed <= cache:
        fit = f"{streamed / 1e6:.3g} MB a token fit the caches ({cache / 1e6:.3g} MB)"
        return Missing(reason=f"{fit}, so they need not come from memory")
    return statistics.median(rates) / peak.best


def _windows(windows: Sequence[Window], used: Sequence[Sample]) -> list[Window]:
    """Return the windows in which tokens of these requests were decoded."""
    alone = {s.window for s in used if not isinstance(s.span, str)}
    spans = {s.span for s in used}
    return [w for w in windows if (w.phase == "decode" and stem(w) in alone) or (w.phase == "serve" and w.id in spans)]


def _compute_share(model: ModelFacts, peaks: Peaks, used: Sequence[Sample]) -> float | Missing:
    kind = precision(model)
    if isinstance(kind, Missing):
        return kind
    peak: Peak | None = getattr(peaks, kind)
    if peak is None:
        return Missing(reason=f"the peak of {kind} was not measured: {getattr(peaks, f'{kind}_missing')}")
    alone = [s for s in used if not isinstance(s.span, str)]
    if len(alone) < len(used):
        return Missing(reason="requests overlap, so prefill has no window of its own")
    timed = [(s.prompt_tokens, s.first_token_s - s.start_s) for s in alone]
    multiplied = model.parameters if model.body_parameters is UNSET else model.body_parameters
    rates = [2 * (multiplied or 0) * tokens / seconds for tokens, seconds in timed if seconds > 0]
    return statistics.median(rates) / peak.best if rates else Missing(reason="no prefill was measured")


def _field(name: str, value: float | str | Missing) -> dict[str, Any]:
    return {name: None, f"{name}_missing": value.reason} if isinstance(value, Missing) else {name: value}
