"""Energy from counters: raw counts at the edges of windows, one exact multiplication at the end."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from perjoule.meters.model import Part, Range

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.records import MeterFact, MeterRefusal, Window

# Tolerance of a sensor, about 90 %; docs/energy.md gives the sources.
TOLERANCE = {"rapl-package": 0.05, "rapl-dram": 0.20, "amd-rapl": 0.10, "nvml": 0.08}
_UNKNOWN_TOLERANCE = 0.20  # a sensor that is not in the table: the widest of those that are
_COUNTED = ("package", "dram", "gpu")
_RAPL = "rapl-powercap"
MAX_DOMAIN_W = 5000.0  # above any package or board sold: a larger jump is a reset counter, not energy


class CounterSet:
    """The domains of one host that make up its total. Nothing is counted twice.

    Packages, the memory beside them and GPU boards are summed; parts of a package are inside it; the platform
    domain (psys) is wired by the vendor as he likes and never enters a total.
    """

    def __init__(self, meters: Sequence[MeterFact]) -> None:
        self.counted = [m for m in meters if m.kind == "counter" and _in_total(m)]
        kinds = dict.fromkeys(_kind(m) for m in self.counted)
        self.scope = "+".join(kinds)
        self.grade = "+".join(dict.fromkeys(m.grade for m in self.counted))
        self.min_window_s = max((m.min_window_s for m in self.counted), default=0.0)

    def covers(self, refused: Sequence[MeterRefusal]) -> bool:
        """Tell whether these domains are all of a host that computes on its CPU.

        A board alone, memory alone, or one socket of two is a part; a part is never shown as the total.
        """
        whole = not any(r.meter == _RAPL for r in refused)
        return whole and any(_kind(m) == "package" for m in self.counted)

    def parts(self, windows: Sequence[Window]) -> list[Part] | str:
        """Return joules per domain over the windows, or why a domain has none."""
        found = []
        for meter in _without_mirrors(self.counted, windows):
            joules = domain_joules(meter, windows)
            if isinstance(joules, str):
                return joules
            seconds = sum(w.duration_s for w in windows)
            edges = (meter.tick_s or 0.0) / seconds if seconds else 0.0
            tolerance = TOLERANCE.get(meter.grade, _UNKNOWN_TOLERANCE) + edges
            found.append(Part(
                domain=meter.domain,
                joules=Range(low=joules * max(0.0, 1 - tolerance), value=joules, high=joules * (1 + tolerance)),
            ))  # fmt: skip
        return found


def domain_joules(meter: MeterFact, windows: Sequence[Window]) -> float | str:
    """Sum a counter over windows, across at most one wrap each; a domain without a reading gives the reason."""
    counts = 0
    for window in windows:
        reading = next((r for r in window.readings if r.domain == meter.domain), None)
        if reading is None:
            return f"{meter.domain} could not be read in window {window.id}"
        delta = int(reading.end_count) - int(reading.start_count)
        if delta < 0:
            if meter.wrap_count is None:
                return f"{meter.domain} went backwards in window {window.id}"
            delta += int(meter.wrap_count)
        if delta * Fraction(meter.unit_j or "0") > MAX_DOMAIN_W * max(window.duration_s, meter.tick_s or 0.0):
            return f"{meter.domain} jumped in window {window.id}: the counter was reset"
        counts += delta
    if windows and not counts:
        return f"{meter.domain} did not move: the counter is dead"
    return float(counts * Fraction(meter.unit_j or "0"))


def _without_mirrors(meters: Sequence[MeterFact], windows: Sequence[Window]) -> list[MeterFact]:
    """Leave out dies of a package that show the same counts as an earlier one: they mirror one counter."""
    seen: set[tuple[object, ...]] = set()
    kept = []
    for meter in meters:
        counts = tuple((r.start_count, r.end_count) for w in windows for r in w.readings if r.domain == meter.domain)
        key = (meter.domain.partition("-die-")[0], *counts)
        if "-die-" in meter.domain and counts and key in seen:
            continue
        seen.add(key)
        kept.append(meter)
    return kept


def _kind(meter: MeterFact) -> str:
    return meter.domain.rpartition(":")[2].split("-")[0]


def _in_total(meter: MeterFact) -> bool:
    return _kind(meter) in _COUNTED
