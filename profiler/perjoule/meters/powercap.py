"""RAPL energy counters through the powercap tree of Linux: packages and their memory.

Kernel documentation: Documentation/power/powercap/powercap.rst. Domains are told apart by ``name``, never by
index: ``intel-rapl:1`` is the whole platform on some laptops and the second package on servers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule import host
from perjoule.clock import MonotonicClock
from perjoule.protocols import Count, Probe
from perjoule.records import MeterFact, MeterRefusal

if TYPE_CHECKING:
    from pathlib import Path

TICK_S = 0.001  # the counter's update period (Intel SDM vol. 3, 15.10); a window of >= 1 s keeps it under 2 %
MIN_WINDOW_S = 1.0
_READ_FIX = (
    "sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj, or a udev rule that does so; "
    "the counters are root-only since Linux 5.10"
)
_COUNTED = ("package", "dram", "psys", "core", "uncore")


class PowercapMeter:
    """Reads ``energy_uj`` of every domain that is not a repeat of another."""

    def __init__(self) -> None:
        self._clock = MonotonicClock()
        self._paths: dict[str, Path] = {}

    def probe(self) -> Probe:
        root = host.sysfs_root() / "class" / "powercap"
        folders = sorted(p for p in root.glob("intel-rapl:*") if (p / "name").exists())
        if not folders:
            why = "no RAPL domain in powercap: a virtual machine, or a kernel without intel_rapl"
            return Probe(refusals=(_refusal(why, "run on bare metal, or give a wall meter"),))
        domains: list[MeterFact] = []
        refusals: list[MeterRefusal] = []
        for folder in folders:
            name = self._domain(folder)
            if name.split("-")[0].split(":")[-1] not in _COUNTED:
                refusals.append(_refusal(f"{folder.name}: unknown domain {name!r}", "report it with the CPU's name"))
                continue
            try:
                fact = self._fact(folder, name)
            except (OSError, ValueError) as error:
                fix = _READ_FIX if isinstance(error, PermissionError) else "check the kernel's log"
                refusals.append(_refusal(f"{name}: {error.__class__.__name__}: {_why(error)}", fix))
                continue
            domains.append(fact)
            self._paths[name] = folder / "energy_uj"
        return Probe(domains=tuple(domains), refusals=tuple(refusals))

    def open(self) -> None:
        """Files are opened at each read: powercap files cannot be re-read through one descriptor everywhere."""

    def read(self) -> list[Count | MeterRefusal]:
        readings: list[Count | MeterRefusal] = []
        for domain, path in self._paths.items():
            before_ns = self._clock.now_ns()
            try:
                count = _count(path)
            except (OSError, ValueError) as error:
                readings.append(_refusal(f"{domain}: {_why(error)}", "the sensor vanished during the run"))
                continue
            readings.append(Count(domain=domain, count=count, before_ns=before_ns, after_ns=self._clock.now_ns()))
        return readings

    def close(self) -> None:
        self._paths.clear()

    def _domain(self, folder: Path) -> str:
        """Name a domain by its own name and, for a part, its package: ``package-0``, ``package-0:dram``."""
        name = (folder / "name").read_text().strip()
        stem, _, part = folder.name.rpartition(":")
        if stem.count(":") and part:
            owner = folder.parent / stem
            return f"{(owner / 'name').read_text().strip()}:{name}"
        return name

    def _fact(self, folder: Path, name: str) -> MeterFact:
        _count(folder / "energy_uj")
        amd = "AMD" in host.read_host({}).cpu.vendor
        return MeterFact(
            domain=name,
            scope=name,
            kind="counter",
            label="measured",
            grade="amd-rapl" if amd else "rapl-dram" if name.endswith("dram") else "rapl-package",
            tick_s=TICK_S,
            source="powercap intel-rapl",
            unit_j="1/1000000",
            wrap_count=_count(folder / "max_energy_range_uj") + 1,
            min_window_s=MIN_WINDOW_S,
            parent=name.rpartition(":")[0] or None if not name.endswith("dram") else None,
            simulated=host.simulated(),
        )


def _count(path: Path) -> int:
    text = path.read_text().strip()
    if not text.isdigit():
        msg = f"{path.name} is {text[:32]!r}, not a count"
        raise ValueError(msg)
    return int(text)


def _why(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else str(error)) or "unreadable"


def _refusal(reason: str, fix: str) -> MeterRefusal:
    return MeterRefusal(meter="rapl-powercap", reason=reason, fix=fix)
