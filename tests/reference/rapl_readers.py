"""Three RAPL readers over one made-up tree: ours, and the very code of zeus and codecarbon. Joules of one window.

Each is opened before the counters move and asked afterwards. zeus looks where the constant ``RAPL_DIR`` of its module
points; codecarbon takes the folder as an argument.
"""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING

from traces import SimulatedClock

from perjoule.clock import MonotonicClock
from perjoule.meters.counters import CounterSet
from perjoule.meters.powercap import PowercapMeter
from perjoule.meters.readings import readings_between
from perjoule.protocols import Count
from perjoule.records import MeterRefusal, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from reference.powercap_tree import PowercapTree

WINDOW_S = 10.0
J_PER_KWH = 3.6e6
_PATIENCE_S = 30.0


class Ours:
    """The powercap meter and the sum of what it reads, on a simulated clock."""

    def __init__(self) -> None:
        self._clock = SimulatedClock()
        self.meter = PowercapMeter(self._clock)
        self.probe = self.meter.probe()
        self._start_ns, self._start = self._clock.now_ns(), self._read()

    def advance(self, seconds: float) -> None:
        """Let time pass inside the window, and let the meter's poller look once at its end."""
        self._clock.advance(seconds)
        self.meter.poll()

    def joules(self, after_s: float = WINDOW_S) -> float | str:
        """Return the total of the host since the last call, or the reason why there is none."""
        self._clock.advance(after_s)
        end_ns, end = self._clock.now_ns(), self._read()
        window = Window(
            id="0.0/decode", process=0, phase="decode", start_s=self._start_ns / 1e9, end_s=end_ns / 1e9, cpu_s=1.0,
            steal_s=0.0, foreign_cpu_s=0.0, bytes_streamed=1,
            readings=readings_between(self._start, end, self._start_ns, end_ns),
        )  # fmt: skip
        self._start_ns, self._start = end_ns, end
        counted = CounterSet(self.probe.domains, self.probe.refusals, [window])
        parts = counted.incomplete() or counted.parts([window])
        return parts if isinstance(parts, str) else sum(part.joules.value for part in parts)

    def refused(self) -> list[MeterRefusal]:
        """Return what cannot be read now, each with its reason."""
        return [r for r in self.meter.read() if isinstance(r, MeterRefusal)]

    def _read(self) -> dict[str, Count]:
        return {r.domain: r for r in self.meter.read() if isinstance(r, Count)}


class Zeus:
    """A window of ``ZeusMonitor``. Every counter it reads gets a process of its own that looks for wraps."""

    def __init__(self, tree: PowercapTree, patch: pytest.MonkeyPatch) -> None:
        from zeus.device import cpu  # noqa: PLC0415 - only where it is installed
        from zeus.device.cpu import rapl  # noqa: PLC0415
        from zeus.monitor import ZeusMonitor  # noqa: PLC0415

        patch.setattr(rapl, "RAPL_DIR", str(tree.powercap / "intel-rapl"))
        patch.setattr(rapl, "CONTAINER_RAPL_DIR", str(tree.powercap / "nowhere"))
        patch.setattr(cpu, "_cpus", None)
        for name in ("ZEUSD_SOCK_PATH", "ZEUSD_HOST_PORT"):
            patch.delenv(name, raising=False)
        rapl.rapl_is_available.cache_clear()
        self.monitor = ZeusMonitor(gpu_indices=[])
        self.begin()

    def begin(self, window: str = "window") -> None:
        self.monitor.begin_window(window, sync_execution=False)

    def end(self, window: str = "window") -> tuple[dict[int, float] | None, dict[int, float] | None, float]:
        """Return joules by zone of packages and of memory, and what zeus calls the total."""
        seen = self.monitor.end_window(window, sync_execution=False)
        return seen.cpu_energy, seen.dram_energy, seen.total_energy

    def joules(self, window: str = "window") -> float | None:
        """Return the sum of all that it counts as packages and memory; None where it finds no sensor."""
        cpu, dram, _total = self.end(window)
        return None if cpu is None else sum(cpu.values()) + sum((dram or {}).values())

    @property
    def wraps(self) -> int:
        """How many wraps its process has seen; for a tree of one counter."""
        (tracker,) = self._trackers()
        return int(tracker.get_num_wraparounds())

    def pause(self, *, on: bool) -> None:
        """Hold back, or let go, the processes that look for wraps."""
        for tracker in self._trackers():
            os.kill(tracker.process.pid, signal.SIGSTOP if on else signal.SIGCONT)
            if on:
                os.waitpid(tracker.process.pid, os.WUNTRACED)  # until it has stopped

    def until(self, wraps: int, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until its process has seen that many wraps."""
        clock = MonotonicClock()
        until_ns = clock.now_ns() + int(_PATIENCE_S * 1e9)
        while self.wraps < wraps:
            assert clock.now_ns() < until_ns, f"zeus saw {self.wraps} wraps of {wraps}"
            meanwhile()
            clock.sleep(0.05)

    def close(self) -> None:
        for tracker in self._trackers():
            tracker._stop()

    def _trackers(self) -> list:
        files = [file for cpu in self.monitor.cpus.cpus for file in (cpu.rapl_file, cpu.dram) if file is not None]
        return [file._wraparound_tracker for file in files if file._wraparound_tracker is not None]


class Codecarbon:
    """The CPU of codecarbon in its RAPL mode, asked for memory too."""

    def __init__(self, tree: PowercapTree) -> None:
        from codecarbon.external.hardware import CPU  # noqa: PLC0415 - only where it is installed

        logging.getLogger("codecarbon").setLevel(logging.ERROR)
        folder = str(tree.powercap / "intel-rapl" / "subsystem")
        self.cpu = CPU(
            output_dir="", mode="intel_rapl", model="", tdp=1, rapl_dir=folder, rapl_include_dram=True
        )  # fmt: skip
        self.cpu.start()

    def joules(self) -> float:
        """Return what it counts since it was last asked; its factor from J to kWh has six digits."""
        _power, energy = self.cpu.measure_power_and_energy(WINDOW_S)
        return float(energy.kWh) * J_PER_KWH
