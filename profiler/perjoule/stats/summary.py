"""Every metric of a result that is not energy, from its raw samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.records import Metric, Missing
from perjoule.stats.gaps import ONE_TOKEN, itl, itl_p99
from perjoule.stats.intervals import exact, pooled_percentile, t_interval
from perjoule.stats.selection import select, stem
from perjoule.stats.service import service_metrics, serving_seconds, unknown_latency
from perjoule.stats.steering import process_medians, tpot_s, ttft_s

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perjoule.records import GapHistogram, MemoryPeak, ModelFacts, ProcessRecord, Sample, Span, Window
    from perjoule.scenario import Scenario

Groups = list[list["Sample"]]

_MEDIANS = "mean of per-process medians"
_TOTALS = "mean of per-process ratios of totals"


def summarize(
    samples: Sequence[Sample],
    windows: Sequence[Window],
    processes: Sequence[ProcessRecord],
    memory: Sequence[MemoryPeak],
    scenario: Scenario,
    model: ModelFacts,
    spans: Sequence[Span] = (),
    gaps: Sequence[GapHistogram] = (),
) -> dict[str, Metric]:
    """Return the metrics of docs/results-format.md that apply to the scenario, except energy.

    A per-process value is the median over the process' requests; the quantity is the mean of those with a
    t interval. What cannot be had is ``Missing`` with the reason.
    """
    groups = select(samples, windows, scenario).by_process
    of_engine = {
        "load_s": _over(processes, "load_s"),
        "cold_ttft_s": _over(processes, "cold_ttft_s"),
        "weights_bytes": Missing(reason=str(model.weights_bytes_missing))
        if model.weights_bytes is None
        else exact(model.weights_bytes, unit="bytes", statistic="size in memory format"),
        "peak_memory_bytes": _peak_memory(memory),
        "peak_gpu_memory_bytes": _peak_gpu_memory(memory),
    }
    if scenario.shape == "idle":
        return {**of_engine, "idle_cpu_share": _idle_cpu_share(windows, spans)}
    return {
        **_latency(groups, gaps, unknown_latency(groups, spans, scenario)),
        **_rates(groups, windows),
        **of_engine,
        "cpu_s_per_output_token": _cpu_per_token(groups, windows),
        "output_tokens_per_request": _medians(groups, lambda s: float(s.output_tokens), "tokens"),
        **service_metrics(groups, windows, spans, scenario),
    }


def _latency(groups: Groups, gaps: Sequence[GapHistogram], unknown: str) -> dict[str, Metric]:
    e2e = [[_e2e_s(s) for s in group] for group in groups]
    found: dict[str, Metric] = {
        "ttft_s": _medians(groups, ttft_s, "s"),
        "itl_s": itl(groups, gaps),
        "itl_p99_s": itl_p99(groups, gaps),
        "tpot_s": _medians(groups, tpot_s, "s", missing=ONE_TOKEN),
        "e2e_latency_s": _medians(groups, _e2e_s, "s"),
        "e2e_latency_p90_s": pooled_percentile(e2e, 0.90, unit="s"),
        "e2e_latency_p99_s": pooled_percentile(e2e, 0.99, unit="s"),
    }
    return {name: Missing(reason=unknown) for name in found} if unknown else found


def _rates(groups: Groups, windows: Sequence[Window]) -> dict[str, Metric]:
    return {
        "prefill_tokens_per_s": _medians(groups, _prefill_rate, "tokens/s", missing="prefill took no time"),
        "decode_tokens_per_s": _medians(groups, _decode_rate, "tokens/s", missing=ONE_TOKEN),
        "output_tokens_per_s": _totals(groups, windows, lambda s: s.output_tokens, "tokens/s"),
        "requests_per_s": _totals(groups, windows, lambda _: 1, "requests/s"),
    }


def _e2e_s(sample: Sample) -> float:
    return sample.end_s - sample.sent_s


def _prefill_rate(sample: Sample) -> float | None:
    duration_s = sample.first_token_s - sample.start_s
    return sample.prompt_tokens / duration_s if duration_s else None


def _decode_rate(sample: Sample) -> float | None:
    seconds = tpot_s(sample)
    return 1 / seconds if seconds else None


def _medians(
    groups: Groups, of: Callable[[Sample], float | None], unit: str, *, missing: str = "no measured request"
) -> Metric:
    values = process_medians(groups, of)
    return t_interval(values, unit=unit, statistic=_MEDIANS) if values else Missing(reason=missing)


def _totals(groups: Groups, windows: Sequence[Window], amount: Callable[[Sample], int], unit: str) -> Metric:
    seconds = serving_seconds(groups, windows)
    values = [sum(map(amount, group)) / s for group, s in zip(groups, seconds, strict=True) if s]
    return t_interval(values, unit=unit, statistic=_TOTALS) if values else Missing(reason="no measured request")


def _over(processes: Sequence[ProcessRecord], name: str) -> Metric:
    """Return a time that each process has, in seconds, over those that have it."""
    values = [v for p in processes if (v := getattr(p, name)) is not None]
    if values:
        return t_interval(values, unit="s", statistic="mean over processes")
    return Missing(reason=next((getattr(p, f"{name}_missing") for p in processes), "no process finished"))


def _idle_cpu_share(windows: Sequence[Window], spans: Sequence[Span]) -> Metric:
    """Return the share of one core that the loaded engine takes while it waits: threads that spin do not rest."""
    waiting = {s.window for s in spans}
    values = [w.cpu_s / w.duration_s for w in windows if w.id in waiting and w.cpu_s is not None and w.duration_s]
    if not values:
        return Missing(reason="no process finished")
    return t_interval(values, unit="cores", statistic="mean over processes")


def _peak_memory(memory: Sequence[MemoryPeak]) -> Metric:
    peaks: dict[int, int] = {}
    for entry in memory:
        if entry.rss_peak_bytes is None:
            return Missing(reason=f"{entry.phase}: {entry.rss_peak_bytes_missing}")
        peaks[entry.process] = max(peaks.get(entry.process, 0), entry.rss_peak_bytes)
    if not peaks:
        return Missing(reason="no process finished")
    return t_interval(
        [float(b) for b in peaks.values()], unit="bytes",
        statistic="mean over processes of the resident high-water mark (VmHWM) of the engine's process",
    )  # fmt: skip


def _peak_gpu_memory(memory: Sequence[MemoryPeak]) -> Metric:
    peaks: dict[int, int] = {}
    for entry in memory:
        if entry.gpu_bytes is not None:
            peaks[entry.process] = max(peaks.get(entry.process, 0), entry.gpu_bytes)
    if peaks:
        return t_interval(
            [float(b) for b in peaks.values()], unit="bytes", statistic="mean of per-process peaks at phase edges"
        )
    reasons = (e.gpu_bytes_missing for e in memory)
    return Missing(reason=next((r for r in reasons if isinstance(r, str)), "no process finished"))


def _cpu_per_token(groups: Groups, windows: Sequence[Window]) -> Metric:
    spent: dict[str, float] = {}
    for window in windows:
        if window.phase not in {"prefill", "decode", "serve"}:
            continue
        if window.cpu_s is None:
            return Missing(reason=str(window.cpu_s_missing))
        name = window.id if window.phase == "serve" else stem(window)
        spent[name] = spent.get(name, 0.0) + window.cpu_s
    values = [
        sum(spent.get(name, 0.0) for name in {s.span if isinstance(s.span, str) else s.window for s in group})
        / sum(s.output_tokens for s in group)
        for group in groups
    ]
    if not values:
        return Missing(reason="no measured request")
    return t_interval(values, unit="s/token", statistic=_TOTALS)
