"""The energy a laptop draws from its battery, while it runs on it.

Linux shows batteries in ``class/power_supply`` (Documentation/ABI/testing/sysfs-class-power): energy in uWh, charge in
uAh, power in uW, current in uA, voltage in uV. The sign of a current differs between drivers, so its size is taken,
and only while ``status`` is ``Discharging``: on the charger a battery says nothing of what the machine draws. A status
that changes during the run ends the domain.

Power (``power_now``, else ``current_now`` x ``voltage_now``) is preferred and integrated from polls every second: the
energy left comes in coarse steps, often of 10 mWh (36 J), and only when the fuel gauge cares to update it. Where there
is no power, the steps of ``energy_now`` or of ``charge_now`` x ``voltage_now`` are summed as they are seen.
"""

from __future__ import annotations

import threading
from fractions import Fraction
from typing import TYPE_CHECKING

from perjoule import host
from perjoule.clock import MonotonicClock
from perjoule.meters import sysfs
from perjoule.meters.gauge import GaugePoller, integral_unit_j
from perjoule.protocols import Count, Probe
from perjoule.records import MeterFact, MeterRefusal

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule.protocols import Clock

POLL_S = 1.0
MIN_WINDOW_S = 300.0
# No source gives an error of fuel gauges in place; as a BMC that nobody calibrated: 10 %, about 90 %.
TOLERANCE = 0.10
MAX_W = 1000  # above any portable machine; a larger number is no reading
_HOUR_S = 3600
_UNPLUG = "unplug the charger and run again"
_CHECK = "check the battery in the system's settings, then run again"
_MICRO = Fraction(1, 10**6)
_PICO = Fraction(1, 10**12)  # uA x uV
# the files whose product is power now, and watts per count of it
_POWER = ((("power_now",), _MICRO), (("current_now", "voltage_now"), _PICO))
# the file that falls, the file its steps are multiplied with, and joules per count of the product
_LEFT = (("energy_now", None, _MICRO * _HOUR_S), ("charge_now", "voltage_now", _PICO * _HOUR_S))

REFRESH_S = 10.0  # fuel gauges renew their values every second to every minute and do not say when: a judgement


