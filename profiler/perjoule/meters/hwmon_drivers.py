"""What drivers of the kernel's hwmon class measure, as domains.

Units are those of Documentation/hwmon/sysfs-interface.rst: energy uJ, power uW, voltage mV, current mA. What a number
covers depends on the driver (the file ``name``), so a driver that is not in the table is refused by name rather than
guessed. Older drivers put their files into ``hwmonN/device``.

| driver | what is read | domain |
| --- | --- | --- |
| amd_energy, zenergy | ``Esocket*`` counters; ``Ecore*`` are inside them | package-N |
| power_meter (acpi_power_meter) | average power of what firmware says: NVIDIA Grace's parts | module-N, package-N |
| | or else the whole chassis | chassis-N |
| ina3221 (Jetson) | volts x amperes of channels 1 to 3; older Tegra kernels: mW under iio | module, rail-* |
| amdgpu | power of a board; an APU's covers parts of the processor too and is refused | gpu-N |
| xe, i915 | energy counter of the card, else of its package; ``i915_gt*`` are inside it | gpu-N |
| apm_xgene, smpro_hwmon | power of voltage regulators; none covers the whole processor | package-N:* |
"""

from __future__ import annotations

import os
import re
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from perjoule import host
from perjoule.meters import sysfs
from perjoule.meters.gauge import integral_unit_j
from perjoule.records import UNSET, MeterFact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    _Make = Callable[[Path, str, int], Iterator["_Found"]]

GAUGE_PERIOD_S = 0.1
MAX_GAUGE_W = 100_000  # above any chassis: a larger number is no reading
_MICRO, _MILLI = Fraction(1, 10**6), Fraction(1, 1000)
_BMC_WINDOW_S = 600.0  # a chassis sensor of unknown period comes from the BMC
_UNKNOWN_TICK = "the driver states no update period"
_POWER_FILES = ("power*_input", "power*_average", "energy*_input")
# No source gives an error of these sensors in place; as a BMC that nobody calibrated: 10 %, about 90 %.
TOLERANCE = 0.10
# Documentation/hwmon/ina3221.rst: channels 4 and up are sums and shunt voltages
_INA_CHANNELS = (1, 2, 3)
# the rail that feeds the whole board; POM_5V_IN is the name on the first Jetson Nano
_MODULE_RAILS = ("VDD_IN", "POM_5V_IN")
_UNCONNECTED = ("", "NC")
_GRACE = re.compile(r"(Module|Grace|CPU|SysIO) Power Socket (\d{1,3})")
# what each sensor of a Grace socket covers: domain, scope, parent, note
_GRACE_DOMAINS = {
    "Module": ("module-{}", "module", None, "with the GPU, all memory and regulators' losses"),
    "Grace": ("package-{}", "package", "module-{}", "with the LPDDR5X memory beside the cores"),
    "CPU": ("package-{}:core", "core", "package-{}", None),
    "SysIO": ("package-{}:soc", "uncore", "package-{}", None),
}
_REGULATORS = (("core vrd", "core"), ("cpu", "core"), ("dimm", "dram"), ("soc", "uncore"), ("io", "uncore"))


class Sensor(NamedTuple):
    """One thing to read: a counter in a file, or a gauge that is the product of its files."""

    fact: MeterFact
    counter: sysfs.CounterFile | None = None
    files: tuple[Path, ...] = ()
    most: int = 0  # of the product


class Refused(NamedTuple):
    reason: str
    fix: str
    domain: str | None = None


_Found = Sensor | Refused


def find() -> Iterator[_Found]:
    """Go through every device; boards are numbered in the order of their addresses, after those of NVML."""
    root = host.sysfs_root()
    order = dict.fromkeys(_DRIVERS, 0)
    boards = len(list((root / "bus/pci/drivers/nvidia").glob("*:*:*.*")))
    for folder in sorted((root / "class/hwmon").glob("hwmon*"), key=_address):
        files = folder if (folder / "name").exists() else folder / "device"
        try:
            driver = sysfs.read_text(files / "name")
        except (OSError, ValueError) as error:
            if any(_power_files(files)):
                yield Refused(f"{folder.name} has no driver's name: {sysfs.why(error)}", "check the kernel's log")
            continue
        if driver in _DRIVERS:
            make, is_board = _DRIVERS[driver]
            found = _made(make, files, driver, boards if is_board else order[driver])
            order[driver] += 1
            boards += is_board and any(isinstance(f, Sensor) for f in found)
            yield from found
        elif any(_power_files(files)) and not driver.startswith("i915_gt"):
            why = f"{folder.name}: what the driver {driver[:32]!r} measures is not known"
            yield Refused(why, "report the driver's name to the project, or give a wall meter")
    yield from _made(_tegra, root / "bus/i2c/drivers/ina3221x", "ina3221x", 0)


