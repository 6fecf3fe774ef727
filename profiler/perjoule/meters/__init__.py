"""Meters: sensors that count joules, opened together and read at the edges of windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from perjoule import registry
from perjoule.clock import MonotonicClock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from perjoule.protocols import Count, Meter
    from perjoule.records import MeterFact, MeterRefusal

DEFAULT_METERS = ("rapl-powercap", "nvml")


class MeterSet:
    """Every meter that could be opened. ``refusals`` say why the others could not, and what would allow them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._clock = MonotonicClock()
        self._open: list[Meter] = []
        self.facts: list[MeterFact] = []
        self.refusals: list[MeterRefusal] = []
        self._cpu_ns = 0
        for name in names:
            meter: Meter = registry.load("perjoule.meters", name)()
            probe = meter.probe()
            self.refusals += probe.refusals
            if probe.domains:
                meter.open()
                self._open.append(meter)
                self.facts += probe.domains

    @property
    def min_window_s(self) -> float:
        return max((fact.min_window_s for fact in self.facts), default=0.0)

    @property
    def cpu_s(self) -> float:
        """CPU time spent reading, so far."""
        return self._cpu_ns / 1e9

    def read(self) -> list[Count | MeterRefusal]:
        begin_ns = self._clock.cpu_ns()
        readings = [reading for meter in self._open for reading in meter.read()]
        self._cpu_ns += self._clock.cpu_ns() - begin_ns
        return readings

    def close(self) -> None:
        for meter in self._open:
            meter.close()
        self._open.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_meters(names: Sequence[str] | None) -> MeterSet:
    """Open the named meters, or every built-in sensor. Raises ``UsageError`` for an unknown name."""
    return MeterSet(DEFAULT_METERS if names is None else names)
