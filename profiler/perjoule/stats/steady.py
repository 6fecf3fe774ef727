"""When warm-up is over, and how much of a longer series it was. Imported by the measured process: pure Python."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Two successive requests agree when they differ by less than this: above the spread between requests of a
# shared host (7 % in tests/noise), far below what a cold cache or a lazy allocation costs.
RELATIVE_TOLERANCE = 0.10
ABSOLUTE_TOLERANCE_S = 100e-6  # below it only the scheduler is seen
DESCENT = 0.02  # a fall by more than this may be a ramp, however well the two agree
_BATCH = 5  # observations a batch of MSER-5
_LEAST_BATCHES = 4


def is_steady(durations_s: Sequence[float]) -> bool:
    """Say whether the durations have settled; False while there are fewer than two.

    The last two must agree, and must not still be falling: a fall of more than 2 % has to be broken first. Chance
    breaks it soon (every second pair of a settled series falls), a ramp that is steeper than the noise never does.
    """
    if len(durations_s) < 2:  # noqa: PLR2004 - a pair
        return False
    before, last = durations_s[-2:]
    agree = abs(last - before) <= max(ABSOLUTE_TOLERANCE_S, RELATIVE_TOLERANCE * min(last, before))
    if not agree:
        return False
    return not _falls(before, last) or (len(durations_s) > 2 and not _falls(durations_s[-3], before))  # noqa: PLR2004


def _falls(before: float, after: float) -> bool:
    return before - after > max(ABSOLUTE_TOLERANCE_S, DESCENT * after)


def settled(values: Sequence[float]) -> int | None:
    """Return how many of the first values to discard as warm-up, or None where the series never settles.

    MSER-5: over means of five, the cut that minimises the standard error of what remains; a minimum in the second half
    is no steady state [White, "An effective truncation heuristic for bias reduction in simulation output", Simulation
    69(6), 1997; White, Cobb, Spratt, WSC 2000]. None also below 20 values, which show nothing.
    """
    batches = [math.fsum(values[i : i + _BATCH]) / _BATCH for i in range(0, len(values) - _BATCH + 1, _BATCH)]
    if len(batches) < _LEAST_BATCHES:
        return None
    best, least = 0, math.inf
    count = len(batches)
    for cut in range(count - 1):
        rest = batches[cut:]
        mean = math.fsum(rest) / len(rest)
        error = math.fsum((b - mean) ** 2 for b in rest) / len(rest) ** 2
        if error < least:
            best, least = cut, error
    return None if best > count // 2 else best * _BATCH
