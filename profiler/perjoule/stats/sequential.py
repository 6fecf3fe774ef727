"""When to stop adding processes."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from perjoule.records import Record
from perjoule.stats.intervals import half_width

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Targets(Record, frozen=True, kw_only=True):
    """Fewest processes; relative half-width to reach; seconds after which no further process is begun."""

    min_processes: int
    half_width: float
    budget_s: float


class Decision(Record, frozen=True, kw_only=True):
    stop: bool
    reason: str


def relative_half_width(values: Sequence[float]) -> float | None:
    """Return the half-width of the 95 % interval of the mean as a share of it; None below two values."""
    half, centre = half_width(values), statistics.fmean(values) if values else 0.0
    return None if half is None or not centre else half / centre


def enough(
    values: Mapping[str, Sequence[float]], targets: Targets, *, processes: int, measuring_s: float, noisy: bool = False
) -> Decision:
    """Decide after each process whether to add another, from one value a process of each steering metric.

    Stops when all intervals meet the target, or when the next process would not fit into the time budget;
    never before ``min_processes``, without which there is no interval worth the name. ``noisy``: too few
    undisturbed requests, so the intervals do not count.
    """
    if processes < targets.min_processes:
        return Decision(stop=False, reason=f"{processes} of at least {targets.min_processes} processes")
    if not values:
        return Decision(stop=True, reason="nothing steers this scenario")
    widths = [w for w in map(relative_half_width, values.values()) if w is not None]
    if widths and not noisy and max(widths) <= targets.half_width:
        return Decision(stop=True, reason=f"the intervals are within {targets.half_width:.0%}")
    if measuring_s * (processes + 1) / processes > targets.budget_s:
        return Decision(stop=True, reason=f"the time budget of {targets.budget_s:g} s is spent")
    return Decision(stop=False, reason=f"the intervals are not within {targets.half_width:.0%} yet")
