"""Whether counters move, how often they are updated, and the shortest window that follows.

Some milliseconds of load are put on one core while every counter is read as fast as it goes; this is the only place
where counters are read that often, since reading them a thousand times a second can cost half a core.
"""

from __future__ import annotations

import math
import statistics
from fractions import Fraction
from typing import TYPE_CHECKING

from perjoule.meters.counters import MAX_DOMAIN_W, TICKS_A_WINDOW
from perjoule.records import MeterRefusal

if TYPE_CHECKING:
    from perjoule.meters import MeterSet
    from perjoule.protocols import Clock
    from perjoule.records import MeterFact

LOAD_S = 0.25
MAX_LOAD_S = 2.5
TICKS_TO_SEE = 4
LOWEST, HIGHEST = 0.02, 1.6  # of the TDP: between a package at rest and one in turbo
_LOOPS = 2_000  # some tens of microseconds of arithmetic between two readings


class _Seen:
    """The changes of one counter: when, and from what to what."""

    def __init__(self, count: int, at_ns: int) -> None:
        self.first, self.last, self.first_ns, self.last_ns = count, count, at_ns, at_ns
        self.changes_ns: list[int] = []

    def add(self, count: int, at_ns: int) -> None:
        if count != self.last:
            self.changes_ns.append(at_ns)
        self.last, self.last_ns = count, at_ns

    @property
    def tick_s(self) -> float | None:
        """Return the median time between changes; None where too few were seen to say."""
        gaps = [(b - a) / 1e9 for a, b in zip(self.changes_ns, self.changes_ns[1:], strict=False)]
        return statistics.median(gaps) if len(gaps) >= TICKS_TO_SEE - 1 else None


def characterise(meters: MeterSet, clock: Clock, tdp_w: float | None = None) -> None:
    """Put load on one core, watch every counter, and refuse those that do not move or cannot be true.

    With a TDP (of all packages together, W) a package must draw 0.02 to 1.6 times it, else less than 5 kW.
    The update period found and the window that follows from it are recorded in the facts.
    """
    counters = {fact.domain: fact for fact in meters.facts if fact.kind == "counter"}
    if not counters:
        return
    seen: dict[str, _Seen] = {}
    start_ns = clock.now_ns()
    while _unfinished(seen, counters, (clock.now_ns() - start_ns) / 1e9):
        for reading in meters.read():
            if isinstance(reading, MeterRefusal) or reading.domain not in counters:
                continue
            middle_ns = (reading.before_ns + reading.after_ns) // 2
            if reading.domain in seen:
                seen[reading.domain].add(reading.count, middle_ns)
            else:
                seen[reading.domain] = _Seen(reading.count, middle_ns)
        _burn()
    for domain, fact in counters.items():
        _judge(meters, fact, seen.get(domain), tdp_w)


def _unfinished(seen: dict[str, _Seen], counters: dict[str, MeterFact], spent_s: float) -> bool:
    if spent_s < LOAD_S:
        return True
    slow = any(len(s.changes_ns) < TICKS_TO_SEE for s in seen.values()) or len(seen) < len(counters)
    return slow and spent_s < MAX_LOAD_S


def _judge(meters: MeterSet, fact: MeterFact, seen: _Seen | None, tdp_w: float | None) -> None:
    if seen is None:
        meters.refuse(fact.domain, "could not be read under load", "check the kernel's log")
        return
    if not seen.changes_ns:
        spent_s = (seen.last_ns - seen.first_ns) / 1e9
        meters.refuse(
            fact.domain,
            f"did not move in {spent_s:.1f} s of load: the counter is dead",
            "leave it out, or update the kernel",
        )
        return
    joules = float((seen.last - seen.first) * Fraction(fact.unit_j or "0"))
    watts = joules / max((seen.last_ns - seen.first_ns) / 1e9, 1e-9)
    package = fact.scope == "package" and tdp_w is not None
    least_w, most_w = (LOWEST * (tdp_w or 0.0), HIGHEST * (tdp_w or 0.0)) if package else (0.0, MAX_DOMAIN_W)
    if not least_w <= watts <= most_w:
        meters.refuse(fact.domain, f"shows {watts:.3g} W, which no such part draws", "report it with the CPU's name")
        return
    tick_s = seen.tick_s
    if tick_s is not None:
        # never finer than documented: a counter may be written in bursts
        tick_s = max(tick_s, fact.tick_s or 0.0)
        meters.found_tick(fact.domain, tick_s, max(fact.min_window_s, TICKS_A_WINDOW * tick_s))


def _burn() -> float:
    """Load one core for some tens of microseconds."""
    return math.fsum(float(x) for x in range(_LOOPS))
