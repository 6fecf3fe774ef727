"""Intervals over fresh processes: Student's t on one value per process."""

from __future__ import annotations

import math
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING

from perjoule.records import Quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.95
INTERVAL = "95 % t over processes"


def t_half_width(values: Sequence[float]) -> float | None:
    """Return the half-width of the 95 % t interval of the mean; None for fewer than two values.

    Half-width = t(0.975, n - 1) * s / sqrt(n).
    """
    from scipy.stats import t  # noqa: PLC0415 - half a second that `perjoule --help` does not need

    n = len(values)
    if n < 2:  # noqa: PLR2004
        return None
    return float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * stdev(values) / math.sqrt(n)


def over_processes(values: Sequence[float], unit: str, statistic: str) -> Quantity:
    """Return the mean of one value per process with its t interval. Lower bounds stop at 0."""
    value = fmean(values)
    half = t_half_width(values)
    if half is None:
        why = "one process: no spread to judge by"
        return Quantity(
            value=value, low=None, high=None, low_missing=why, high_missing=why,
            unit=unit, n=1, statistic=statistic, interval="none",
        )  # fmt: skip
    return Quantity(
        value=value, low=max(0.0, value - half), high=value + half,
        unit=unit, n=len(values), statistic=statistic, interval=INTERVAL,
    )  # fmt: skip


def exact(value: float, unit: str, statistic: str) -> Quantity:
    """Return a value that is counted, not sampled: its bounds are itself."""
    return Quantity(value=value, low=value, high=value, unit=unit, n=1, statistic=statistic, interval="exact")


def process_median(values: Sequence[float]) -> float:
    return float(median(values))
