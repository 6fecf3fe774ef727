"""Every metric of a result that is not energy, from its raw samples."""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING

from perjoule.records import Metric, Missing
from perjoule.stats.intervals import exact, least_for_percentile, percentile, pooled_percentile, t_interval
from perjoule.stats.selection import select, stem
from perjoule.stats.steering import output_rates, process_medians, tpot_s, ttft_s

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perjoule.records import MemoryPeak, ModelFacts, ProcessRecord, Sample, Window
    from perjoule.scenario import Scenario

Groups = list[list["Sample"]]

_MEDIANS = "mean of per-process medians"
_TOTALS = "mean of per-process ratios of totals"
_ONE_TOKEN = "every request gave one token, so there is no gap between tokens"  # noqa: S105 - a reason


def summarize(
    samples: Sequence[Sample],
    windows: Sequence[Window],
    processes: Sequence[ProcessRecord],
    memory: Sequence[MemoryPeak],
    scenario: Scenario,
    model: ModelFacts,
) -> dict[str, Metric]:
    """Return the metrics of docs/results-format.md that apply to the scenario, except energy.

    A per-process value is the median over the process' requests; the quantity is the mean of those with a
    t interval. What cannot be had is ``Missing`` with the reason.
    """
    groups = select(samples, windows, scenario).by_process
    return {
        **_latency(groups),
        **_rates(groups),
        "load_s": _over(processes, lambda p: p.load_s, "s", "mean over processes"),
        "cold_ttft_s": _over(processes, lambda p: p.cold_ttft_s, "s", "mean over processes"),
        "weights_bytes": exact(model.weights_bytes, unit="bytes", statistic="size in memory format"),
        "peak_memory_bytes": _peak_memory(memory),
        "peak_gpu_memory_bytes": _peak_gpu_memory(memory),
        "cpu_s_per_output_token": _cpu_per_token(groups, windows),
        "output_tokens_per_request": _medians(groups, lambda s: float(s.output_tokens), "tokens"),
    }


def _latency(groups: Groups) -> dict[str, Metric]:
    e2e = [[_e2e_s(s) for s in group] for group in groups]
    return {
        "ttft_s": _medians(groups, ttft_s, "s"),
        "itl_s": _itl(groups),
        "itl_p99_s": _itl_p99(groups),
        "tpot_s": _medians(groups, tpot_s, "s", missing=_ONE_TOKEN),
        "e2e_latency_s": _medians(groups, _e2e_s, "s"),
        "e2e_latency_p90_s": pooled_percentile(e2e, 0.90, unit="s"),
        "e2e_latency_p99_s": pooled_percentile(e2e, 0.99, unit="s"),
    }


def _rates(groups: Groups) -> dict[str, Metric]:
    return {
        "prefill_tokens_per_s": _medians(groups, _prefill_rate, "tokens/s", missing="prefill took no time"),
        "decode_tokens_per_s": _medians(groups, _decode_rate, "tokens/s", missing=_ONE_TOKEN),
        "output_tokens_per_s": _totals(groups, lambda s: s.output_tokens, "tokens/s"),
        "requests_per_s": _totals(groups, lambda _: 1, "requests/s"),
    }


def _e2e_s(sample: Sample) -> float:
    return sample.end_s - sample.start_s


def _prefill_rate(sample: Sample) -> float | None:
    duration_s = ttft_s(sample)
    return sample.prompt_tokens / duration_s if duration_s else None


def _decode_rate(sample: Sample) -> float | None:
    seconds = tpot_s(sample)
    return 1 / seconds if seconds else None


def _gaps(sample: Sample) -> list[float]:
    times = sample.token_times_s or ()
    return [after - before for before, after in itertools.pairwise(times)]


def _itl(groups: Groups) -> Metric:
    values = [statistics.median(gaps) for group in groups if (gaps := [g for s in group for g in _gaps(s)])]
    if not values:
        return Missing(reason=_no_gaps(groups))
    return t_interval(values, unit="s", statistic="mean of per-process medians over gaps")


def _itl_p99(groups: Groups) -> Metric:
    per_process = [[g for s in group for g in _gaps(s)] for group in groups]
    fewest, least = min((len(gaps) for gaps in per_process), default=0), least_for_percentile(0.99)
    if not fewest:
        return Missing(reason=_no_gaps(groups))
    if fewest < least:
        return Missing(reason=f"p99 needs at least {least} gaps a process, the shortest has {fewest}")
    values = [percentile(gaps, 0.99) for gaps in per_process]
    return t_interval(values, unit="s", statistic="mean of per-process p99 over gaps")


def _no_gaps(groups: Groups) -> str:
    reasons = [s.token_times_s_missing for group in groups for s in group if s.token_times_s is None]
    return next((r for r in reasons if isinstance(r, str)), _ONE_TOKEN)


def _medians(
    groups: Groups, of: Callable[[Sample], float | None], unit: str, *, missing: str = "no measured request"
) -> Metric:
    values = process_medians(groups, of)
    return t_interval(values, unit=unit, statistic=_MEDIANS) if values else Missing(reason=missing)


def _totals(groups: Groups, amount: Callable[[Sample], int], unit: str) -> Metric:
    pairs = [(sum(map(amount, group)), sum(map(_e2e_s, group))) for group in groups]
    values = [total / seconds for total, seconds in pairs if seconds]
    return t_interval(values, unit=unit, statistic=_TOTALS) if values else Missing(reason="no measured request")


def _over(
    processes: Sequence[ProcessRecord], of: Callable[[ProcessRecord], float], unit: str, statistic: str
) -> Metric:
    values = [of(p) for p in processes]
    return t_interval(values, unit=unit, statistic=statistic) if values else Missing(reason="no process finished")


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
        if window.phase not in {"prefill", "decode"}:
            continue
        if window.cpu_s is None:
            return Missing(reason=str(window.cpu_s_missing))
        spent[stem(window)] = spent.get(stem(window), 0.0) + window.cpu_s
    values = [sum(spent.get(s.window, 0.0) for s in g) / sum(s.output_tokens for s in g) for g in groups]
    if not values:
        return Missing(reason="no measured request")
    return t_interval(values, unit="s/token", statistic=_TOTALS)
