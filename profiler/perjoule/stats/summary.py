"""From samples to metrics: one median per process, then an interval over the processes.

Names and definitions are those of docs/results-format.md. ITL: gaps between tokens; TPOT: (end - first token)
/ (tokens - 1); prefill rate: prompt tokens / (first token - start); decode rate: 1 / TPOT.
"""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from typing import TYPE_CHECKING

from perjoule.records import MemoryPeak, Metric, Missing, ModelFacts, ProcessRecord, Quantity, Sample, Window
from perjoule.stats.intervals import exact, over_processes, process_median

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MIN_REQUESTS = {"p90": 20, "p99": 100}  # below these a percentile is a guess
_QUANTILE = {"p90": 0.90, "p99": 0.99}
_ONE_TOKEN = "requests of one output token have no gap between tokens"  # noqa: S105


def clean_samples(samples: Sequence[Sample], windows: Sequence[Window]) -> tuple[Sample, ...]:
    """Return the measured samples whose windows were not rejected; all of them where a process has none left."""
    rejected = {w.id.rpartition("/")[0] for w in windows if w.rejected}
    measured = [s for s in samples if s.phase == "measured"]
    spared = {s.process for s in measured if s.window not in rejected}
    return tuple(s for s in measured if s.window not in rejected or s.process not in spared)


def per_process(samples: Sequence[Sample], value: Callable[[Sample], float | None]) -> list[float]:
    """Return each process's median of a value; requests without one, and processes without any, are left out."""
    groups: dict[int, list[float]] = defaultdict(list)
    for sample in samples:
        found = value(sample)
        if found is not None:
            groups[sample.process].append(found)
    return [process_median(group) for _, group in sorted(groups.items())]


def ttft_s(sample: Sample) -> float:
    return sample.first_token_s - sample.start_s


def tpot_s(sample: Sample) -> float | None:
    gaps = sample.output_tokens - 1
    return (sample.end_s - sample.first_token_s) / gaps if gaps else None


def decode_rate(sample: Sample) -> float | None:
    tpot = tpot_s(sample)
    return 1 / tpot if tpot else None


def prefill_rate(sample: Sample) -> float | None:
    taken = ttft_s(sample)
    return sample.prompt_tokens / taken if taken else None


def gaps_s(sample: Sample) -> list[float]:
    times = sample.token_times_s or ()
    return [after - before for before, after in zip(times, times[1:], strict=False)]


def summarize(
    samples: Sequence[Sample],
    windows: Sequence[Window],
    processes: Sequence[ProcessRecord],
    memory: Sequence[MemoryPeak],
    model: ModelFacts,
) -> dict[str, Metric]:
    """Return every metric but energy. Those that cannot be had are ``Missing`` with the reason."""
    clean = clean_samples(samples, windows)
    metrics: dict[str, Metric] = {}

    def add(name: str, unit: str, value: Callable[[Sample], float | None], why_not: str) -> None:
        values = per_process(clean, value)
        metrics[name] = over_processes(values, unit, "mean of process medians") if values else Missing(reason=why_not)

    add("ttft_s", "s", ttft_s, "no request was measured")
    add("itl_s", "s", lambda s: process_median(gaps_s(s)) if gaps_s(s) else None, _ONE_TOKEN)
    add("tpot_s", "s", tpot_s, _ONE_TOKEN)
    add("e2e_latency_s", "s", lambda s: s.end_s - s.start_s, "no request was measured")
    add("prefill_tokens_per_s", "tokens/s", prefill_rate, "no request was measured")
    add("decode_tokens_per_s", "tokens/s", decode_rate, _ONE_TOKEN)
    add("output_tokens_per_s", "tokens/s", lambda s: s.output_tokens / (s.end_s - s.start_s), "no request was measured")
    add("requests_per_s", "1/s", lambda s: 1 / (s.end_s - s.start_s), "no request was measured")
    add("output_tokens_per_request", "tokens", lambda s: float(s.output_tokens), "no request was measured")
    cpu = _cpu_by_request(windows)
    add("cpu_s_per_output_token", "s", lambda s: _ratio(cpu.get(s.window), s.output_tokens), "CPU time was not read")
    latencies = [s.end_s - s.start_s for s in clean]
    metrics["e2e_latency_p90_s"] = _percentile(latencies, "p90")
    metrics["e2e_latency_p99_s"] = _percentile(latencies, "p99")
    metrics["itl_p99_s"] = _itl_percentile(clean)
    metrics["load_s"] = over_processes([p.load_s for p in processes], "s", "mean over processes")
    metrics["cold_ttft_s"] = over_processes([p.cold_ttft_s for p in processes], "s", "mean over processes")
    metrics["weights_bytes"] = exact(float(model.weights_bytes), "bytes", "counted")
    metrics |= _memory(memory)
    return metrics


