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


def add_domain(powercap: Path, folder: str, name: str, energy_uj: int | str = 1000) -> Path:
    """Add one RAPL domain and return its counter file."""
    domain = powercap / folder
    domain.mkdir()
    (domain / "name").write_text(f"{name}\n")
    (domain / "max_energy_range_uj").write_text(f"{WRAP_UJ}\n")
    counter = domain / "energy_uj"
    counter.write_text(f"{energy_uj}\n")
    return counter
