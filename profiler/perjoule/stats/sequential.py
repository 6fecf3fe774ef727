"""When to stop: fresh processes are added until the interval is narrow enough or the budget is spent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.records import Record
from perjoule.stats.summary import clean_samples, decode_rate, per_process, relative_half_width, ttft_s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.records import Sample, Window
    from perjoule.scenario import Effort


class Decision(Record, frozen=True, kw_only=True):
    stop: bool
    reason: str


def enough(samples: Sequence[Sample], windows: Sequence[Window], effort: Effort, measuring_s: float) -> Decision:
    """Decide after a process. The least number of processes is always run, whatever the budget."""
    clean = clean_samples(samples, windows)
    processes = len({s.process for s in clean})
    if processes < effort.min_processes:
        return Decision(stop=False, reason=f"{processes} of at least {effort.min_processes} processes")
    widths = [relative_half_width(per_process(clean, value)) for value in (ttft_s, decode_rate)]
    widest = max((w for w in widths if w is not None), default=None)
    if widest is not None and widest <= effort.target_half_width:
        return Decision(stop=True, reason=f"half-width {widest:.1%} reached the target {effort.target_half_width:.0%}")
    if measuring_s >= effort.time_budget_s:
        return Decision(stop=True, reason=f"the budget of {effort.time_budget_s:g} s is spent")
    return Decision(stop=False, reason="the interval is wider than the target")
