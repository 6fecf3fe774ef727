"""Memory of a board by process: what the driver says of this one, or why it is not known."""

from __future__ import annotations

import os

import fake_nvml
import pytest
from fake_nvml import Board, steady

from perjoule import memory
from perjoule.records import UNSET

PID = os.getpid()
ON_GPU = memory.Holder(device="cuda:0")


def read(monkeypatch: pytest.MonkeyPatch, *boards: Board, init_error: int | None = None) -> tuple[int | None, object]:
    nvml, _clock = fake_nvml.install(monkeypatch, list(boards), init_error=init_error)
    peak = memory.read_peak(0, "load", holder=ON_GPU)
    assert nvml.inits == nvml.shutdowns
    return peak.gpu_bytes, peak.gpu_bytes_missing


def test_what_this_process_holds_is_told_and_nobody_else_s(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(steady(100), held_bytes={PID: 5 << 30, PID + 1: 7 << 30})
    other = Board(steady(100), held_bytes={PID: 1 << 20})
    assert read(monkeypatch, board) == (5 << 30, UNSET)
    assert read(monkeypatch, other, board) == ((5 << 30) + (1 << 20), UNSET)


@pytest.mark.parametrize(
    ("board", "why"),
    [
        (Board(steady(100), held_bytes={PID + 1: 7}), "lists no process"),
        (Board(steady(100), held_bytes={PID: None}), "does not tell"),
        (Board(steady(100), fails={"processes": fake_nvml.NO_PERMISSION}), "code 4"),
    ],
)
def test_what_is_not_known_is_null_with_the_reason(monkeypatch: pytest.MonkeyPatch, board: Board, why: str) -> None:
    found, reason = read(monkeypatch, board)
    assert found is None
    assert why in str(reason)


def test_without_a_driver_that_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    found, reason = read(monkeypatch, init_error=fake_nvml.LIBRARY_NOT_FOUND)
    assert found is None
    assert "code 12" in str(reason)


def test_on_the_processor_no_driver_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml, _clock = fake_nvml.install(monkeypatch, [Board(steady(100), held_bytes={PID: 5})])
    peak = memory.read_peak(0, "load")
    assert (peak.gpu_bytes, peak.gpu_bytes_missing) == (None, "the engine runs on the CPU")
    assert memory.read_peak(0, "load", holder=memory.Holder(device="GPU.0")).gpu_bytes is None
    assert nvml.inits == 0
