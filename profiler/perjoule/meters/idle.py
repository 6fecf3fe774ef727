"""Idle power: the same meters, before the first engine is loaded and after the last has gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.meters.counters import CounterSet
from perjoule.records import UNSET, Energy, MeterRefusal, Reading, Reason, Record, Window

if TYPE_CHECKING:
    from perjoule.meters import MeterSet
    from perjoule.protocols import Clock, Count

WINDOW_S = 3.0  # or the longest window a meter needs


class IdleReading(Record, frozen=True, kw_only=True):
    power: dict[str, Energy] | None
    reason: Reason = UNSET


def measure_idle_or_reason(meters: MeterSet, clock: Clock) -> IdleReading:
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
        readings=tuple(
            Reading(domain=name, start_count=count.count, end_count=after[name].count)
            for name, count in before.items() if name in after
        ),
    )  # fmt: skip
    parts = counters.parts([window])
    if isinstance(parts, str):
        return IdleReading(power=None, reason=parts)
    return IdleReading(power={
        part.domain: Energy(
            value=part.joules.value / seconds, low=part.joules.low / seconds, high=part.joules.high / seconds,
            unit="W", n=1, statistic="mean over one window", interval="tolerance of the sensor", label="measured",
            grade=counters.grade, scope=part.domain, convention="gross",
            random=(part.joules.value / seconds, part.joules.value / seconds),
            systematic=(part.joules.low / seconds, part.joules.high / seconds),
        )
        for part in parts
    })  # fmt: skip


def _counts(meters: MeterSet) -> dict[str, Count]:
    return {r.domain: r for r in meters.read() if not isinstance(r, MeterRefusal)}
