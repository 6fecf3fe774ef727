"""Steady state: warm-up is over when successive requests take the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

TOLERANCE = 0.10  # the last two agree within this share; above the spread of one request on a shared machine


def is_steady(series: Sequence[float], tolerance: float = TOLERANCE) -> bool:
    """Tell whether the last two values agree: neither is longer than the other by more than ``tolerance``."""
    if len(series) < 2:  # noqa: PLR2004
        return False
    before, last = series[-2], series[-1]
    return abs(last - before) <= tolerance * min(before, last)
