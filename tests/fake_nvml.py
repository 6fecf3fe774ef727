"""A made-up `pynvml` with boards whose power is known at every millisecond, on a clock that tests move.

A board looks at its power for ``seen_ms`` of every 100 ms, holds the mean until it looks next, and adds it to its
energy counter; a real one behaves so by arXiv 2312.02741. Nothing of it sleeps.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

UPDATE_MS = 100
NOT_SUPPORTED, NO_PERMISSION, FUNCTION_NOT_FOUND, LOST, RESET_REQUIRED = 3, 4, 13, 15, 16
UNINITIALIZED, DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND = 1, 9, 12
TURING, GA100, AMPERE, ADA, HOPPER, BLACKWELL = (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0)
PASCAL = (6, 1)


class FakeClock:
    """Monotonic time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.at_ns = 5_000_000_000

    def now_ns(self) -> int:
        return self.at_ns

    def cpu_ns(self) -> int:
        return 0

    def sleep(self, seconds: float) -> None:
        self.at_ns += round(seconds * 1e9)

    def utc_now(self) -> datetime:
        return datetime.fromtimestamp(self.at_ns / 1e9, UTC)


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        names = {NOT_SUPPORTED: "Not Supported", LOST: "GPU is lost", RESET_REQUIRED: "GPU requires restart"}
        return names.get(self.value, f"NVML Error with code {self.value}")


