"""RAPL energy counters through the powercap tree of Linux: packages, their parts, and the memory beside them.

Kernel documentation: Documentation/power/powercap/powercap.rst. Domains are told apart by ``name``, never by index:
``intel-rapl:1`` is the whole platform on some laptops and the second package on servers. ``intel-rapl-mmio`` shows
the counter of a package once more through another register and is read only where it is alone. AMD processors appear
under the same name since Linux 5.8. Dies of one package may mirror one counter; that shows in the counts only, so
every die is listed and the sum leaves mirrors out.

A counter that could wrap within 300 s at 600 W (AMD: 2^32 counts of 15.3 uJ, 65.5 kJ) is read every 30 s and its
steps are summed across wraps; the others are reported raw with the count at which they wrap.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from perjoule import host
from perjoule.clock import MonotonicClock
from perjoule.meters import sysfs
from perjoule.protocols import Count, Probe
from perjoule.records import MeterFact, MeterRefusal

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule.protocols import Clock

TICK_S = 0.001  # the counter's update period (Intel SDM vol. 3, 15.10); a window of >= 1 s keeps it under 2 %
MIN_WINDOW_S = 1.0
SHORT_WRAP_S = 300.0
POLL_S = 30.0
_UNIT_J = Fraction(1, 1_000_000)  # energy_uj
_READ_FIX = (
    "sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj, or a udev rule that does so; "
    "the counters are root-only since Linux 5.10"
)
_OTHER_FIX = "sudo dmesg | grep -i rapl shows what the kernel says of it; then run again"
_NAME = re.compile(r"(?:package-\d{1,4}(?:-die-\d{1,4})?|psys|dram|core|uncore)")
_SCOPES = {"psys": "platform", "dram": "dram", "core": "core", "uncore": "uncore"}
_AMD = ("AuthenticAMD", "HygonGenuine")
# Relative half-widths, about 90 %. RAPL package: Haswell and later follow a wall meter within 5 %; DRAM 20 %
# (Desrochers et al., MEMSYS 2016); AMD's is computed from events inside the chip, not sensed.
TOLERANCE = {"rapl-package": 0.05, "rapl-dram": 0.20, "amd-rapl": 0.10, "rapl-psys": 0.20}
PSYS_NOTE = "what the platform domain covers is up to whoever built the machine; it enters no sum"
# MSR C001_029A is one register per core (Documentation/hwmon/amd_energy.rst); powercap reads that of one CPU
_AMD_CORE_NOTE = "AMD counts each core apart; this is one core, not all of the package"


class _Domain(NamedTuple):
    fact: MeterFact
    file: sysfs.CounterFile
    unwraps: bool


class PowercapMeter:
    """Reads ``energy_uj`` of every domain that is not a repeat of another."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self._domains: list[_Domain] = []
        self._poller: sysfs.Periodic | None = None

    def probe(self) -> Probe:
        self._domains = []
        folders = _folders(host.sysfs_root() / "class" / "powercap")
        if not folders:
            why = "no RAPL domain in powercap: a virtual machine, or a kernel without intel_rapl"
            fix = "run on bare metal (sudo modprobe intel_rapl_msr loads the driver), or give a wall meter"
            return Probe(refusals=(_refusal(why, fix),))
        refusals: list[MeterRefusal] = []
        amd = host.read_host({}).cpu.vendor in _AMD
        for folder in folders:
            found = self._open(folder, amd=amd)
            if isinstance(found, MeterRefusal):
                refusals.append(found)
            else:
                self._domains.append(found)
        return Probe(domains=tuple(d.fact for d in self._domains), refusals=tuple(refusals))

    def open(self) -> None:
        """Start the poller where a counter wraps soon. Files are opened at each read."""
        if any(d.unwraps for d in self._domains):
            self._poller = sysfs.Periodic("poll rapl-powercap", POLL_S, self.poll)
            self._poller.start()

    def poll(self) -> None:
        """Look at the counters that wrap soon, so that no wrap is missed; a failure shows at the next ``read``."""
        for domain in self._domains:
            if domain.unwraps:
                domain.file.read(self._clock)

    def read(self) -> list[Count | MeterRefusal]:
        readings: list[Count | MeterRefusal] = []
        for domain in self._domains:
            got = domain.file.read(self._clock)
            name = domain.fact.domain
            readings.append(got if isinstance(got, Count) else _refusal(f"{name}: {got}", _OTHER_FIX, name))
        return readings

    def close(self) -> None:
        if self._poller is not None:
            self._poller.stop()
            self._poller = None
        self._domains = []

    def _open(self, folder: Path, *, amd: bool) -> _Domain | MeterRefusal:
        """Return a domain that can be read now, or why it cannot."""
        name = None
        try:
            name = _domain(folder)
            if any(d.fact.domain == name for d in self._domains):
                return _refusal(f"{folder.name}: a second {name}", "nothing is lost: the first is read")
            most = sysfs.read_count(folder / "max_energy_range_uj")
            wrap = most + 1
            unwraps = wrap * _UNIT_J < SHORT_WRAP_S * sysfs.LIKELY_W
            fact = _fact(name, None if unwraps else wrap, amd=amd)
            counter = sysfs.EnergyCounter(
                _UNIT_J, wrap=wrap, unwrap=unwraps, frozen_s=None if fact.scope == "uncore" else MIN_WINDOW_S
            )  # integrated graphics that are off draw nothing
            file = sysfs.CounterFile(name, folder / "energy_uj", counter, most)
            first = file.read(self._clock)
            if isinstance(first, str):
                sysfs.read_count(
                    folder / "energy_uj", most
                )  # once more: a passing EAGAIN is no reason to lose a domain
        except PermissionError as error:
            return _refusal(f"{name or folder.name}: {sysfs.why(error)}", _READ_FIX, name)
        except (OSError, ValueError) as error:
            return _refusal(f"{name or folder.name}: {sysfs.why(error)}", _OTHER_FIX, name)
        return _Domain(fact, file, unwraps)


