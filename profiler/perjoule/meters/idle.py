"""Idle power: the same meters, before the first engine is loaded, while one is loaded, and after the last has gone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from perjoule.meters.counters import CounterSet
from perjoule.records import UNSET, Energy, IdlePower, MeterRefusal, Reading, Reason, Record, Window

if TYPE_CHECKING:
    from perjoule.meters import MeterSet
    from perjoule.meters.amounts import Part
    from perjoule.protocols import Clock, Count

WINDOW_S = 3.0  # or the longest window a meter needs


class IdleReading(Record, frozen=True, kw_only=True):
    """Watts per domain of the total, or why there are none."""

    power: dict[str, Energy] | None
    reason: Reason = UNSET


NOT_REACHED = IdleReading(power=None, reason="the run ended before it was measured")


def measure_idle(meters: MeterSet, clock: Clock) -> IdleReading:
    """Sleep for one window and return watts per counted domain; without a sensor say so at once."""
    counters = CounterSet(meters.facts)
    if not counters.counted:
        return IdleReading(power=None, reason="no sensor to read idle power from")
    before = _counts(meters)
    start_ns = clock.now_ns()
    clock.sleep(max(WINDOW_S, counters.min_window_s))
    seconds = (clock.now_ns() - start_ns) / 1e9
    after = _counts(meters)
    window = Window(
        id="idle", process=0, phase="idle", start_s=0.0, end_s=seconds,
        cpu_s=None, cpu_s_missing="idle", steal_s=None, steal_s_missing="idle",
        foreign_cpu_s=None, foreign_cpu_s_missing="idle", bytes_streamed=None, bytes_streamed_missing="idle",
        readings=tuple(_reading(name, before[name], after[name]) for name in before if name in after),
    )  # fmt: skip
    parts = counters.parts([window])
    if isinstance(parts, str):
        return IdleReading(power=None, reason=parts)
    facts = {fact.domain: fact for fact in counters.counted}
    return IdleReading(
        power={p.domain: _watts(p, seconds, facts[p.domain].grade, facts[p.domain].scope) for p in parts}
    )


def idle_power(before: IdleReading, loaded: IdleReading, after: IdleReading) -> IdlePower:
    return IdlePower(
        before=before.power, before_missing=before.reason,
        loaded=loaded.power, loaded_missing=loaded.reason,
        after=after.power, after_missing=after.reason,
    )  # fmt: skip


def _watts(part: Part, seconds: float, grade: str, scope: str) -> Energy:
    power = part.times(1 / seconds)
    value, half = power.joules.value, power.random_j
    return Energy(
        value=value, low=max(0.0, power.joules.low - half), high=power.joules.high + half,
        unit="W", n=1, statistic="mean over one window", interval="tolerance of the sensor and its edges",
        label="measured", grade=grade, scope=scope, convention="gross",
        random=(max(0.0, value - half), value + half), systematic=(power.joules.low, power.joules.high),
    )  # fmt: skip


def _reading(name: str, start: Count, end: Count) -> Reading:
    return Reading(
        domain=name, start_count=start.count, end_count=end.count,
        sampling_error_count=math.sqrt(max(0.0, end.variance - start.variance)),
    )  # fmt: skip


def _counts(meters: MeterSet) -> dict[str, Count]:
    return {r.domain: r for r in meters.read() if not isinstance(r, MeterRefusal)}
