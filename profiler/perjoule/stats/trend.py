"""Whether a machine became slower or faster while it was measured, and whether requests still warmed up."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import TYPE_CHECKING

from perjoule.records import Record
from perjoule.stats.intervals import stdev
from perjoule.stats.widening import lag1, variance_inflation

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_PROCESSES = 8  # below it the normal approximation of Kendall's statistic does not hold
SIGNIFICANCE = 0.01


class Trend(Record, frozen=True, kw_only=True):
    """``change`` is the robust rise from the first to the last of ``n`` values, as a share of their median."""

    n: int
    change: float
    p: float

    @property
    def drifts(self) -> bool:
        return self.p < SIGNIFICANCE


def trend(values: Sequence[float]) -> Trend | None:
    """Return the trend of values in the order they were taken, or None below eight of them or for a median of 0.

    Slope: the median over all pairs [Theil 1950; Sen 1968]. p: Kendall's test against order [Mann 1945, Econometrica
    13(3)] with ties, its variance raised for the correlation of what the slope leaves, after the idea of Hamed and Rao
    [1998, J. Hydrology 204]. A level that wanders may show as a trend; that the level moved is true then as well.
    """
    n = len(values)
    centre = statistics.median(values) if values else 0.0
    if n < LEAST_PROCESSES or not centre:
        return None
    import numpy as np  # noqa: PLC0415 - heavy; only once results are computed

    i, j = np.triu_indices(n, 1)
    rises = np.asarray(values)[j] - np.asarray(values)[i]
    slope = float(np.median(rises / (j - i)))
    score = int(np.sign(rises).sum())
    rest = [v - slope * k for k, v in enumerate(values)]
    variance = _variance(values) * float(variance_inflation(n, lag1(rest), prior=0.0))
    z = (abs(score) - 1) / math.sqrt(variance) if score and variance > 0 else 0.0
    return Trend(n=n, change=slope * (n - 1) / abs(centre), p=min(1.0, math.erfc(z / math.sqrt(2))))


class Leftover(Record, frozen=True, kw_only=True):
    """``fall``: how much longer the first measured request of a process takes than its last, as a share."""

    processes: int
    fall: float
    p: float

    @property
    def warming_up(self) -> bool:
        return self.p < SIGNIFICANCE


def leftover_ramp(groups: Sequence[Sequence[float]]) -> Leftover | None:
    """Return what is left of warm-up in the measured requests, or None below eight processes of two requests or more.

    ``groups``: the durations of each process' measured requests, above 0, in the order they ran. What one process hides
    in its noise shows over many: the mean of log(first / last), t test of no fall, one-sided. Such a ramp is a bias
    that no interval knows of; only more warm-up requests take it out.
    """
    falls = [math.log(g[0] / g[-1]) for g in groups if len(g) > 1 and min(g) > 0]
    n = len(falls)
    if n < LEAST_PROCESSES:
        return None
    from scipy.special import stdtr  # noqa: PLC0415 - heavy; only once results are computed

    mean, error = statistics.fmean(falls), stdev(falls) / math.sqrt(n)
    p = float(stdtr(n - 1, -mean / error)) if error else float(mean <= 0)
    return Leftover(processes=n, fall=math.expm1(mean), p=p)


def _variance(values: Sequence[float]) -> float:
    """Return the variance of Kendall's score without a trend; ties lower it."""
    n = len(values)
    tied = sum(t * (t - 1) * (2 * t + 5) for t in map(len, _ties(values)))
    return (n * (n - 1) * (2 * n + 5) - tied) / 18


def _ties(values: Sequence[float]) -> list[list[float]]:
    return [list(same) for _, same in itertools.groupby(sorted(values))]