class BatteryMeter:
    """Reads every battery that is being discharged."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self._sources: dict[str, _Power | _Steps] = {}
        self._lost: dict[str, str] = {}
        self._gauges: GaugePoller | None = None
        self._steps: sysfs.Periodic | None = None

    def probe(self) -> Probe:
        self.close()
        supplies = host.sysfs_root() / "class" / "power_supply"
        folders = [f for f in sorted(supplies.glob("BAT*")) if _is(f, "type", "Battery")]
        if not folders:
            return Probe(refusals=(_refusal("no battery", "use a wall meter, or the sensors of the processor"),))
        plugged = [f.name for f in supplies.glob("*") if _is(f, "type", "Mains") and _is(f, "online", "1")]
        if plugged:
            why = f"the charger ({plugged[0]}) is plugged in: the battery does not show what the machine draws"
            return Probe(refusals=(_refusal(why, _UNPLUG, "battery"),))
        domains: list[MeterFact] = []
        refusals: list[MeterRefusal] = []
        for folder in folders:
            name = "battery" if len(folders) == 1 else f"battery-{folder.name.removeprefix('BAT').lower()[:8]}"
            found = _not_discharging(folder) or _source(folder)
            if isinstance(found, str):
                fix = _UNPLUG if isinstance(found, _Ended) else _CHECK
                refusals.append(_refusal(f"{name}: {found}", fix, name))
                continue
            self._sources[name] = found
            domains.append(_fact(name, found))
        return Probe(domains=tuple(domains), refusals=tuple(refusals))

    def open(self) -> None:
        powers = [name for name, source in self._sources.items() if isinstance(source, _Power)]
        if powers:
            # not fresh: a reading goes through the embedded controller and may take long at a window's edge
            self._gauges = GaugePoller(
                "battery",
                self._look,
                powers,
                POLL_S,
                self._clock,
                fresh=False,
                refresh_s=dict.fromkeys(powers, REFRESH_S),
            )
            self._gauges.start()
        if len(powers) < len(self._sources):
            self._steps = sysfs.Periodic("poll battery", POLL_S, self.step)
            self._steps.start()

    def step(self) -> dict[str, int | str]:
        """Look at the batteries whose energy left is followed; return what has gone since the first look."""
        return {n: self._keep(n, s.look()) for n, s in self._sources.items() if isinstance(s, _Steps)}

    def read(self) -> list[Count | MeterRefusal]:
        readings: list[Count | MeterRefusal] = self._gauges.snapshot() if self._gauges is not None else []
        before_ns = self._clock.now_ns()
        steps = self.step()
        after_ns = self._clock.now_ns()
        for name, got in steps.items():
            if isinstance(got, str):
                readings.append(_refusal(f"{name}: {got}", _CHECK, name))
            else:
                readings.append(Count(domain=name, count=got, before_ns=before_ns, after_ns=after_ns))
        lost = {name: _refusal(f"{name}: {why}", _UNPLUG, name) for name, why in self._lost.items()}
        return [lost.get(r.domain or "", r) for r in readings]

    def close(self) -> None:
        for poller in (self._gauges, self._steps):
            if poller is not None:
                poller.stop()
        self._gauges = self._steps = None
        self._sources, self._lost = {}, {}

    def _look(self) -> dict[str, int | str]:
        return {n: self._keep(n, s.look()) for n, s in self._sources.items() if isinstance(s, _Power)}

    def _keep(self, name: str, got: int | str) -> int | str:
        """Pass a reading on; once a domain has ended it stays ended."""
        if isinstance(got, _Ended):
            self._lost.setdefault(name, got)
        return self._lost.get(name, got)


class _Ended(str):
    """A reason that ends a domain for the rest of the run: what came after it is not what the machine drew."""

    __slots__ = ()


class _Power:
    """Power now, as the product of one or two files."""

    def __init__(self, folder: Path, names: tuple[str, ...], watts: Fraction) -> None:
        self._folder, self._names, self._watts = folder, names, watts
        self.unit_j = integral_unit_j(watts)
        self.source = f"power_supply {' x '.join(names)}, polled"

    def look(self) -> int | str:
        changed = _not_discharging(self._folder)
        if changed is not None:
            return changed
        product = 1
        try:
            for name in self._names:
                product *= abs(sysfs.read_signed(self._folder / name))
        except (OSError, ValueError) as error:
            return sysfs.why(error)
        if product * self._watts > MAX_W:
            return f"{float(product * self._watts):.6g} W is more than {MAX_W} W: not a reading"
        return product


class _Steps:
    """Energy left, followed as it falls; a look returns what has gone since the first one."""

    def __init__(self, folder: Path, left: str, times: str | None, unit_j: Fraction) -> None:
        self._folder, self._left, self._times = folder, left, times
        self.unit_j = str(unit_j)
        self.source = f"power_supply {left}{f' x {times}' if times else ''}, steps summed"
        self._drawn = 0
        self._last: int | None = None
        self._lock = threading.Lock()  # the poller and a window's edge may look at once

    def look(self) -> int | str:
        changed = _not_discharging(self._folder)
        if changed is not None:
            return changed
        with self._lock:
            try:
                left = sysfs.read_count(self._folder / self._left)
                times = sysfs.read_count(self._folder / self._times) if self._times else 1
            except (OSError, ValueError) as error:
                return sysfs.why(error)
            fell = 0 if self._last is None else self._last - left
            if fell < 0:
                return _Ended(f"{self._left} rose by {-fell}: the battery was charged, or its gauge corrected itself")
            self._last = left
            self._drawn += fell * times
            return self._drawn


def _source(folder: Path) -> _Power | _Steps | str:
    """Return the first way of reading that gives a number above 0, or why there is none."""
    reasons = []
    for names, watts in _POWER:
        if all((folder / name).exists() for name in names):
            power = _Power(folder, names, watts)
            got = power.look()
            if isinstance(got, int) and got > 0:
                return power
            reasons.append(got if isinstance(got, str) else f"{names[0]} is 0 although the battery is discharging")
    for left, times, unit_j in _LEFT:
        if (folder / left).exists() and (times is None or (folder / times).exists()):
            steps = _Steps(folder, left, times, unit_j)
            got = steps.look()
            if isinstance(got, int):
                return steps
            reasons.append(got)
    return "; ".join(reasons) or "it shows neither power nor energy nor charge"


def _not_discharging(folder: Path) -> _Ended | None:
    try:
        status = sysfs.read_text(folder / "status")
    except (OSError, ValueError) as error:
        return _Ended(f"its status cannot be read: {sysfs.why(error)}")
    return None if status == "Discharging" else _Ended(f"its status is {status[:32]!r}, not Discharging")


def _is(folder: Path, name: str, value: str) -> bool:
    try:
        return sysfs.read_text(folder / name) == value
    except (OSError, ValueError):
        return False  # what does not say that it is one is not taken for one


def _fact(name: str, source: _Power | _Steps) -> MeterFact:
    return MeterFact(
        domain=name,
        scope="battery",
        kind="gauge" if isinstance(source, _Power) else "counter",
        label="measured",
        grade="battery",
        tick_s=None,
        tick_s_missing="fuel gauges update every second to every minute and do not say when",
        source=source.source,
        unit_j=source.unit_j,
        min_window_s=MIN_WINDOW_S,
        tolerance=TOLERANCE,
        simulated=host.simulated(),
        only_simulated=True,
    )


def _refusal(reason: str, fix: str, domain: str | None = None) -> MeterRefusal:
    return MeterRefusal(meter="battery", reason=reason, fix=fix, domain=domain)
