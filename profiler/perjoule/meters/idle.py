"""Idle power: the same meters, before the first engine is loaded, while one is loaded, and after the last has gone.

What is kept is a window with its raw readings; watts follow from it, and anybody can compute them again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.meters.counters import CounterSet
from perjoule.meters.readings import readings_between
from perjoule.records import UNSET, Energy, IdlePower, MeterRefusal, Reason, Record, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.meters import MeterSet
    from perjoule.meters.amounts import Part
    from perjoule.protocols import Clock, Count
    from perjoule.records import MeterFact

WINDOW_S = 3.0  # or the longest window a meter needs
WHEN = ("before", "loaded", "after")


class IdleReading(Record, frozen=True, kw_only=True):
    """Watts per domain of the total, or why there are none; ``window`` is what they follow from."""

    power: dict[str, Energy] | None
    reason: Reason = UNSET
    window: Window | None = None


NOT_REACHED = IdleReading(power=None, reason="the run ended before it was measured")


def measure_idle(meters: MeterSet, clock: Clock, when: str = "now", epoch_ns: int | None = None) -> IdleReading:
    """Sleep for one window and return watts per counted domain; without a sensor say so at once.

    The window is named ``idle/<when>``; its stamps are seconds since ``epoch_ns`` (since its own start without).
    """
    counters = CounterSet(meters.facts)
    if not counters.counted:
        return IdleReading(power=None, reason="no sensor to read idle power from")
    before = _counts(meters)
    start_ns = clock.now_ns()
    clock.sleep(max(WINDOW_S, counters.min_window_s))
    end_ns = clock.now_ns()
    after = _counts(meters)
    zero_ns = start_ns if epoch_ns is None else epoch_ns
    window = Window(
        id=f"idle/{when}", process=0, phase="idle", start_s=(start_ns - zero_ns) / 1e9, end_s=(end_ns - zero_ns) / 1e9,
        cpu_s=None, cpu_s_missing="idle", steal_s=None, steal_s_missing="idle",
        foreign_cpu_s=None, foreign_cpu_s_missing="idle", bytes_streamed=None, bytes_streamed_missing="idle",
        readings=readings_between(before, after, start_ns, end_ns),
    )  # fmt: skip
    return watts_of(counters, window)


def watts_of(counters: CounterSet, window: Window) -> IdleReading:
    """Return watts per domain of the total in an idle window, or why there are none."""
    parts = counters.parts([window])
    if isinstance(parts, str):
        return IdleReading(power=None, reason=parts, window=window)
    facts = {fact.domain: fact for fact in counters.counted}
    power = {p.domain: _watts(p, window.duration_s, facts[p.domain]) for p in parts}
    return IdleReading(power=power, window=window)


def idle_power(before: IdleReading, loaded: IdleReading, after: IdleReading) -> IdlePower:
    return IdlePower(
        before=before.power, before_missing=before.reason,
        loaded=loaded.power, loaded_missing=loaded.reason,
        after=after.power, after_missing=after.reason,
    )  # fmt: skip


def derive_idle(
    windows: Sequence[Window], meters: Sequence[MeterFact], refused: Sequence[MeterRefusal], told: IdlePower
) -> IdlePower:
    """Compute idle power again from the run's idle windows; where there is none, keep the reason that was told."""
    counters = CounterSet(meters, refused, windows)
    by_id = {w.id: w for w in windows}
    found = []
    for when in WHEN:
        window, reason = by_id.get(f"idle/{when}"), getattr(told, f"{when}_missing")
        if window is None:
            found.append(IdleReading(power=None, reason=reason if reason is not UNSET else "its window is not there"))
        else:
            found.append(watts_of(counters, window))
    return idle_power(*found)


def _watts(part: Part, seconds: float, fact: MeterFact) -> Energy:
    power = part.times(1 / seconds)
    value, half = power.joules.value, power.random_j
    return Energy(
        value=value, low=max(0.0, power.joules.low - half), high=power.joules.high + half,
        unit="W", n=1, statistic="mean over one window", interval="tolerance of the sensor and its edges",
        label="measured", grade=fact.grade, scope=fact.scope, convention="gross",
        random=(max(0.0, value - half), value + half), systematic=(power.joules.low, power.joules.high),
    )  # fmt: skip


def _counts(meters: MeterSet) -> dict[str, Count]:
    return {r.domain: r for r in meters.read() if not isinstance(r, MeterRefusal)}
