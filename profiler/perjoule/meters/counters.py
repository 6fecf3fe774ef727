"""Energy from counts: raw integers at the edges of windows, one exact multiplication at the end."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from perjoule.meters.amounts import Part, Range
from perjoule.meters.compose import Composition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.records import MeterFact, MeterRefusal, Reading, Window

# Tolerance of a sensor that gives none of its own, about 90 %; docs/energy.md gives the sources.
TOLERANCE = {
    "rapl-package": 0.05, "rapl-dram": 0.20, "amd-rapl": 0.10, "nvml": 0.08, "plug": 0.10, "bmc": 0.10, "csv": 0.01,
}  # fmt: skip
UNKNOWN_TOLERANCE = 0.20  # a sensor that is not in the table: the widest of those that are
MAX_DOMAIN_W = 5000.0  # above any package or board sold: a larger jump is a reset counter, not energy
LIKELY_W = 600.0  # no package draws more for long; a window in which such power would wrap a counter twice is unclear
_TELLING = 50  # times that: two dies that have spent so much lie further apart, unless they are one counter
_MIRROR_J = 1  # two readings of one counter lie within some updates of it: 1 ms at 600 W is 0.6 J
_WALL_MAX_W = 100_000.0
_WIDE_SCOPES = frozenset({"wall", "chassis"})
_Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution
TICKS_A_WINDOW = 100  # an edge is at most one tick off: 2 % of a window whose power is half of its highest


class CounterSet(Composition):
    """The metered domains of one host, and their joules over windows of ``run``, all windows of one run."""

    def __init__(
        self, facts: Sequence[MeterFact], refused: Sequence[MeterRefusal] = (), run: Sequence[Window] = ()
    ) -> None:
        super().__init__(facts, refused)
        kept = without_mirrors(self.counted, run)
        for meter in self.counted:
            if meter not in kept:
                self.left_out[meter.domain] = "shows the counts of another die: they mirror one counter"
                self.others.append(meter)
        self.counted = kept

    def parts(self, windows: Sequence[Window]) -> list[Part] | str:
        """Return joules of every domain of the total, or why one of them has none."""
        found = []
        for meter in self.counted:
            part = domain_part(meter, windows)
            if isinstance(part, str):
                return part
            found.append(part)
        return found

    def every(self, windows: Sequence[Window]) -> list[tuple[MeterFact, Part | str, str]]:
        """Return each metered domain with its joules or the reason, and why it is not in the total."""
        return [(m, domain_part(m, windows), self.left_out.get(m.domain, "")) for m in (*self.counted, *self.others)]

    def too_short(self, windows: Sequence[Window]) -> str:
        """Return why these windows are too short for the sensors of the total; empty where they are not.

        Windows of one phase add up to the shortest window a sensor needs, where each holds enough of its ticks.
        """
        spans = [w.duration_s for w in windows]
        for meter in self.counted:
            have, least = sum(spans), TICKS_A_WINDOW * (meter.tick_s or 0.0)
            if have < meter.min_window_s:
                need = f"{meter.domain} needs a window of {meter.min_window_s:.3g} s"
                return f"{need}; together these have {have:.2g} s (more new_tokens or requests_per_process fill it)"
            if min(spans) < least and len(spans) > 1:
                return f"{meter.domain} needs windows of {least:.3g} s each; the shortest has {min(spans):.3g} s"
        return ""


def domain_part(meter: MeterFact, windows: Sequence[Window]) -> Part | str:
    """Return a domain's joules over windows with what is unknown of them, or the reason why there are none.

    Systematic: the sensor's tolerance, and that readings lay further apart than the stamps (a bias, so it adds up).
    Random (95 %): where in a tick the edges fell (uniform, so tick^2 / 12 each), and for a gauge what happened between
    its polls.
    """
    joules = domain_joules(meter, windows)
    if isinstance(joules, str):
        return joules
    seconds = sum(w.duration_s for w in windows)
    watts = joules / seconds if seconds else 0.0
    unit_j = float(Fraction(meter.unit_j or "0"))
    tick_s = meter.tick_s if meter.tick_s is not None else meter.min_window_s / TICKS_A_WINDOW
    variance_j2 = surplus_j = shortfall_j = 0.0
    for window in windows:
        reading = _reading(meter, window)
        if reading is not None:
            variance_j2 += 2 * (watts * tick_s) ** 2 / 12 + (reading.sampling_error_count * unit_j) ** 2
            surplus_j += watts * max(0.0, reading.skew_s)
            shortfall_j += watts * max(0.0, -reading.skew_s)
    tolerance = tolerance_of(meter)
    low, high = (joules - surplus_j) * (1 - tolerance), (joules + shortfall_j) * (1 + tolerance)
    return Part(
        domain=meter.domain,
        joules=Range(low=max(0.0, low), value=joules, high=high),
        random_j=_Z95 * math.sqrt(variance_j2),
    )


def tolerance_of(meter: MeterFact) -> float:
    return meter.tolerance if meter.tolerance is not None else TOLERANCE.get(meter.grade, UNKNOWN_TOLERANCE)


def domain_joules(meter: MeterFact, windows: Sequence[Window]) -> float | str:
    """Sum a counter over windows, across at most one wrap each; a domain without a reading gives the reason."""
    counts = 0
    unit = Fraction(meter.unit_j or "0")
    most_w = _WALL_MAX_W if meter.scope in _WIDE_SCOPES else MAX_DOMAIN_W
    for window in windows:
        reading = _reading(meter, window)
        if reading is None:
            return f"{meter.domain} could not be read in window {window.id}"
        delta = int(reading.end_count) - int(reading.start_count)
        if meter.wrap_count is not None and int(meter.wrap_count) * unit < LIKELY_W * window.duration_s:
            return f"{meter.domain} may have wrapped more than once in window {window.id}"
        if delta < 0:
            if meter.wrap_count is None:
                return f"{meter.domain} went backwards in window {window.id}"
            delta += int(meter.wrap_count)
        if delta < 0 or delta * unit > most_w * max(window.duration_s, meter.tick_s or 0.0):
            return f"{meter.domain} jumped in window {window.id}: the counter was reset"
        counts += delta
    if windows and not counts:
        return f"{meter.domain} did not move: the counter is dead"
    return float(counts * unit)


def without_mirrors(meters: Sequence[MeterFact], windows: Sequence[Window]) -> list[MeterFact]:
    """Leave out dies of a package that show the counts of an earlier one: they mirror one counter.

    Two files of one counter are read one after the other, so their counts may lie an update or two apart.
    """
    kept: list[MeterFact] = []
    for meter in meters:
        package, die, _ = meter.domain.partition("-die-")
        earlier = [k for k in kept if k.domain.partition("-die-")[0] == package] if die else []
        if not any(_mirrors(meter, other, windows) for other in earlier):
            kept.append(meter)
    return kept


def _mirrors(meter: MeterFact, other: MeterFact, windows: Sequence[Window]) -> bool:
    slack = _MIRROR_J / Fraction(meter.unit_j or "1")
    # counters that start at 0 when they are opened are all alike at first
    if not any(abs(int(r.end_count)) > _TELLING * slack for w in windows if (r := _reading(meter, w)) is not None):
        return False
    pairs = [(a, b) for w in windows if (a := _reading(meter, w)) is not None and (b := _reading(other, w)) is not None]
    return bool(pairs) and all(
        abs(int(a.start_count) - int(b.start_count)) <= slack and abs(int(a.end_count) - int(b.end_count)) <= slack
        for a, b in pairs
    )


def _reading(meter: MeterFact, window: Window) -> Reading | None:
    return next((r for r in window.readings if r.domain == meter.domain), None)
