"""When to stop adding processes."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from perjoule.records import Record
from perjoule.stats.intervals import half_width
from perjoule.stats.selection import select

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perjoule.records import Sample, Window
    from perjoule.scenario import Scenario


class Decision(Record, frozen=True, kw_only=True):
    stop: bool
    reason: str


def ttft_s(sample: Sample) -> float:
    return sample.first_token_s - sample.start_s


def tpot_s(sample: Sample) -> float | None:
    """Return seconds per output token after the first; None where there is only one."""
    if sample.output_tokens == 1:
        return None
    return (sample.end_s - sample.first_token_s) / (sample.output_tokens - 1)


def process_medians(groups: Sequence[Sequence[Sample]], of: Callable[[Sample], float | None]) -> list[float]:
    """Return one median per process, leaving out requests (and processes) without a value."""
    values = ([v for v in map(of, group) if v is not None] for group in groups)
    return [statistics.median(v) for v in values if v]


def relative_half_widths(groups: Sequence[Sequence[Sample]]) -> dict[str, float | None]:
    """Return the half-width of the interval as a share of its centre, for the two steering metrics."""
    return {name: _relative(process_medians(groups, of)) for name, of in (("ttft_s", ttft_s), ("tpot_s", tpot_s))}


def _relative(medians: list[float]) -> float | None:
    half, centre = half_width(medians), statistics.fmean(medians) if medians else 0.0
    return None if half is None or not centre else half / centre


def enough(samples: Sequence[Sample], windows: Sequence[Window], scenario: Scenario, measuring_s: float) -> Decision:
    """Decide after each process whether to add another.

    Stops when the intervals meet the scenario's target, or when the next process would not fit into its
    time budget; never before ``min_processes``, without which there is no interval worth the name.
    """
    selection = select(samples, windows, scenario)
    processes = len({s.process for s in samples if s.phase == "measured"})
    if processes < scenario.min_processes:
        return Decision(stop=False, reason=f"{processes} of at least {scenario.min_processes} processes")
    widths = [w for w in relative_half_widths(selection.by_process).values() if w is not None]
    if widths and not selection.kept_rejected and max(widths) <= scenario.target_half_width:
        return Decision(stop=True, reason=f"the intervals are within {scenario.target_half_width:.0%}")
    if measuring_s * (processes + 1) / processes > scenario.time_budget_s:
        return Decision(stop=True, reason=f"the time budget of {scenario.time_budget_s:g} s is spent")
    return Decision(stop=False, reason=f"the intervals are not within {scenario.target_half_width:.0%} yet")
