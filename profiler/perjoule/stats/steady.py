"""When warm-up is over. Imported by the measured process: pure Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Two successive requests agree when they differ by less than this: above the spread between requests of a
# shared host, far below what a cold cache or a lazy allocation costs.
RELATIVE_TOLERANCE = 0.10
ABSOLUTE_TOLERANCE_S = 100e-6  # below it only the scheduler is seen


def is_steady(durations_s: Sequence[float]) -> bool:
    """Say whether the last two durations agree; False while there are fewer than two."""
    if len(durations_s) < 2:  # noqa: PLR2004 - a pair
        return False
    before, last = durations_s[-2:]
    return abs(last - before) <= max(ABSOLUTE_TOLERANCE_S, RELATIVE_TOLERANCE * min(last, before))
