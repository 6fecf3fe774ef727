"""Centres, percentiles and intervals. The process is the unit of replication."""

from __future__ import annotations

import math
import random
import statistics
from typing import TYPE_CHECKING

from perjoule.records import Missing, Quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.95
MIN_FOR_BOOTSTRAP = 8  # processes; over two or three a bootstrap covers 80 to 84 %, not 95
_RESAMPLES = 2000
ONE_PROCESS = "one process: a spread between processes cannot be seen"


def t_interval(values: Sequence[float], *, unit: str, statistic: str) -> Quantity:
    """Return the mean of per-process values of a non-negative quantity with Student's t interval.

    With one value there are no bounds, and the reason. Raises ``ValueError`` for none.
    """
    mean = statistics.fmean(values)
    half = half_width(values)
    if half is None:
        return Quantity(
            value=mean, low=None, high=None, low_missing=ONE_PROCESS, high_missing=ONE_PROCESS,
            unit=unit, n=1, statistic=statistic, interval="none",
        )  # fmt: skip
    return Quantity(
        value=mean, low=max(0.0, mean - half), high=mean + half,
        unit=unit, n=len(values), statistic=statistic, interval="95 % Student t over processes",
    )  # fmt: skip


def half_width(values: Sequence[float]) -> float | None:
    """Return the half-width of the 95 % t interval of the mean; None for fewer than two values."""
    if len(values) < 2:  # noqa: PLR2004 - a spread needs a pair
        return None
    from scipy.special import stdtrit  # noqa: PLC0415 - heavy; only once results are computed

    quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def exact(value: float, *, unit: str, statistic: str) -> Quantity:
    """Return a quantity that is known, not estimated."""
    value = float(value)
    return Quantity(value=value, low=value, high=value, unit=unit, n=1, statistic=statistic, interval="exact")


def percentile(values: Sequence[float], share: float) -> float:
    """Return the percentile with linear interpolation between order statistics (Hyndman and Fan type 7)."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def least_for_percentile(share: float) -> int:
    """Return how many observations a percentile needs: 20 for p90, 100 for p99."""
    return {0.90: 20, 0.99: 100}[share]


def pooled_percentile(groups: Sequence[Sequence[float]], share: float, *, unit: str) -> Quantity | Missing:
    """Return a percentile over the requests of all processes, bounds by a bootstrap over processes.

    Missing below the least number of requests; no bounds below eight processes.
    """
    pooled = [value for group in groups for value in group]
    name, least = f"p{share * 100:.0f}", least_for_percentile(share)
    if len(pooled) < least:
        return Missing(reason=f"{name} needs at least {least} requests, there are {len(pooled)}")
    value, statistic = percentile(pooled, share), f"{name} over requests"
    if len(groups) < MIN_FOR_BOOTSTRAP:
        reason = f"bounds of a percentile need {MIN_FOR_BOOTSTRAP} processes, there are {len(groups)}"
        return Quantity(
            value=value, low=None, high=None, low_missing=reason, high_missing=reason,
            unit=unit, n=len(pooled), statistic=statistic, interval="none",
        )  # fmt: skip
    low, high = _bootstrap(groups, share)
    return Quantity(
        value=value, low=min(low, value), high=max(high, value),
        unit=unit, n=len(pooled), statistic=statistic, interval="95 % bootstrap over processes",
    )  # fmt: skip


def _bootstrap(groups: Sequence[Sequence[float]], share: float) -> tuple[float, float]:
    generator = random.Random(0)  # noqa: S311 - fixed, so that the same samples give the same bounds
    seen = [
        percentile([v for group in generator.choices(groups, k=len(groups)) for v in group], share)
        for _ in range(_RESAMPLES)
    ]
    tail = (1 - CONFIDENCE) / 2
    return percentile(seen, tail), percentile(seen, 1 - tail)
