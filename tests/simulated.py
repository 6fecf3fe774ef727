"""Made-up sysfs and procfs trees: sensors without a sensor. Results from them are never publishable."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

CPUINFO = (
    "processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: made-up CPU\n"
    "stepping\t: 1\nflags\t\t: fpu avx2\n\n"
)
WRAP_UJ = 262_143_328_850
AMD_RANGE_UJ = 65_532_610_987  # 2^32 - 1 counts of 2^-16 J, as AMD's processors show


def use_tree(
    root: Path, patch: pytest.MonkeyPatch, *, vendor: str = "GenuineIntel", family: int = 6, model: int = 143
) -> Path:
    """Point the host readers at an empty tree under ``root`` and return its powercap folder."""
    proc, powercap = root / "proc", root / "sys" / "class" / "powercap"
    proc.mkdir()
    powercap.mkdir(parents=True)
    (proc / "cpuinfo").write_text(CPUINFO.format(vendor=vendor, family=family, model=model))
    (proc / "stat").write_text("cpu  100 20 30 400 50 6 7 80 0 0\n")
    patch.setenv("PERJOULE_SYSFS", str(root / "sys"))
    patch.setenv("PERJOULE_PROCFS", str(proc))
    return powercap


def add_domain(
    powercap: Path, folder: str, name: str, energy_uj: int | str = 1000, range_uj: int | str = WRAP_UJ
) -> Path:
    """Add one RAPL domain and return its counter file."""
    domain = write_files(powercap / folder, name=name, max_energy_range_uj=range_uj, energy_uj=energy_uj)
    return domain / "energy_uj"


def write_files(folder: Path, **files: int | str) -> Path:
    """Write one short line to each file of a folder, as sysfs shows numbers and names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
    return folder


def sysfs_of(powercap: Path) -> Path:
    """Return the root of the tree that ``use_tree`` made."""
    return powercap.parent.parent


def add_hwmon(sysfs: Path, number: int, driver: str, *, in_device: bool = False, **files: int | str) -> Path:
    """Add one hwmon device; older drivers put their files into ``device``."""
    folder = sysfs / "class" / "hwmon" / f"hwmon{number}"
    return write_files(folder / "device" if in_device else folder, name=driver, **files)


def add_ina3221(sysfs: Path, number: int, *rails: tuple[str, int, int]) -> Path:
    """Add a Jetson's power monitor: label, mV and mA of each channel."""
    files: dict[str, int | str] = {}
    for channel, (label, volts_mv, amperes_ma) in enumerate(rails, 1):
        files |= {f"in{channel}_label": label, f"in{channel}_input": volts_mv, f"curr{channel}_input": amperes_ma}
    return add_hwmon(sysfs, number, "ina3221", **files)


def add_grace(sysfs: Path, number: int, sensor: str, power_uw: int, interval_ms: int = 50) -> Path:
    """Add one of the ACPI power meters of an NVIDIA Grace."""
    return add_hwmon(
        sysfs, number, "power_meter", in_device=True, power1_average=power_uw, power1_average_interval=interval_ms,
        power1_oem_info=sensor, power1_is_battery=0,
    )  # fmt: skip


def add_supply(sysfs: Path, name: str, kind: str, **files: int | str) -> Path:
    """Add a power supply: ``add_supply(sysfs, "BAT0", "Battery", status="Discharging", power_now=8_000_000)``."""
    return write_files(sysfs / "class" / "power_supply" / name, type=kind, **files)


def add_power_pmu(sysfs: Path, events: dict[str, int], cpus: dict[int, tuple[int, int]]) -> Path:
    """Add the RAPL PMU of perf: events with their codes, and package and die of each CPU that reads them."""
    pmu = write_files(sysfs / "bus/event_source/devices/power", type=24, cpumask=",".join(str(c) for c in cpus))
    for name, code in events.items():
        scale = "2.3283064365386962890625e-10"
        write_files(pmu / "events", **{name: f"event=0x{code:02x}", f"{name}.unit": "Joules", f"{name}.scale": scale})
    for cpu, (package, die) in cpus.items():
        topology = sysfs / f"devices/system/cpu/cpu{cpu}/topology"
        write_files(topology, physical_package_id=package, die_id=die)
    return pmu