def _folders(powercap: Path) -> list[Path]:
    for pattern in ("intel-rapl:*", "intel-rapl-mmio:*"):
        folders = sorted(p for p in powercap.glob(pattern) if (p / "name").exists())
        if folders:
            return folders
    return []


def _domain(folder: Path) -> str:
    """Name a domain by its own name and, for a part, its package: ``package-0``, ``package-0:dram``."""
    stem, _, part = folder.name.rpartition(":")
    names = [sysfs.read_text(folder / "name")]
    if stem.count(":") and part:
        names.insert(0, sysfs.read_text(folder.parent / stem / "name"))
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"unknown domain {name[:32]!r}")
    return ":".join(names)


def _fact(name: str, wrap: int | None, *, amd: bool) -> MeterFact:
    package, _, part = name.rpartition(":")
    scope = _SCOPES.get(part, "package")
    grade = "amd-rapl" if amd else {"dram": "rapl-dram", "platform": "rapl-psys"}.get(scope, "rapl-package")
    return MeterFact(
        domain=name,
        scope=scope,
        kind="counter",
        label="measured",
        grade=grade,
        tick_s=TICK_S,
        source="powercap intel-rapl" + ("" if wrap else f", read every {POLL_S:g} s and summed across wraps"),
        unit_j=str(_UNIT_J),
        wrap_count=wrap,
        min_window_s=MIN_WINDOW_S,
        tolerance=TOLERANCE[grade],
        parent=package or None if scope != "dram" else None,  # memory is beside the package
        simulated=host.simulated(),
        only_simulated=True,
        note=PSYS_NOTE if scope == "platform" else _AMD_CORE_NOTE if amd and scope == "core" else None,
    )


def _refusal(reason: str, fix: str, domain: str | None = None) -> MeterRefusal:
    return MeterRefusal(meter="rapl-powercap", reason=reason, fix=fix, domain=domain)
