"""A lab meter's log, joined by wall-clock time after the run: ``csv:FILE``.

The meter may sit on another machine with another clock. The log is read when the run starts, to find its period and
its faults early, and again when the run is over.
"""

from __future__ import annotations

import bisect
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perjoule.errors import UsageError
from perjoule.meters.alignment import Offset, find_offset
from perjoule.meters.watt_log import LogError, WattLog, read_log
from perjoule.protocols import Count, Probe
from perjoule.records import MeterFact, MeterRefusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.protocols import Load

TOLERANCE = 0.01
GAP_PERIODS = 5.0  # rows further apart than so many periods have a hole between them
PROBE_ROWS = 100_000  # enough for the period; a probe may not take long
_MAX_MIN_WINDOW_S = 120.0
_UJ = 1e6
_DOMAINS = {
    "wall": "wall",
    "chassis": "chassis-0",
    "battery": "battery",
    "platform": "psys",
    "module": "module-0",
    "package": "package-0",
    "core": "package-0:core",
    "uncore": "package-0:uncore",
    "dram": "package-0:dram",
    "gpu": "gpu-0",
    "igpu": "igpu-0",
    "rail": "rail-0",
}


class CsvMeter:
    """``csv:FILE``, or ``csv:FILE?scope=package`` where the meter's clamps are not around the whole machine."""

    def __init__(self, argument: str = "") -> None:
        match = re.fullmatch(r"(?P<file>.+?)(?:\?(?P<option>[a-z_]+)=(?P<value>[^?/]*))?", argument, re.DOTALL)
        if match is None:
            raise UsageError("csv: needs a file", hint="e.g. --meter csv:wall.csv")
        self._scope = match["value"] or "wall"
        if match["option"] not in (None, "scope") or self._scope not in _DOMAINS:
            raise UsageError(
                f"csv: unknown option {match['option']}={match['value']}", hint=f"?scope= one of: {', '.join(_DOMAINS)}"
            )
        self._path = Path(match["file"])
        self._domain = _DOMAINS[self._scope]
        self._notes: list[str] = []

    def probe(self) -> Probe:
        try:
            period_s = read_log(self._path, PROBE_ROWS).period_s()
        except LogError as error:
            return Probe(refusals=(self._refusal(str(error), error.fix),))
        fact = MeterFact(
            domain=self._domain, scope=self._scope, kind="gauge", label="measured", grade="csv", tick_s=period_s,
            source="log of a meter, joined by time", unit_j="1/1000000", tolerance=TOLERANCE,
            min_window_s=min(_MAX_MIN_WINDOW_S, max(1.0, 100 * period_s)), only_simulated=True,
        )  # fmt: skip
        return Probe(domains=(fact,))

    def open(self) -> None:
        """The log is written by someone else."""

    def read(self) -> list[Count | MeterRefusal]:
        """Return nothing: what the log says of the run is known after it."""
        return []

    def close(self) -> None:
        """Nothing is held open."""

    def notes(self) -> list[str]:
        """Return what the join found out of the log's clock."""
        return list(self._notes)

    def counts_at(self, utc_s: Sequence[float], loads: Sequence[Load]) -> list[list[Count | MeterRefusal]]:
        """Return the log's integral in microjoules up to each instant; ``before_ns`` is the instant in UTC.

        Instants come in pairs, the start and the end of each window. Both are refusals where the log does not cover
        one, or has a hole between them. A span over several windows gets the hole's variance.
        """
        try:
            joined = _Joined(read_log(self._path), loads)
        except LogError as error:
            return [[self._refusal(str(error), error.fix)] for _ in utc_s]
        self._notes = [joined.offset.note]
        reasons = joined.refused(utc_s)
        return [
            [self._refusal(reasons[i], "log the whole run without pauses, with a clock set by NTP")]
            if i in reasons
            else [joined.count(self._domain, at_s)]
            for i, at_s in enumerate(utc_s)
        ]

    def _refusal(self, reason: str, fix: str) -> MeterRefusal:
        return MeterRefusal(meter="csv", reason=f"{self._domain}: {reason}", fix=fix, domain=self._domain)


class _Joined:
    """A log as a running integral on this machine's clock. The first and the last value hold for one period more."""

    def __init__(self, log: WattLog, loads: Sequence[Load]) -> None:
        import numpy as np  # noqa: PLC0415 - after the run only

        self._np: Any = np
        self.period_s = log.period_s()
        times_s, watts = np.array(log.times_s), np.array(log.watts)
        self._times_s = np.concatenate([[times_s[0] - self.period_s], times_s, [times_s[-1] + self.period_s]])
        watts = np.concatenate([watts[:1], watts, watts[-1:]])
        steps_s = np.diff(self._times_s)
        holes = steps_s > GAP_PERIODS * self.period_s
        self._holes = [(float(self._times_s[i]), float(self._times_s[i + 1])) for i in np.flatnonzero(holes)]
        self._energy_j = np.concatenate([[0.0], np.cumsum(steps_s * (watts[1:] + watts[:-1]) / 2)])
        # as in perjoule.meters.gauge; in a hole power may have been anything seen in the log
        unknown = np.where(holes, watts.max() ** 2 / 3, np.diff(watts) ** 2 / 2)
        self._variance = np.concatenate([[0.0], np.cumsum(steps_s**2 * unknown)])
        self.offset: Offset = find_offset(self._times_s, self._energy_j, self.period_s, loads)

    def refused(self, utc_s: Sequence[float]) -> dict[int, str]:
        """Return the instants, by index, whose windows the log does not hold whole, each with the reason."""
        at_s = [at + self.offset.seconds for at in utc_s]
        reasons: dict[int, str] = {}
        for i in range(0, len(at_s), 2):
            window = at_s[i : i + 2]
            why = self._why_not(window[0], window[-1])
            if why is not None:
                reasons |= dict.fromkeys(range(i, i + len(window)), why)
        return reasons

    def _why_not(self, start_s: float, end_s: float) -> str | None:
        first_s, last_s = float(self._times_s[0]), float(self._times_s[-1])
        if start_s < first_s:
            return f"the log begins {first_s - start_s:.1f} s too late for a window"
        if end_s > last_s:
            return f"the log ends {end_s - last_s:.1f} s too early for a window"
        next_hole = bisect.bisect_right(self._holes, start_s, key=lambda hole: hole[1])
        if next_hole == len(self._holes) or self._holes[next_hole][0] >= end_s:
            return None
        begin_s, over_s = self._holes[next_hole]
        place = datetime.fromtimestamp(begin_s, UTC).isoformat(timespec="milliseconds")
        return f"the log has a hole of {over_s - begin_s:.1f} s after {place} by its clock"

    def count(self, domain: str, utc_s: float) -> Count:
        np = self._np
        at_s = utc_s + self.offset.seconds
        return Count(
            domain=domain,
            count=round(float(np.interp(at_s, self._times_s, self._energy_j)) * _UJ),
            before_ns=round(utc_s * 1e9),
            after_ns=round(utc_s * 1e9),
            polls=int(np.searchsorted(self._times_s, at_s)),
            variance=float(np.interp(at_s, self._times_s, self._variance)) * _UJ**2,
        )
