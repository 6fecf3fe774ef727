"""RAPL energy counters through the kernel's ``power`` PMU (perf_event_open(2)).

The kernel sums each counter into 64 bits in units of 2^-32 J and looks often enough never to miss a wrap
(arch/x86/events/rapl.c), so this reader needs neither a poller nor a wrap; it is preferred to powercap. One counter
is opened per event on each CPU of ``cpumask``: one CPU per package, or per die where the registers are per die. The
platform event (psys) is one counter for the machine and is opened on the first CPU only.

Counters of a PMU cannot be simulated: with another sysfs or procfs root this reader refuses.
"""

from __future__ import annotations

import os
import platform
import re
import struct
import sys
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from perjoule import host
from perjoule.clock import MonotonicClock
from perjoule.meters import sysfs
from perjoule.meters.powercap import MIN_WINDOW_S, PSYS_NOTE, TICK_S, TOLERANCE
from perjoule.protocols import Count, Probe
from perjoule.records import MeterFact, MeterRefusal

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule.protocols import Clock

# event: suffix of the domain's name, scope, grade
_EVENTS = {
    "energy-pkg": ("", "package", "rapl-package"),
    "energy-cores": (":core", "core", "rapl-package"),
    "energy-ram": (":dram", "dram", "rapl-dram"),
    "energy-gpu": (":igpu", "igpu", "rapl-package"),
    "energy-psys": ("psys", "platform", "rapl-psys"),
}
# arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h
_SYSCALL = {"x86_64": 298, "aarch64": 241}
_ATTR = struct.Struct("=IIQQQQQIIQ")  # perf_event_attr, first published version (PERF_ATTR_SIZE_VER0, 64 bytes)
_CLOEXEC = 8  # PERF_FLAG_FD_CLOEXEC
_COUNT_BYTES = 8
_DECIMAL = re.compile(r"\d{1,20}(?:\.\d{1,60})?(?:[eE][+-]?\d{1,2})?")
_CPUS = re.compile(r"\d{1,5}(?:-\d{1,5})?(?:,\d{1,5}(?:-\d{1,5})?)*")
_MAX_CPUS = 1024
_BARE_METAL = "run on bare metal, or give a wall meter"


class _Open(NamedTuple):
    domain: str
    descriptor: int
    counter: sysfs.EnergyCounter


class _Event(NamedTuple):
    config: int
    unit_j: Fraction


