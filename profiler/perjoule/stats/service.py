"""What a service is judged by: waiting, the share of requests that met their limits, goodput, the rate it carried."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.load.slo import meets
from perjoule.records import Metric, Missing, Quantity
from perjoule.stats import early_stopping
from perjoule.stats.intervals import CONFIDENCE, pooled_percentile, t_interval
from perjoule.stats.steering import measured_seconds, process_medians, tpot_s, ttft_s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.records import Sample, Span, Window
    from perjoule.scenario import Scenario, Slo

_EARLY_STOPPING = {"single-stream": early_stopping.SINGLE_STREAM, "multi-stream": early_stopping.MULTI_STREAM}
_FIFTH = 5
_LEAST_FOR_FIFTHS = 10  # requests a process


def serving_seconds(groups: Sequence[Sequence[Sample]], windows: Sequence[Window]) -> list[float]:
    """Return, for each process, the seconds its requests took: of their shared windows, else of each in turn."""
    return [measured_seconds(group, windows) for group in groups]


def counted(groups: Sequence[Sequence[Sample]], spans: Sequence[Span]) -> list[Span]:
    """Return the spans that the samples came from, and measured ones in which no request was answered."""
    used = {s.span for group in groups for s in group}
    return [s for s in spans if s.phase == "measured" and (s.window in used or not s.finished)]


def unknown_latency(groups: Sequence[Sequence[Sample]], spans: Sequence[Span], scenario: Scenario) -> str:
    """Return why latencies would mean nothing; empty where they mean something."""
    if scenario.shape == "offline":
        return "offline: all requests wait from the start, so only throughput counts"
    saturated = [s for s in counted(groups, spans) if s.saturated]
    if saturated:
        longest_s = max(s.longest_wait_s for s in saturated)
        return (
            f"{saturated[0].verdict}; the longest wait was {longest_s:.1f} s and grows as long as the load lasts, "
            "so no latency is typical"
        )
    return ""


def good_requests(samples: Sequence[Sample], slo: Slo) -> frozenset[str]:
    """Return the requests that met the limits, by the id of their window."""
    return frozenset(s.window for s in samples if meets(slo, ttft_s(s), tpot_s(s)))


def service_metrics(
    groups: Sequence[Sequence[Sample]], windows: Sequence[Window], spans: Sequence[Span], scenario: Scenario
) -> dict[str, Metric]:
    """Return the metrics that only some scenarios have: of queues, of service levels, of long loads."""
    found: dict[str, Metric] = {}
    unknown = unknown_latency(groups, spans, scenario)
    if scenario.shape in {"server", "multi-stream"}:
        waits = process_medians(groups, lambda s: s.start_s - s.sent_s)
        found["queue_delay_s"] = Missing(reason=unknown) if unknown else _of(waits, "s", "mean of per-process medians")
        found["ttft_p99_s"] = _p99(groups, unknown, ttft=True)
        found["tpot_p99_s"] = _p99(groups, unknown, ttft=False)
    if scenario.shape == "server":
        rates = [s.rate_per_s for s in counted(groups, spans) if s.rate_per_s is not None]
        found["offered_requests_per_s"] = _of(rates, "requests/s", "mean over processes")
    if scenario.slo is not None:
        found |= _goodput(groups, windows, spans, scenario.slo, unknown)
    if scenario.rigor == "strict" and scenario.shape in _EARLY_STOPPING:
        found |= _early_stopping(groups, unknown, _EARLY_STOPPING[scenario.shape])
    if scenario.shape == "single-stream" and scenario.duration_s is not None:
        found["last_fifth_decode_ratio"] = _last_fifth(groups)
    return found


def _early_stopping(groups: Sequence[Sequence[Sample]], unknown: str, share: float) -> dict[str, Metric]:
    """Return MLPerf's estimate of a latency percentile: an upper bound at confidence 0.99, from all requests."""
    name = f"e2e_latency_p{share * 100:.0f}_early_stopping_s"
    if unknown:
        return {name: Missing(reason=unknown)}
    found = early_stopping.estimate([s.end_s - s.sent_s for group in groups for s in group], share)
    if found.value is None:
        return {name: Missing(reason=str(found.value_missing))}
    quantity = Quantity(
        value=found.value, low=None, low_missing="early stopping bounds a percentile from above only",
        high=found.value, unit="s", n=found.n, statistic=f"MLPerf early-stopping estimate of p{share * 100:.0f}",
        interval=f"upper bound at confidence {found.confidence:g}, tolerance 0, over requests",
    )  # fmt: skip
    return {name: quantity}


def _p99(groups: Sequence[Sequence[Sample]], unknown: str, *, ttft: bool) -> Metric:
    if unknown:
        return Missing(reason=unknown)
    of = ttft_s if ttft else tpot_s
    return pooled_percentile([[v for v in map(of, group) if v is not None] for group in groups], 0.99, unit="s")


def _of(values: Sequence[float], unit: str, statistic: str) -> Metric:
    return t_interval(values, unit=unit, statistic=statistic) if values else Missing(reason="no measured request")


def _goodput(
    groups: Sequence[Sequence[Sample]], windows: Sequence[Window], spans: Sequence[Span], slo: Slo, unknown: str
) -> dict[str, Metric]:
    """Return requests within their limits: a second, and their share of all that were offered, answered or not.

    Of a load that was ended early both would flatter: the first requests meet limits that none of the later would.
    """
    if unknown:
        missing = Missing(reason=unknown)
        return {"goodput_requests_per_s": missing, "slo_met_share": missing}
    good = [len(good_requests(group, slo)) for group in groups]
    seconds = serving_seconds(groups, windows)
    rates = [n / s for n, s in zip(good, seconds, strict=True) if s]
    kept = counted(groups, spans)
    offered = sum(s.offered for s in kept) if kept else sum(len(g) for g in groups)
    return {
        "goodput_requests_per_s": _of(rates, "requests/s", "mean of per-process ratios of totals"),
        "slo_met_share": _share(sum(good), offered),
    }


def _share(good: int, offered: int) -> Metric:
    """Return a share of requests with its exact binomial interval (Clopper and Pearson 1934)."""
    if not offered:
        return Missing(reason="no request was offered")
    from scipy.special import betaincinv  # noqa: PLC0415 - heavy; only once results are computed

    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(good, offered - good + 1, tail)) if good else 0.0
    high = float(betaincinv(good + 1, offered - good, 1 - tail)) if good < offered else 1.0
    value = good / offered
    return Quantity(
        value=value, low=min(low, value), high=max(high, value), unit="1", n=offered,
        statistic="share of the offered requests that met both limits",
        interval="95 % Clopper-Pearson over requests, which must be independent",
    )  # fmt: skip


def _last_fifth(groups: Sequence[Sequence[Sample]]) -> Metric:
    """Return the decode rate of the last fifth of a process' requests as a multiple of that of the first."""
    values = []
    for group in groups:
        size = len(group) // _FIFTH
        if len(group) < _LEAST_FOR_FIFTHS:
            return Missing(reason=f"needs {_LEAST_FOR_FIFTHS} requests a process, one has {len(group)}")
        first, last = (process_medians([part], tpot_s) for part in (group[:size], group[-size:]))
        if not first or not last or not last[0]:
            return Missing(reason="every request gave one token, so nothing was decoded")
        values.append(first[0] / last[0])
    return _of(values, "1", "mean over processes of the ratio of medians")
