"""A powercap tree laid out as the kernel lays it out, for readers that are not ours.

Zones are folders inside their parents under ``devices/virtual/powercap``; ``class/powercap`` holds one flat link to
each, and ``subsystem`` leads from a control type back to it (Documentation/power/powercap/powercap.rst). Other
readers walk the nested folders, ours the flat links; both see the same files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulated import WRAP_UJ, sysfs_of, write_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

UJ = 1_000_000


class PowercapTree:
    """Zones by their folder's name (``intel-rapl:0:1``); counters move by joules, round their range as real ones do."""

    def __init__(self, powercap: Path) -> None:
        self.powercap = powercap
        self._devices = sysfs_of(powercap) / "devices" / "virtual" / "powercap"
        self._count_uj: dict[str, int] = {}
        self._range_uj: dict[str, int] = {}

    def add(self, zone: str, name: str, count_j: float = 1000.0, range_uj: int = WRAP_UJ) -> None:
        """Add a zone after its parents, with the count it shows now."""
        control, *numbers = zone.split(":")
        if not (self.powercap / control).exists():
            self._link(self._devices / control)
        folder = self._devices / control
        for depth in range(1, len(numbers) + 1):
            folder /= ":".join((control, *numbers[:depth]))
        self._count_uj[zone], self._range_uj[zone] = round(count_j * UJ), range_uj
        write_files(folder, name=name, max_energy_range_uj=range_uj, energy_uj=self._count_uj[zone])
        self._link(folder)

    def spend(self, joules: Mapping[str, float]) -> None:
        """Move counters on; past its range a counter starts at 0 again."""
        for zone, spent_j in joules.items():
            self._show_uj(zone, (self._count_uj[zone] + round(spent_j * UJ)) % (self._range_uj[zone] + 1))

    def show(self, zone: str, count_j: float) -> None:
        """Set a counter, as a reset does."""
        self._show_uj(zone, round(count_j * UJ))

    def counter(self, zone: str) -> Path:
        """Return the counter file, by its real path."""
        return (self.powercap / zone / "energy_uj").resolve()

    def _show_uj(self, zone: str, count_uj: int) -> None:
        self._count_uj[zone] = count_uj
        written = self.counter(zone).with_name("energy_uj.new")
        written.write_text(f"{count_uj}\n")
        written.replace(self.counter(zone))  # a reader in another process never sees half of it

    def _link(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "subsystem").symlink_to(self.powercap)
        (self.powercap / folder.name).symlink_to(folder)