@dataclass(eq=False)
class Board:
    """``trace_w``: watts in each millisecond; what lies behind its end is as its last. ``fails``: code by question."""

    trace_w: np.ndarray
    capability: tuple[int, int] = AMPERE
    seen_ms: int = UPDATE_MS
    mig: int | None = None  # None: a board from before MIG
    name: str = "NVIDIA Made-Up 9000"
    memory_bytes: int = 24 << 30
    fails: dict[str, int] = field(default_factory=dict)  # "energy", "instant", "average", "usage", "mig", "handle"
    bias: float = 1.0  # of the counter, against the power that is shown
    reset_at_ms: int | None = None
    counter_start_mj: float = 7_654_321.0
    bus: int | None = None  # its place on the PCI bus; None: as NVML counts
    held_bytes: dict[int, int | None] = field(default_factory=dict)  # memory by process; None: the driver does not tell

    def __post_init__(self) -> None:
        self._sum_mj = np.concatenate(([0.0], np.cumsum(self.trace_w)))  # W x ms
        updates = len(self.trace_w) // UPDATE_MS
        ends = np.arange(1, updates + 1) * UPDATE_MS
        self._seen_w = (self._sum_mj[ends] - self._sum_mj[ends - self.seen_ms]) / self.seen_ms
        self._counted_mj = np.concatenate(([0.0], np.cumsum(self._seen_w * UPDATE_MS)))

    def true_j(self, from_ms: float, to_ms: float) -> float:
        at = np.arange(len(self._sum_mj))
        return float(np.interp(to_ms, at, self._sum_mj) - np.interp(from_ms, at, self._sum_mj)) / 1e3

    def shown_w(self, at_ms: int) -> float:
        """Power as of the last look; before the first one, that of the first millisecond."""
        update = min(at_ms // UPDATE_MS, len(self._seen_w))
        return float(self._seen_w[update - 1]) if update else float(self.trace_w[0])

    def averaged_w(self, at_ms: int) -> float:
        end = min(max(at_ms, 1), len(self.trace_w))
        return float(np.mean(self.trace_w[max(0, end - 1000) : end]))

    def counter_mj(self, at_ms: int) -> int:
        update = min(at_ms // UPDATE_MS, len(self._seen_w))
        if self.reset_at_ms is None or at_ms < self.reset_at_ms:
            return int(self.counter_start_mj + self.bias * self._counted_mj[update])
        return int(self.bias * (self._counted_mj[update] - self._counted_mj[self.reset_at_ms // UPDATE_MS]))


class FakeNvml(ModuleType):
    """The functions and constants of `pynvml` that perjoule uses; others, such as the UUID, do not exist."""

    def __init__(self, boards: list[Board], clock: FakeClock, init_error: int | None = None) -> None:
        super().__init__("pynvml")
        self.NVMLError = NVMLError
        self.inits = self.shutdowns = 0
        self._boards, self._clock, self._init_error = boards, clock, init_error
        self._start_ns = clock.now_ns()

    def nvmlInit(self) -> None:  # noqa: N802 - as NVIDIA names it, here and below
        if self._init_error is not None:
            raise NVMLError(self._init_error)
        self.inits += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self._opened()
        self.shutdowns += 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return self._opened("580.65.06")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self._opened(len(self._boards))

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Board:  # noqa: N802
        return self._answer(self._boards[index], "handle", lambda: self._boards[index])

    def nvmlDeviceGetName(self, board: Board) -> str:  # noqa: N802
        return self._answer(board, "name", lambda: board.name)

    def nvmlDeviceGetMemoryInfo(self, board: Board) -> Any:  # noqa: N802
        return self._answer(board, "memory", lambda: SimpleNamespace(total=board.memory_bytes, used=1, free=2))

    def nvmlDeviceGetPciInfo(self, board: Board) -> Any:  # noqa: N802
        bus = self._boards.index(board) if board.bus is None else board.bus
        return self._answer(board, "pci", lambda: SimpleNamespace(domain=0, bus=bus, device=0))

    def nvmlDeviceGetComputeRunningProcesses(self, board: Board) -> list[Any]:  # noqa: N802
        held = [SimpleNamespace(pid=pid, usedGpuMemory=count) for pid, count in board.held_bytes.items()]
        return self._answer(board, "processes", lambda: held)

    def nvmlDeviceGetCudaComputeCapability(self, board: Board) -> tuple[int, int]:  # noqa: N802
        return self._answer(board, "capability", lambda: board.capability)

    def nvmlDeviceGetMigMode(self, board: Board) -> list[int]:  # noqa: N802
        if board.mig is None:
            raise NVMLError(NOT_SUPPORTED)
        return self._answer(board, "mig", lambda: [board.mig, board.mig])

    def nvmlDeviceGetTotalEnergyConsumption(self, board: Board) -> int:  # noqa: N802
        return self._answer(board, "energy", lambda: board.counter_mj(self._at_ms()))

    def nvmlDeviceGetPowerUsage(self, board: Board) -> int:  # noqa: N802
        averaged = board.capability > GA100
        shown = board.averaged_w if averaged else board.shown_w
        return self._answer(board, "usage", lambda: round(shown(self._at_ms()) * 1e3))

    def nvmlDeviceGetFieldValues(self, board: Board, fields: list[tuple[int, int]]) -> list[Any]:  # noqa: N802
        """Succeed as a whole; a field that fails says so in its ``nvmlReturn`` alone, and its value means nothing."""
        self._answer(board, "fields", lambda: None)
        return [self._field(board, *asked) for asked in fields]

    def _field(self, board: Board, field_id: int, scope: int) -> Any:
        question, shown = {185: ("average", board.averaged_w), 186: ("instant", board.shown_w)}[field_id]
        code, value = board.fails.get(question, 0), 123_456
        if scope != 0 or (question == "average" and board.capability <= GA100):
            code = NOT_SUPPORTED
        if not code:
            value = round(shown(self._at_ms()) * 1e3)
        return SimpleNamespace(
            fieldId=field_id, scopeId=scope, nvmlReturn=code, valueType=1, value=SimpleNamespace(uiVal=value)
        )

    def _answer(self, board: Board, question: str, answer: Callable[[], Any]) -> Any:
        self._opened()
        code = board.fails.get(question, board.fails.get("all"))
        if code is not None:
            raise NVMLError(code)
        return answer()

    def _opened(self, answer: Any = None) -> Any:
        if self.inits <= self.shutdowns:
            raise NVMLError(UNINITIALIZED)
        return answer

    def _at_ms(self) -> int:
        return (self._clock.now_ns() - self._start_ns) // 1_000_000


def install(
    patch: pytest.MonkeyPatch, boards: list[Board], *, init_error: int | None = None
) -> tuple[FakeNvml, FakeClock]:
    """Put the made-up module where ``import pynvml`` finds it."""
    clock = FakeClock()
    nvml = FakeNvml(boards, clock, init_error)
    patch.setitem(sys.modules, "pynvml", nvml)
    return nvml, clock


def steady(watts: float, seconds: float = 60.0) -> np.ndarray:
    return np.full(round(seconds * 1000), float(watts))


def bursts(seed: int, seconds: float = 60.0, low_w: float = 80.0, high_w: float = 400.0) -> np.ndarray:
    """Return power that is at one of two levels for 5 to 60 ms at a time: shorter than what a sensor looks at."""
    random = np.random.default_rng(seed)
    lengths = random.integers(5, 60, size=round(seconds * 1000 / 5))
    return np.repeat(random.choice([low_w, high_w], size=len(lengths)), lengths)[: round(seconds * 1000)]
