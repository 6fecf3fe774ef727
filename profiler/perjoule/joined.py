"""Readings of meters whose logs are joined to a run by wall-clock time, once it is over."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from msgspec.structs import replace

from perjoule.protocols import Load
from perjoule.records import MeterRefusal, Reading

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from perjoule.measure import ProcessRun
    from perjoule.meters import MeterSet
    from perjoule.protocols import Count
    from perjoule.records import Window


def join_logs(
    runs: Sequence[ProcessRun],
    idle: Sequence[Window],
    meters: MeterSet,
    started: datetime,
    busy: Sequence[tuple[float, float]],
) -> tuple[list[ProcessRun], list[Window]]:
    """Return runs and idle windows with the readings of logged meters added; ``started`` is second 0 of the run.

    ``busy`` holds, for instants in order, seconds of the run and busy CPU seconds of the whole machine so far: a log's
    clock is set by it, so it should cover times of load and of rest. Where a log has nothing for a window, the window
    gets no reading of that domain and the reason is kept.
    """
    if not meters.has_logs:
        return list(runs), list(idle)
    zero_s = started.timestamp()
    windows = [w for run in runs for w in run.windows] + list(idle)
    loads = [
        Load(start_utc_s=zero_s + begin, end_utc_s=zero_s + end, busy=max(0.0, spent_end - spent) / (end - begin))
        for (begin, spent), (end, spent_end) in pairwise(sorted(busy))
        if end > begin
    ]
    instants = [zero_s + at for w in windows for at in (w.start_s, w.end_s)]
    rows = iter(meters.logged_counts(instants, loads))
    joined = []
    for run in runs:
        refusals = {r.reason: r for r in run.refusals}
        changed = []
        for window in run.windows:
            window_with, refused = _with_readings(window, next(rows), next(rows))
            changed.append(window_with)
            refusals.update({r.reason: r for r in refused})
        joined.append(replace(run, windows=tuple(changed), refusals=tuple(refusals.values())))
    return joined, [_with_readings(window, next(rows), next(rows))[0] for window in idle]


def _with_readings(
    window: Window, start: Sequence[Count | MeterRefusal], end: Sequence[Count | MeterRefusal]
) -> tuple[Window, list[MeterRefusal]]:
    refused = [r for r in (*start, *end) if isinstance(r, MeterRefusal)]
    first = {r.domain: r for r in start if not isinstance(r, MeterRefusal)}
    last = {r.domain: r for r in end if not isinstance(r, MeterRefusal)}
    readings = tuple(
        Reading(
            domain=domain,
            start_count=str(first[domain].count),
            end_count=str(last[domain].count),
            polls=(last[domain].polls or 0) - (first[domain].polls or 0),
            sampling_error_count=math.sqrt(max(0.0, last[domain].variance - first[domain].variance)),
        )
        for domain in first
        if domain in last
    )
    return replace(window, readings=(*window.readings, *readings)), refused
