"""Peaks are kept per machine, threads and versions, and measured anew where anything of that differs."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from builders import make_host, make_model
from simulated import use_tree, write_files
from traces import SimulatedClock

from perjoule.records import Peak, Peaks
from perjoule.roofline import NULL_ENGINE, caches, jobs, measure, measured, peaks_for, stored

if TYPE_CHECKING:
    from pathlib import Path

RATE = Peak(unit="ops/s", best=2e11, median=1.9e11, spread_share=0.01, repeats=9, way="a kernel", slower={})
FOUND = jobs.PeaksFound(
    bandwidth=msgspec.structs.replace(RATE, unit="bytes/s"), int8=RATE, fp32=RATE, bf16=None, bf16_missing="none",
)  # fmt: skip


class Machine:
    """Counts how often the kernels run; while they do, ``others_s`` of somebody else's CPU time pass."""

    def __init__(self, proc: Path) -> None:
        self.proc, self.clock = proc, SimulatedClock()
        self.answer: jobs.Answer | str = FOUND
        self.asked: list[Any] = []
        self.others_s = [0.0]
        self.busy_s = 0.0
        self.write()

    def write(self) -> None:
        ticks = round(self.busy_s * os.sysconf("SC_CLK_TCK"))
        (self.proc / "stat").write_text(f"cpu {ticks} 0 0 4 0 0 0 0 0 0\n")

    def ask(self, job: Any) -> jobs.Answer | str:
        self.asked.append(job)
        self.clock.advance(2.0)
        self.busy_s += self.others_s[min(len(self.asked), len(self.others_s)) - 1]
        self.write()
        return self.answer


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    use_tree(tmp_path, monkeypatch)
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    found = Machine(tmp_path / "proc")
    monkeypatch.setattr(measured, "ask", found.ask)
    return found


def peaks(machine: Machine, threads: int = 2, **options: Any) -> Peaks:
    found = measure(make_host(), threads, clock=machine.clock, **options)
    assert isinstance(found, Peaks)
    return found


def test_a_second_call_does_not_measure_again(machine: Machine):
    first = peaks(machine)
    assert (first.threads, first.int8, first.disturbed) == (2, RATE, None)
    assert peaks(machine) == first
    assert len(machine.asked) == 1
    assert peaks(machine, refresh=True).int8 == RATE
    assert len(machine.asked) == 2


def test_a_later_lower_reading_does_not_take_a_peak_away(machine: Machine):
    """Neighbours of a guest take bandwidth that nothing here shows."""
    peaks(machine)
    low = msgspec.structs.replace(RATE, best=1e11, median=1e11)
    high = msgspec.structs.replace(RATE, best=3e11, median=2e11)
    machine.answer = msgspec.structs.replace(FOUND, int8=low, fp32=high)
    again = peaks(machine, refresh=True)
    assert (again.int8, again.fp32) == (RATE, high)
    assert peaks(machine) == again


def test_other_threads_and_other_machines_have_their_own(machine: Machine):
    peaks(machine)
    assert peaks(machine, threads=1).threads == 1
    assert len(machine.asked) == 2
    assert isinstance(measure(make_host(machine_id="fedcba987654"), 2, clock=machine.clock), Peaks)
    assert len(machine.asked) == 3


@pytest.mark.parametrize("where", ["runtime", "kernels"])
def test_peaks_of_older_versions_are_not_used(machine: Machine, monkeypatch: pytest.MonkeyPatch, where: str):
    peaks(machine)
    if where == "runtime":
        monkeypatch.setattr(measured, "runtime_version", lambda: "onnxruntime 99, numpy 2")
    else:
        monkeypatch.setattr(stored, "KERNELS", jobs.KERNELS + 1)
    peaks(machine)
    assert len(machine.asked) == 2


@pytest.mark.parametrize("damage", ["", "{", "[" * 5000, "{}", "null"])
def test_a_damaged_file_is_measured_anew_and_replaced(machine: Machine, tmp_path: Path, damage: str):
    first = peaks(machine)
    [path] = (tmp_path / "cache" / "roofline").iterdir()
    path.write_text(damage)
    assert peaks(machine).int8 == first.int8
    assert json.loads(path.read_text())["schema"] == "perjoule.roofline"
    assert len(machine.asked) == 2


def test_a_file_under_another_name_is_not_this_machine(machine: Machine, tmp_path: Path):
    peaks(machine, threads=1)
    [path] = (tmp_path / "cache" / "roofline").iterdir()
    data = path.read_bytes()
    peaks(machine, threads=2)
    [other] = [p for p in path.parent.iterdir() if p != path]
    other.write_bytes(data)
    assert peaks(machine, threads=2).threads == 2
    assert len(machine.asked) == 3


def test_a_disturbed_measurement_is_repeated_once_and_kept_only_if_it_was_quiet(machine: Machine):
    machine.others_s = [1.0, 0.0]
    assert peaks(machine).disturbed is None
    assert len(machine.asked) == 2
    machine.others_s = [1.0]
    noisy = peaks(machine, refresh=True)
    assert "other processes used" in str(noisy.disturbed)
    assert len(machine.asked) == 4
    assert peaks(machine).disturbed is None, "the quiet one is still there"


def test_a_made_up_machine_is_not_kept(machine: Machine, tmp_path: Path):
    assert isinstance(measure(make_host(simulated=True), 2, clock=machine.clock), Peaks)
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written_is_told(machine: Machine, tmp_path: Path):
    (tmp_path / "cache").write_text("a file")
    told: list[str] = []
    peaks(machine, tell=told.append)
    assert "cannot be kept" in told[-1]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("it crashed", "it crashed"), (jobs.WorkDone(rounds=3, round_s=0.1), "another question")],
)
def test_a_process_that_fails_is_a_reason(machine: Machine, answer: jobs.Answer | str, reason: str):
    machine.answer = answer
    found = measure(make_host(), 2, clock=machine.clock)
    assert isinstance(found, str)
    assert reason in found


def test_what_has_no_peak_is_not_measured(machine: Machine):
    assert peaks_for(make_model(parameters=0), "cpu", make_host(), 2) == NULL_ENGINE
    assert "cuda" in str(peaks_for(make_model(), "cuda", make_host(), 2))
    assert machine.asked == []


def add_cache(root: Path, cpu: int, index: int, **files: int | str) -> None:
    write_files(root / "sys/devices/system/cpu" / f"cpu{cpu}" / "cache" / f"index{index}", **files)


def test_each_last_level_cache_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    use_tree(tmp_path, monkeypatch)
    assert caches.last_level_bytes() is None
    for cpu in range(4):
        add_cache(tmp_path, cpu, 0, level=1, type="Data", size="32K", shared_cpu_list=cpu)
        add_cache(tmp_path, cpu, 3, level=3, type="Unified", size="32768K", shared_cpu_list="0-1" if cpu < 2 else "2-3")
    add_cache(tmp_path, 5, 3, level=3, type="Unified", size="odd", shared_cpu_list="5")
    assert caches.last_level_bytes() == 2 * 32 * 2**20


def test_the_buffer_is_several_times_the_caches_and_fits_the_memory(monkeypatch: pytest.MonkeyPatch):
    import psutil  # noqa: PLC0415 - to be replaced

    class Memory:
        available = 64 * 2**30

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    assert caches.buffer_bytes(None) == 2**27
    assert caches.buffer_bytes(2**26) == 2**28
    assert caches.buffer_bytes(2**40) == 2**31
    Memory.available = 2**29
    assert caches.buffer_bytes(2**26) == 2**26
