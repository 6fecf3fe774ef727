"""The kernels on the real machine: relations that hold anywhere, no speed."""

from __future__ import annotations

import math
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from perjoule import host
from perjoule.records import Peak, Peaks
from perjoule.roofline import jobs, measure, process

if TYPE_CHECKING:
    from pathlib import Path

THREADS = 2
# Other tests may have the cores meanwhile: an unlucky best of one kind may be half of what it would be alone.
UNLUCKY = 0.5


def test_peaks_are_plausible_and_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path))
    machine = host.read_host({})
    found = measure(machine, THREADS)
    assert isinstance(found, Peaks), found
    named = {name: getattr(found, name) for name in ("bandwidth", "int8", "fp32", "bf16")}
    peaks: dict[str, Peak] = {name: peak for name, peak in named.items() if peak is not None}
    assert {"bandwidth", "int8", "fp32"} <= set(peaks), found
    for peak in peaks.values():
        assert math.isfinite(peak.spread_share)
        assert all(0 < rate <= peak.best for rate in peak.slower.values())
        assert peak.repeats >= 15
    assert peaks["int8"].best >= UNLUCKY * peaks["fp32"].best
    assert found.bf16 is not None or "MatMul" in str(found.bf16_missing)
    # a number that is read costs more than one operation on it in any machine that is built today
    assert peaks["fp32"].best > peaks["bandwidth"].best / 4
    if found.disturbed is None:  # else it is measured anew the next time
        assert measure(machine, THREADS) == found


def test_without_onnxruntime_numpy_gives_bandwidth_and_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('not installed')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = process.ask(jobs.PeaksJob(threads=THREADS, buffer_bytes=1 << 26))
    assert isinstance(found, jobs.PeaksFound), found
    assert found.bandwidth is not None
    assert "numpy" in found.bandwidth.way
    assert found.fp32 is not None
    assert "numpy" in found.fp32.way
    assert found.int8_missing == found.bf16_missing == "onnxruntime cannot be used: not installed"


def test_the_same_work_is_done_as_often_as_asked():
    first = process.ask(jobs.WorkJob(threads=THREADS, buffer_bytes=1 << 24, rounds=0, seconds=0.05))
    assert isinstance(first, jobs.WorkDone), first
    assert first.rounds >= 3
    again = process.ask(jobs.WorkJob(threads=THREADS, buffer_bytes=1 << 24, rounds=7, seconds=0.0))
    assert isinstance(again, jobs.WorkDone), again
    assert again.rounds == 7
    assert again.round_s > 0


def test_a_library_that_prints_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "onnxruntime.py").write_text("print('hello from the library')\nraise ImportError('no')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = process.ask(jobs.PeaksJob(threads=1, buffer_bytes=1 << 22))
    assert isinstance(found, jobs.PeaksFound), found


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("raise SystemExit('no memory left')", "ended with status 1: no memory left"),
        ("print('nonsense')", "answered nonsense"),
        ("import threading; threading.Event().wait()", "said nothing for 2 s"),
    ],
)
def test_a_process_that_fails_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str):
    interpreter, body = tmp_path / "python", tmp_path / "body.py"
    body.write_text(script)
    # through the shell: the first line of a script cannot hold an interpreter whose path has a space
    interpreter.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(body))}\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(process.sys, "executable", str(interpreter))
    found = process.ask(jobs.WorkJob(threads=1, buffer_bytes=1 << 22, rounds=3, seconds=0.0), limit_s=2.0)
    assert isinstance(found, str)
    assert reason in found


def test_a_process_that_cannot_be_started_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process.sys, "executable", str(tmp_path / "nothing"))
    assert "cannot be started" in str(process.ask(jobs.WorkJob(threads=1, buffer_bytes=1, rounds=3, seconds=0.0)))


def test_the_parent_imports_no_engine():
    modules = "sys, perjoule.roofline, perjoule.noise_floor"
    code = f"import {modules}; print({{'numpy', 'onnxruntime', 'onnx', 'scipy'}} & set(sys.modules))"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "set()"
