"""How far the clock of a power log is from this machine's: found by sliding the log over the machine's known load.

Every stretch of time with a known load has a mean power in the log, for any assumed offset. The offset at which power
follows load best is the clock's, provided that there is one such offset: a load that repeats with a period fits at
every multiple of it, and then none is taken.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from perjoule.protocols import Load

MAX_OFFSET_S = 30.0
# Seeded simulations of averaging meters (ticks 0.1 to 2 s, runs of 130 to 900 s): where power follows the load the
# correlation is 0.77 to 1.0 and the offset found is off by 0.6 of a tick (half of it is the averaging); logs that have
# nothing to do with the load reach 0.58 at most and were never taken.
MIN_CORRELATION = 0.7
MIN_LEAD = 0.1
MIN_LOAD_S = 120.0  # shorter runs fit something by chance
MIN_COVERED = 0.8  # share of the load that the log must cover at an offset, and of a stretch that must be known
MIN_VARIATION = 0.05  # of the load, standard deviation over mean
_PEAK_S = 3.0  # neighbours of the best offset that are the same peak, at least
_STEPS_PER_TICK = 10
_MIN_STEP_S, _MAX_STEP_S = 0.02, 0.5
_MIN_BIN_S = 0.5
_OVERLAP_S = 1e-3  # of neighbours whose edges were rounded
_MAX_BINS = 7200  # an hour in halves of a second is enough to see an offset


class Offset(Record, frozen=True, kw_only=True):
    """``seconds`` that the log's clock is ahead (0 where none was found), and what that rests on."""

    seconds: float
    note: str


def find_offset(
    times_s: NDArray[np.float64], energy_j: NDArray[np.float64], tick_s: float, loads: Sequence[Load]
) -> Offset:
    """Return the offset of a log given as the integral of its power at its times (UTC by its own clock)."""
    import numpy as np  # noqa: PLC0415 - only when a log is joined

    edges, busy = _binned(loads, max(tick_s, _MIN_BIN_S))
    if len(busy) * (edges[0, 1] - edges[0, 0] if len(busy) else 0.0) < MIN_LOAD_S:
        return _none(f"less than {MIN_LOAD_S:g} s of known load")
    if busy.std() <= MIN_VARIATION * busy.mean():
        return _none("the load did not change")
    step_s = min(_MAX_STEP_S, max(_MIN_STEP_S, tick_s / _STEPS_PER_TICK))
    offsets = np.arange(-MAX_OFFSET_S, MAX_OFFSET_S + step_s / 2, step_s)
    scores = np.array([_score(times_s, energy_j, edges + offset, busy) for offset in offsets])
    if np.isnan(scores).all():
        return _none("the log covers too little of the run")
    best = int(np.nanargmax(scores))
    apart = scores[np.abs(offsets - offsets[best]) > max(_PEAK_S, 3 * tick_s)]
    rival = float(np.nanmax(apart)) if np.isfinite(apart).any() else -1.0
    told = f"best correlation with the load {scores[best]:.2f}, next {rival:.2f}"
    if scores[best] < MIN_CORRELATION or scores[best] - rival < MIN_LEAD or best in (0, len(offsets) - 1):
        return _none(f"the log's power does not follow the load at one offset alone ({told})")
    seconds = round(float(offsets[best]), 3) + 0.0
    way = "ahead of" if seconds >= 0 else "behind"
    note = f"the log's clock is {abs(seconds):.2f} s {way} this machine's: corrected ({told})"
    return Offset(seconds=seconds, note=note)


def _binned(loads: Sequence[Load], bin_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return equal stretches of time (edges) that known loads cover, and the mean load of each.

    Stretches as long as the log's period: what happens faster than the log can show would only be noise to it.
    """
    import numpy as np  # noqa: PLC0415 - as above

    spans: list[Load] = []
    for load in sorted(loads, key=lambda load: load.start_utc_s):
        if load.end_utc_s > max(load.start_utc_s, spans[-1].end_utc_s if spans else -math.inf):
            if spans and load.start_utc_s < spans[-1].end_utc_s - _OVERLAP_S:
                continue  # inside what is known already
            spans.append(load)
    if not spans:
        return np.empty((0, 2)), np.empty(0)
    points = np.array([[load.start_utc_s, load.end_utc_s] for load in spans]).ravel()
    lengths = points[1::2] - points[::2]
    known, work = np.zeros((2, len(points)))
    known[1::2], work[1::2] = lengths, lengths * np.array([load.busy for load in spans])
    bins = max(1, min(_MAX_BINS, int((points[-1] - points[0]) / bin_s)))
    grid = points[0] + bin_s * np.arange(bins + 1)
    order = np.maximum.accumulate(points)  # overlaps of neighbouring stretches by a rounding error
    covered = np.diff(np.interp(grid, order, np.cumsum(known)))
    done = np.diff(np.interp(grid, order, np.cumsum(work)))
    whole = covered > MIN_COVERED * bin_s
    edges = np.stack([grid[:-1], grid[1:]], axis=1)
    return edges[whole], done[whole] / covered[whole]


def _score(times_s: Any, energy_j: Any, edges: Any, busy: Any) -> float:
    """Return the correlation of the log's mean power with the load; NaN where the log covers too little."""
    import numpy as np  # noqa: PLC0415 - as above

    inside = (edges[:, 0] >= times_s[0]) & (edges[:, 1] <= times_s[-1])
    if inside.sum() < MIN_COVERED * len(busy):
        return float("nan")
    power = np.diff(np.interp(edges[inside], times_s, energy_j), axis=1)[:, 0]
    power, busy = power - power.mean(), busy[inside] - busy[inside].mean()
    spread = float(np.sqrt((power**2).sum() * (busy**2).sum()))
    return float((power * busy).sum()) / spread if spread > 0 else float("nan")


def _none(why: str) -> Offset:
    return Offset(seconds=0.0, note=f"no clock offset applied to the log: {why}")