class PerfMeter:
    """Reads the energy events of the ``power`` PMU."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self._open: list[_Open] = []

    def probe(self) -> Probe:
        """Open every event. What cannot be opened is refused with what would allow it."""
        self.close()
        pmu = host.sysfs_root() / "bus/event_source/devices/power"
        if host.simulated():
            why = "perf counters cannot be simulated: the sysfs or procfs root is not the kernel's own"
            return _refused(why, "unset PERJOULE_SYSFS and PERJOULE_PROCFS, or read powercap: --meter rapl-powercap")
        if not pmu.is_dir():
            why = "no power PMU: a virtual machine, no x86 processor, or a kernel without the rapl module"
            return _refused(why, f"{_BARE_METAL}; sudo modprobe rapl loads the module")
        try:
            kind = sysfs.read_count(pmu / "type")
            packages = _packages(_cpus(sysfs.read_text(pmu / "cpumask")))
        except (OSError, ValueError) as error:
            return _refused(f"the power PMU cannot be used: {sysfs.why(error)}", _BARE_METAL)
        amd = host.read_host({}).cpu.vendor in ("AuthenticAMD", "HygonGenuine")
        domains: list[MeterFact] = []
        refusals: list[MeterRefusal] = []
        for event, (suffix, scope, grade) in _EVENTS.items():
            if not (pmu / "events" / event).exists():
                continue  # a part that this processor does not count
            for package, cpu in list(packages.items())[: 1 if scope == "platform" else None]:
                name = suffix if scope == "platform" else package + suffix
                try:
                    unit_j = self._add(pmu, event, name, kind, cpu)
                except (OSError, ValueError) as error:
                    refusals.append(_refusal(f"{name}: {_reason(error)}", _fix(error), name))
                    continue
                domains.append(_fact(name, package, scope, "amd-rapl" if amd else grade, unit_j))
        if not domains and not refusals:
            return _refused("the power PMU has no energy event", _BARE_METAL)
        return Probe(domains=tuple(domains), refusals=tuple(refusals))

    def open(self) -> None:
        """The counters were opened by ``probe`` and run since."""

    def read(self) -> list[Count | MeterRefusal]:
        return [self._read(one) for one in self._open]

    def close(self) -> None:
        for one in self._open:
            os.close(one.descriptor)
        self._open = []

    def _add(self, pmu: Path, event: str, name: str, kind: int, cpu: int) -> Fraction:
        found = _event(pmu / "events", event)
        descriptor = perf_event_open(kind, found.config, cpu)
        rests = name.endswith(":igpu")  # graphics that are off draw nothing
        counter = sysfs.EnergyCounter(found.unit_j, frozen_s=None if rests else MIN_WINDOW_S)
        self._open.append(_Open(name, descriptor, counter))
        return found.unit_j

    def _read(self, one: _Open) -> Count | MeterRefusal:
        fix = "the counter was lost during the run; run again"
        before_ns = self._clock.now_ns()
        try:
            raw = os.read(one.descriptor, _COUNT_BYTES)
        except OSError as error:
            return _refusal(f"{one.domain}: {sysfs.why(error)}", fix, one.domain)
        after_ns = self._clock.now_ns()
        if len(raw) != _COUNT_BYTES:  # end of file: the kernel could not keep the event on its CPU
            return _refusal(f"{one.domain}: the event is not counting", fix, one.domain)
        count = one.counter.take(int.from_bytes(raw, sys.byteorder), (before_ns + after_ns) // 2)
        if isinstance(count, str):
            return _refusal(f"{one.domain}: {count}", fix, one.domain)
        return Count(domain=one.domain, count=count, before_ns=before_ns, after_ns=after_ns)


def perf_event_open(kind: int, config: int, cpu: int) -> int:
    """Open one counting event for every process on ``cpu`` and return its descriptor. Raises ``OSError``."""
    import ctypes  # noqa: PLC0415 - only where there is a PMU

    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise ValueError(f"no system call number is known for {platform.machine()}")
    attr = _ATTR.pack(kind, _ATTR.size, config, 0, 0, 0, 0, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    every_process, no_group = ctypes.c_long(-1), ctypes.c_long(-1)
    descriptor = int(
        libc.syscall(ctypes.c_long(number), attr, every_process, ctypes.c_long(cpu), no_group, ctypes.c_ulong(_CLOEXEC))
    )
    if descriptor < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return descriptor


def _event(events: Path, name: str) -> _Event:
    """Read what an event is worth, exactly. Raises ``ValueError`` for what is not as the kernel documents it."""
    text = sysfs.read_text(events / name)
    config = re.fullmatch(r"event=0x([0-9a-f]{1,2})", text)
    if config is None:
        raise ValueError(f"{name} is {text[:32]!r}, not an event code")
    unit = sysfs.read_text(events / f"{name}.unit")
    if unit != "Joules":
        raise ValueError(f"{name} counts {unit[:32]!r}, not Joules")
    scale = sysfs.read_text(events / f"{name}.scale")
    if not _DECIMAL.fullmatch(scale) or not Fraction(scale):
        raise ValueError(f"{name}.scale is {scale[:32]!r}, not joules per count")
    return _Event(int(config[1], 16), Fraction(scale))


def _cpus(mask: str) -> list[int]:
    """Return the CPUs of a mask such as ``0,28`` or ``0-3``. Raises ``ValueError``."""
    if not _CPUS.fullmatch(mask):
        raise ValueError(f"cpumask is {mask[:32]!r}")
    cpus: list[int] = []
    for part in mask.split(","):
        first, _, last = part.partition("-")
        cpus += range(int(first), min(int(last or first), int(first) + _MAX_CPUS) + 1)
    return cpus


def _packages(cpus: list[int]) -> dict[str, int]:
    """Name what each CPU stands for: its package, or its die where the PMU counts several of one package."""
    places: list[tuple[int, int]] = []
    for cpu in cpus:
        topology = host.sysfs_root() / f"devices/system/cpu/cpu{cpu}/topology"
        package = sysfs.read_count(topology / "physical_package_id")
        die = topology / "die_id"
        places.append((package, sysfs.read_count(die) if die.exists() else 0))
    shared = {p for p, _ in places if sum(p == q for q, _ in places) > 1}
    return {
        f"package-{p}-die-{d}" if p in shared else f"package-{p}": c for (p, d), c in zip(places, cpus, strict=True)
    }


def _fact(name: str, package: str, scope: str, grade: str, unit_j: Fraction) -> MeterFact:
    return MeterFact(
        domain=name,
        scope=scope,
        kind="counter",
        label="measured",
        grade=grade,
        tick_s=TICK_S,
        source="perf power PMU",
        unit_j=str(unit_j),
        wrap_count=None,
        min_window_s=MIN_WINDOW_S,
        tolerance=TOLERANCE[grade],
        parent=package if scope in ("core", "igpu") else None,  # memory is beside the package
        simulated=host.simulated(),
        only_simulated=True,
        note=PSYS_NOTE if scope == "platform" else None,
    )


def _reason(error: OSError | ValueError) -> str:
    if not isinstance(error, PermissionError):
        return sysfs.why(error)
    try:
        level = sysfs.read_text(host.procfs_root() / "sys/kernel/perf_event_paranoid")[:8]
    except (OSError, ValueError) as unreadable:
        level = f"unreadable: {sysfs.why(unreadable)}"
    return f"{sysfs.why(error)}; kernel.perf_event_paranoid is {level}, and this process has no CAP_PERFMON"


def _fix(error: OSError | ValueError) -> str:
    if isinstance(error, PermissionError):
        return (
            "sudo sysctl kernel.perf_event_paranoid=0, or sudo setcap cap_perfmon+ep on the Python interpreter; "
            "in a container also --cap-add PERFMON"
        )
    return _BARE_METAL


def _refused(reason: str, fix: str) -> Probe:
    return Probe(refusals=(_refusal(reason, fix),))


def _refusal(reason: str, fix: str, domain: str | None = None) -> MeterRefusal:
    return MeterRefusal(meter="rapl-perf", reason=reason, fix=fix, domain=domain)
