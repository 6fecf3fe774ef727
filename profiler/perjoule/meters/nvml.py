"""NVIDIA boards through NVML: the energy counter of Volta and newer, in millijoules.

Field: nvmlDeviceGetTotalEnergyConsumption of the NVML API reference.
"""

from __future__ import annotations

from typing import Any

from perjoule.clock import MonotonicClock
from perjoule.protocols import Count, Probe
from perjoule.records import MeterFact, MeterRefusal

TICK_S = 0.1  # update period of the counter; NVML power readings are worse, see docs/energy.md
MIN_WINDOW_S = 10.0
_MIG_ENABLED = 1


class NvmlMeter:
    """Reads the energy counter of every board that has one and is not partitioned."""

    def __init__(self) -> None:
        self._clock = MonotonicClock()
        self._nvml: Any = None
        self._boards: dict[str, Any] = {}

    def probe(self) -> Probe:
        try:
            import pynvml  # noqa: PLC0415 - provided by nvidia-ml-py; opens no driver by itself

            pynvml.nvmlInit()
        except Exception as error:  # noqa: BLE001 - a broken driver may raise anything at import
            return Probe(refusals=(_refusal(f"NVML: {error}", "install the NVIDIA driver, if there is a board"),))
        self._nvml = pynvml
        domains, refusals = [], []
        for index in range(pynvml.nvmlDeviceGetCount()):
            board = pynvml.nvmlDeviceGetHandleByIndex(index)
            name = f"gpu-{index}"
            try:
                refused = self._refuse_partitioned(board)
                pynvml.nvmlDeviceGetTotalEnergyConsumption(board)
            except pynvml.NVMLError as error:
                refused = f"{name}: {error}"
            if refused:
                refusals.append(_refusal(refused, "use a board of the Volta generation or newer, without MIG"))
                continue
            self._boards[name] = board
            domains.append(_fact(name))
        return Probe(domains=tuple(domains), refusals=tuple(refusals))

    def _refuse_partitioned(self, board: Any) -> str:
        try:
            mode, _pending = self._nvml.nvmlDeviceGetMigMode(board)
        except self._nvml.NVMLError_NotSupported:
            return ""  # boards without MIG are whole
        return "MIG is on: the board's energy cannot be attributed to a part" if mode == _MIG_ENABLED else ""

    def open(self) -> None:
        """The library was opened by ``probe``."""

    def read(self) -> list[Count | MeterRefusal]:
        readings: list[Count | MeterRefusal] = []
        for domain, board in self._boards.items():
            before_ns = self._clock.now_ns()
            try:
                count = int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(board))
            except self._nvml.NVMLError as error:
                readings.append(_refusal(f"{domain}: {error}", "the board was reset or lost during the run"))
                continue
            readings.append(Count(domain=domain, count=count, before_ns=before_ns, after_ns=self._clock.now_ns()))
        return readings

    def close(self) -> None:
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = None


def _fact(name: str) -> MeterFact:
    return MeterFact(
        domain=name, scope="gpu board", kind="counter", label="measured", grade="nvml", tick_s=TICK_S,
        source="NVML total energy", unit_j="1/1000", wrap_count=None, min_window_s=MIN_WINDOW_S,
    )  # fmt: skip


def _refusal(reason: str, fix: str) -> MeterRefusal:
    return MeterRefusal(meter="nvml", reason=reason, fix=fix)