def _made(make: _Make, files: Path, driver: str, number: int) -> list[_Found]:
    """Return what a driver shows; a file beside the number that cannot be read ends this device, not the others."""
    found: list[_Found] = []
    try:
        found.extend(make(files, driver, number))
    except (OSError, ValueError) as error:
        why = f"{files.name} ({driver}): {sysfs.why(error)}"
        found.append(Refused(why, "check the kernel's log, then run again"))
    return found


def _address(folder: Path) -> tuple[str, int]:
    device = folder / "device"
    return os.path.realpath(device) if device.exists() else "", int("0" + folder.name.removeprefix("hwmon"))


def _power_files(folder: Path) -> Iterator[Path]:
    for pattern in _POWER_FILES:
        yield from folder.glob(pattern)


def _label(folder: Path, name: str) -> str:
    return sysfs.read_text(folder / name) if (folder / name).exists() else ""


def _amd(files: Path, driver: str, _number: int) -> Iterator[_Found]:
    """Read sockets. Both drivers pick a socket's CPU by NUMA node, which repeats one socket where nodes are more."""
    nodes = len(list((host.sysfs_root() / "devices/system/node").glob("node[0-9]*")))
    labels = [(file, _label(files, file.name.replace("_input", "_label"))) for file in files.glob("energy*_input")]
    sockets = {int(m[1]): file for file, text in labels if (m := re.fullmatch(r"Esocket(\d{1,3})", text))}
    for number, file in sorted(sockets.items()):
        name = f"package-{number}"
        if number and nodes != len(sockets):
            why = f"{name}: {driver} takes NUMA nodes for sockets, and {nodes} nodes are not {len(sockets)} sockets"
            yield Refused(why, "use RAPL: --meter rapl-perf or --meter rapl-powercap", name)
        else:
            yield _counter(name, "package", "amd-rapl", driver, file, 0.001 if driver == "amd_energy" else None)


def _intel_gpu(files: Path, driver: str, number: int) -> Iterator[_Found]:
    """Read the card (channel 1), else its package; Documentation/ABI/testing/sysfs-driver-intel-xe-hwmon."""
    for channel, part in ((1, "the card"), (2, "the package of the card, without the rest of the board")):
        if (files / f"energy{channel}_input").exists():
            yield _counter(
                f"gpu-{number}", "gpu", "intel-gpu", driver, files / f"energy{channel}_input", None, note=part
            )
            return


def _amdgpu(files: Path, driver: str, number: int) -> Iterator[_Found]:
    """Read a board. amdgpu_pm.c: of APUs only Vangogh (labels fastPPT, slowPPT) and MI300A have a power limit."""
    label = _label(files, "power1_label")
    if not any(_power_files(files)):
        return
    if not (files / "power1_cap").exists() or label in ("fastPPT", "slowPPT"):
        why = f"{files.name}: amdgpu of a processor with graphics (APU): its power covers parts of the processor too"
        yield Refused(why, "the package domain of RAPL holds it: --meter rapl-perf or --meter rapl-powercap")
        return
    yield _power(f"gpu-{number}", "gpu", "amdgpu", driver, _power1(files))


def _acpi(files: Path, driver: str, number: int) -> Iterator[_Found]:
    """Read an ACPI power meter: an average over ``power1_average_interval`` ms."""
    if _label(files, "power1_is_battery") == "1":
        yield Refused(f"{files.name}: the ACPI meter is of a battery", "use the battery reader: --meter battery")
        return
    label = _label(files, "power1_oem_info")
    interval = files / "power1_average_interval"
    tick_s = sysfs.read_count(interval, 10**7) / 1000 if interval.exists() else None
    note = f"average over {tick_s:g} s" if tick_s else None
    grace = _GRACE.fullmatch(label)
    if grace is None:
        yield _power(f"chassis-{number}", "chassis", "acpi-power-meter", driver, _power1(files), tick_s, note=note)
        return
    name, scope, parent, covers = _GRACE_DOMAINS[grace[1]]
    yield _power(
        name.format(grace[2]), scope, "acpi-power-meter", driver, _power1(files), tick_s,
        parent=parent and parent.format(grace[2]), note="; ".join(filter(None, (covers, note))) or None,
    )  # fmt: skip


