"""Power and energy that drivers show through the kernel's hwmon class.

Which drivers are read and what their numbers cover is in ``hwmon_drivers``. Counters are read at the edges; xe, i915
and zenergy extend a 32-bit register only when they are read, and it can wrap in 109 s at 600 W, so counters are
looked at every 30 s as well. Gauges are polled every 0.1 s on average.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from perjoule.clock import MonotonicClock
from perjoule.meters import sysfs
from perjoule.meters.gauge import GaugePoller
from perjoule.meters.hwmon_drivers import GAUGE_PERIOD_S, MAX_GAUGE_W, Refused, Sensor, find
from perjoule.protocols import Count, Probe
from perjoule.records import MeterRefusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perjoule.protocols import Clock
    from perjoule.records import MeterFact

COUNTER_PERIOD_S = 30.0

UNKNOWN_REFRESH_S = 1.0  # drivers that do not say how often they renew a value: a judgement, on the wide side


class HwmonMeter:
    """Reads every sensor of power or energy whose driver it knows."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self._sensors: list[Sensor] = []
        self._gauges: GaugePoller | None = None
        self._keeper: sysfs.Periodic | None = None

    def probe(self) -> Probe:
        self.close()
        refusals: list[MeterRefusal] = []
        for found in find():
            refused = found if isinstance(found, Refused) else self._refused(found)
            if refused is not None:
                refusals.append(_refusal(*refused))
            elif isinstance(found, Sensor):
                self._sensors.append(found)
        if not self._sensors and not refusals:
            why = "hwmon shows no sensor of power or energy: a virtual machine, or a board without one"
            refusals.append(_refusal(why, "give a wall meter: --meter shelly:ADDRESS or --meter csv:FILE"))
        return Probe(domains=tuple(self._facts()), refusals=tuple(refusals))

    def open(self) -> None:
        gauges = [s.fact.domain for s in self._sensors if s.counter is None]
        if gauges:
            refresh_s = {s.fact.domain: s.fact.tick_s or UNKNOWN_REFRESH_S for s in self._sensors}
            self._gauges = GaugePoller("hwmon", self._look, gauges, GAUGE_PERIOD_S, self._clock, refresh_s=refresh_s)
            self._gauges.start()
        if len(gauges) < len(self._sensors):
            self._keeper = sysfs.Periodic("poll hwmon counters", COUNTER_PERIOD_S, self._counts)
            self._keeper.start()

    def read(self) -> list[Count | MeterRefusal]:
        return self._counts() + (self._gauges.snapshot() if self._gauges is not None else [])

    def close(self) -> None:
        for poller in (self._gauges, self._keeper):
            if poller is not None:
                poller.stop()
        self._gauges = self._keeper = None
        self._sensors = []

    def _counts(self) -> list[Count | MeterRefusal]:
        readings: list[Count | MeterRefusal] = []
        for sensor in self._sensors:
            if sensor.counter is not None:
                got, name = sensor.counter.read(self._clock), sensor.fact.domain
                fix = "check the kernel's log, then run again"
                readings.append(got if isinstance(got, Count) else _refusal(f"{name}: {got}", fix, name))
        return readings

    def _look(self) -> dict[str, int | str]:
        return {s.fact.domain: _gauge(s) for s in self._sensors if s.counter is None}

    def _refused(self, sensor: Sensor) -> Refused | None:
        """Return why a sensor is not taken, if it is not: it repeats another or cannot be read now."""
        name = sensor.fact.domain
        if any(s.fact.domain == name for s in self._sensors):
            return Refused(f"{name}: a second sensor of {sensor.fact.source}", "nothing is lost: the first is read")
        got = _gauge(sensor) if sensor.counter is None else sensor.counter.read(self._clock)
        if not isinstance(got, str):
            return None
        fix = "check the kernel's log and the rights of the file, then run again"
        return Refused(f"{name} ({sensor.fact.source}): {got}", fix, name)

    def _facts(self) -> Iterator[MeterFact]:
        """Return what was found; a parent that is not metered is no parent."""
        names = {s.fact.domain for s in self._sensors}
        for fact in (s.fact for s in self._sensors):
            yield fact if fact.parent in names else msgspec.structs.replace(fact, parent=None)


def _gauge(sensor: Sensor) -> int | str:
    product = 1
    try:
        for file in sensor.files:
            product *= sysfs.read_count(file, sensor.most)
    except (OSError, ValueError) as error:
        return sysfs.why(error)
    if product > sensor.most:
        return f"{product} is more than {MAX_GAUGE_W} W: not a reading"
    return product


def _refusal(reason: str, fix: str, domain: str | None = None) -> MeterRefusal:
    return MeterRefusal(meter="hwmon", reason=reason, fix=fix, domain=domain)