def _ratio(value: float | None, count: int) -> float | None:
    return None if value is None else value / count


def _cpu_by_request(windows: Sequence[Window]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for window in windows:
        if window.cpu_s is not None:
            total[window.id.rpartition("/")[0]] += window.cpu_s
    return total


def _percentile(values: Sequence[float], name: str) -> Metric:
    """Return a percentile over requests with its distribution-free interval from order statistics."""
    need = MIN_REQUESTS[name]
    if len(values) < need:
        return Missing(reason=f"{name} needs {need} requests; {len(values)} were measured")
    from scipy.stats import quantile_test  # noqa: PLC0415

    share = _QUANTILE[name]
    test = quantile_test(list(values), p=share)
    bounds = test.confidence_interval(0.95)
    ordered = sorted(values)
    value = ordered[min(len(ordered) - 1, int(share * len(ordered)))]
    has_high = bounds.high == bounds.high  # noqa: PLR0124 - scipy gives NaN where no order statistic bounds it
    high = max(value, float(bounds.high)) if has_high else None
    extra = {} if has_high else {"high_missing": "too few requests above it to bound it"}
    return Quantity(
        value=value, low=min(value, float(bounds.low)), high=high, unit="s", n=len(values),
        statistic=f"{name} over requests", interval="95 % from order statistics", **extra,  # type: ignore[arg-type]
    )  # fmt: skip


def _itl_percentile(samples: Sequence[Sample]) -> Metric:
    """Return the 99th percentile of all gaps of each process, then the interval over processes."""
    need = MIN_REQUESTS["p99"]
    groups: dict[int, list[float]] = defaultdict(list)
    for sample in samples:
        groups[sample.process].extend(gaps_s(sample))
    smallest = min((len(g) for g in groups.values()), default=0)
    if smallest < need:
        return Missing(reason=f"p99 needs {need} gaps a process; {smallest} were measured")
    values = [sorted(g)[min(len(g) - 1, int(_QUANTILE["p99"] * len(g)))] for g in groups.values()]
    return over_processes(values, "s", "mean of process 99th percentiles")


def _memory(memory: Sequence[MemoryPeak]) -> dict[str, Metric]:
    peaks: dict[int, int] = defaultdict(int)
    reasons = []
    for peak in memory:
        if peak.rss_peak_bytes is None:
            reasons.append(peak.rss_peak_bytes_missing)
        else:
            peaks[peak.process] = max(peaks[peak.process], peak.rss_peak_bytes)
    values = [float(v) for v in peaks.values()]
    found: Metric
    if values:
        found = over_processes(values, "bytes", "mean of process peaks of resident memory (VmHWM of the worker)")
    else:
        found = Missing(reason=str(reasons[0]) if reasons else "memory was not read")
    return {"peak_memory_bytes": found, "peak_gpu_memory_bytes": Missing(reason="the engine runs on the CPU")}


def relative_half_width(values: Sequence[float]) -> float | None:
    from perjoule.stats.intervals import t_half_width  # noqa: PLC0415

    half = t_half_width(values)
    return None if half is None else half / fmean(values)
