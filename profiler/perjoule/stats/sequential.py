"""When to stop adding processes, or interleaved pairs of them.

Adding one until the interval is narrow reads it when it happens to be narrow; the interval itself is widened for that
(``perjoule.stats.widening``), so that the width that is compared with the target is the width that is reported. On
simulated machines it then holds the truth in 92 to 98 % of the runs that reached their target, as long as the budget
lets most runs reach it; a run that reaches a target its machine cannot usually reach has seen an untypically small
spread, and no interval that meets the target makes up for it (benchmarks/coverage.py). A bias is in no interval: what
is left of warm-up shows by ``perjoule.stats.trend.leftover_ramp`` only.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from perjoule.records import Record
from perjoule.stats.intervals import half_width
from perjoule.stats.paired import least_pairs, log_ratio_half_width

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perjoule.stats.paired import Control


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
    return _judge([] if noisy else widths, targets, processes, measuring_s, "the intervals are")


def enough_pairs(
    log_ratios: Mapping[str, Sequence[float]],
    targets: Targets,
    *,
    measuring_s: float,
    controls: Mapping[str, Control] | None = None,
) -> Decision:
    """Decide after each interleaved pair of processes whether to add another, from each metric's log-ratios.

    ``targets.half_width`` is that of the ratio; ``measuring_s`` what all pairs took. Never stops before
    ``least_pairs``, below which no verdict could be reached, but for the budget. ``controls``: what A-A controls showed
    of each metric; where that alone is too wide, only the budget ends it.
    """
    pairs = min(map(len, log_ratios.values()), default=0)
    least = max(targets.min_processes, least_pairs(len(log_ratios)))
    known = controls or {}
    found = (log_ratio_half_width(r, known.get(m)) for m, r in log_ratios.items() if len(r) > 1)
    widths = [w for w in found if w is not None]
    return _judge(widths if pairs >= least else [], targets, pairs, measuring_s, "the ratios' intervals are")


def _judge(widths: Sequence[float], targets: Targets, done: int, measuring_s: float, what: str) -> Decision:
    if widths and max(widths) <= targets.half_width:
        return Decision(stop=True, reason=f"{what} within {targets.half_width:.0%}")
    if done and measuring_s * (done + 1) / done > targets.budget_s:
        return Decision(stop=True, reason=f"the time budget of {targets.budget_s:g} s is spent")
    return Decision(stop=False, reason=f"{what} not within {targets.half_width:.0%} yet")
