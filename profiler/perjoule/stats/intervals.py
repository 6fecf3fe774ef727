"""Centres, percentiles and intervals. The process is the unit of replication."""

from __future__ import annotations

import math
import random
import statistics
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from perjoule.records import Missing, Quantity
from perjoule.stats.widening import lag1, widened_half_width

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.95
MIN_FOR_BOOTSTRAP = 8  # processes; over two or three a bootstrap covers 80 to 84 %, not 95
_RESAMPLES = 500  # enough for a standard error
_AT_ONCE = 50  # resamples
ONE_PROCESS = "one process: a spread between processes cannot be seen"
METHOD = "95 % Student t over processes, widened for stopping at a target and for correlation of successive ones"
PERCENTILE_METHOD = (
    "95 % bootstrap standard error over processes times the t quantile, widened for stopping and for correlation"
)


def t_interval(values: Sequence[float], *, unit: str, statistic: str) -> Quantity:
    """Return the mean of per-process values of a non-negative quantity with its 95 % interval.

    ``values`` in the order in which the processes ran. With one value there are no bounds, and the reason. Raises
    ``ValueError`` for none.
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
        unit=unit, n=len(values), statistic=statistic, interval=METHOD,
    )  # fmt: skip


def half_width(values: Sequence[float]) -> float | None:
    """Return the half-width of the 95 % interval of the mean; None for fewer than two values.

    ``values`` in the order in which the processes ran. Student's t, widened as ``perjoule.stats.widening`` says;
    over fewer processes than a mode of the machine needs to show itself (see ``unseen_share``) it is too narrow.
    """
    if len(values) < 2:  # noqa: PLR2004 - a spread needs a pair
        return None
    return float(widened_half_width(len(values), stdev(values), lag1(values)))


def stdev(values: Sequence[float]) -> float:
    """Return the standard deviation of two or more values: as ``statistics.stdev`` but for a last digit, and sooner.

    ``verify`` tolerates far more than that (1e-9), so it is no other statistics.
    """
    mean = statistics.fmean(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def unseen_share(processes: int) -> float:
    """Return how large a share of processes could behave otherwise without one among these, at 95 % confidence.

    45 % of them for 5, 31 % for 8, 22 % for 12: (1 - share) ** processes = 5 %. No interval knows of a mode unseen.
    """
    return float(1 - (1 - CONFIDENCE) ** (1 / processes))


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
    """Return a percentile over the requests of all processes, bounds by the spread between processes.

    ``groups`` in the order in which the processes ran. Missing below the least number of requests; no bounds below
    eight processes.
    """
    groups = [group for group in groups if group]
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
    half = _percentile_half_width(groups, share)
    return Quantity(
        value=value, low=max(min(0.0, value), value - half), high=value + half,
        unit=unit, n=len(pooled), statistic=statistic, interval=PERCENTILE_METHOD,
    )  # fmt: skip


def _percentile_half_width(groups: Sequence[Sequence[float]], share: float) -> float:
    """Return the half-width for a percentile over processes in the order they ran.

    The bootstrap only gives the standard error; over 8 or 20 processes its own percentiles cover 58 to 93 %
    (benchmarks/coverage.py). The quantile, and the widening for order and stopping, are those of a mean.
    """
    import numpy as np  # noqa: PLC0415

    seen = _resampled(groups, share)
    n = len(groups)
    # a standard error times sqrt n is a spread between processes; a bootstrap's lacks the n / (n - 1)
    spread = float(np.std(seen)) * n / math.sqrt(n - 1)
    return float(widened_half_width(n, spread, lag1([statistics.median(g) for g in groups])))


def _resampled(groups: Sequence[Sequence[float]], share: float) -> list[float]:
    """Return the percentile of each resample of whole groups, as ``percentile`` of the pooled values gives it.

    All values are sorted once; a resample only says how often each of them counts.
    """
    import numpy as np  # noqa: PLC0415 - heavy; only once results are computed

    values = np.array([v for group in groups for v in group], dtype=float)
    owner = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    order = np.argsort(values, kind="stable")
    ordered, owner = values[order], owner[order]
    seen: list[float] = []
    for times in _draws(len(groups)):
        upto = np.cumsum(times[:, owner], axis=1)  # how many values of a resample lie at or before each
        position = share * (upto[:, -1] - 1)
        below = np.floor(position).astype(int)
        above = np.minimum(below + 1, upto[:, -1] - 1)
        low, high = (ordered[(upto <= at[:, None]).sum(axis=1)] for at in (below, above))
        seen += (low + (position - below) * (high - low)).tolist()
    return seen


@lru_cache(maxsize=64)
def _draws(n: int) -> tuple[Any, ...]:
    """Return how often each of n groups is drawn, a row a resample, in blocks that bound the memory of what follows."""
    import numpy as np  # noqa: PLC0415

    generator = random.Random(0)  # noqa: S311 - fixed, so that the same samples give the same bounds
    drawn = [generator.choices(range(n), k=n) for _ in range(_RESAMPLES)]
    counts = np.array([np.bincount(row, minlength=n) for row in drawn])
    return tuple(np.array_split(counts, _RESAMPLES // _AT_ONCE))