def _ina3221(files: Path, driver: str, _number: int) -> Iterator[_Found]:
    for channel in _INA_CHANNELS:
        label = _label(files, f"in{channel}_label")
        volts, amperes = files / f"in{channel}_input", files / f"curr{channel}_input"
        if label not in _UNCONNECTED and volts.exists() and amperes.exists():
            yield _rail(label, driver, (volts, amperes), _MICRO)


def _tegra(chips: Path, driver: str, _number: int) -> Iterator[_Found]:
    """Read the same chip under NVIDIA's older kernels (JetPack 4): power in mW, and a file for the rail's name."""
    for pattern in ("*/iio:device*", "*/iio_device"):
        for folder in sorted(chips.glob(pattern)):
            for channel in range(len(_INA_CHANNELS)):
                file = folder / f"in_power{channel}_input"
                label = _label(folder, f"rail_name_{channel}") if file.exists() else ""
                if label not in _UNCONNECTED:
                    yield _rail(label, driver, (file,), _MILLI)


def _rail(label: str, driver: str, files: tuple[Path, ...], watts: Fraction) -> Sensor:
    if label in _MODULE_RAILS:
        return _power("module", "module", "ina3221", driver, files, watts=watts, note=f"rail {label}")
    return _power(f"rail-{_slug(label)}", "rail", "ina3221", driver, files, watts=watts, parent="module")


def _regulators(files: Path, driver: str, number: int) -> Iterator[_Found]:
    for file in sorted(files.glob("power*_input")):
        label = re.sub(r"^power\d+ ", "", _label(files, file.name.replace("_input", "_label")))
        scope = next((s for text, s in _REGULATORS if text in label.lower()), "rail")
        name = f"package-{number}:{_slug(label or file.name)}"
        yield _power(name, scope, "regulator", driver, (file,), note=f"the regulator {label[:32]!r}")


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", label.lower()[:40]).strip("_")


def _power1(files: Path) -> tuple[Path]:
    average = files / "power1_average"
    return (average if average.exists() else files / "power1_input",)


def _counter(
    domain: str, scope: str, grade: str, driver: str, file: Path, tick_s: float | None, *, note: str | None = None
) -> Sensor:
    window_s = 1.0 if tick_s is not None else 10.0  # an unknown update period is taken for 0.1 s
    frozen_s = None if scope == "gpu" else window_s  # a board that sleeps draws nothing the counter sees
    fact = MeterFact(
        domain=domain, scope=scope, kind="counter", label="measured", grade=grade, tick_s=tick_s,
        tick_s_missing=_UNKNOWN_TICK if tick_s is None else UNSET, source=f"hwmon {driver}", unit_j=str(_MICRO),
        min_window_s=window_s, tolerance=TOLERANCE, simulated=host.simulated(), only_simulated=True, note=note,
    )  # fmt: skip
    return Sensor(fact, sysfs.CounterFile(domain, file, sysfs.EnergyCounter(_MICRO, frozen_s=frozen_s)))


def _power(
    domain: str, scope: str, grade: str, driver: str, files: tuple[Path, ...], tick_s: float | None = None, *,
    watts: Fraction = _MICRO, parent: str | None = None, note: str | None = None,
) -> Sensor:  # fmt: skip
    fact = MeterFact(
        domain=domain, scope=scope, kind="gauge", label="measured", grade=grade, tick_s=tick_s,
        tick_s_missing=_UNKNOWN_TICK if tick_s is None else UNSET, source=f"hwmon {driver}, polled",
        unit_j=integral_unit_j(watts), min_window_s=_window_s(scope, tick_s),
        tolerance=TOLERANCE, parent=parent, simulated=host.simulated(), only_simulated=True, note=note,
    )  # fmt: skip
    return Sensor(fact, files=files, most=int(MAX_GAUGE_W / watts))


def _window_s(scope: str, tick_s: float | None) -> float:
    if scope == "chassis" and tick_s is None:
        return _BMC_WINDOW_S
    return max(1.0, 100 * max(GAUGE_PERIOD_S, tick_s or 0.0))


# driver: how to read it, and whether it is a board that NVML would number too
_DRIVERS: dict[str, tuple[_Make, bool]] = {
    "amd_energy": (_amd, False), "zenergy": (_amd, False), "power_meter": (_acpi, False),
    "acpi_power_meter": (_acpi, False), "ina3221": (_ina3221, False), "amdgpu": (_amdgpu, True),
    "xe": (_intel_gpu, True), "i915": (_intel_gpu, True), "apm_xgene": (_regulators, False),
    "smpro_hwmon": (_regulators, False),
}  # fmt: skip
