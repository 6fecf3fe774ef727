"""Who disturbs: a made-up procfs, in which time passes only while the look sleeps."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from builders import make_process
from simulated import use_tree
from traces import SimulatedClock

from perjoule.noise import Lookout, who
from perjoule.noise.who import told
from perjoule.records import UNSET

if TYPE_CHECKING:
    from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count() or 1


class Crowd(SimulatedClock):
    """Processes with their share of one core; they use it while somebody sleeps."""

    def __init__(self, proc: Path) -> None:
        super().__init__()
        self.proc = proc
        self.loads: dict[int, tuple[str, int, float]] = {}
        self.passed_s = 0.0

    def add(self, pid: int, name: str, share: float, parent: int = 1) -> None:
        self.loads[pid] = (name, parent, share)
        self.write()

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.passed_s += seconds
        self.write()

    def write(self) -> None:
        for pid, (name, parent, share) in self.loads.items():
            (self.proc / str(pid)).mkdir(exist_ok=True)
            used = round(share * self.passed_s * TICKS)
            fields = f"S {parent} 1 1 0 -1 4194304 10 0 0 0 {used} {used - used} 0 0 20 0 1 0 777 1000 10"
            (self.proc / str(pid) / "stat").write_text(f"{pid} ({name}) {fields}\n")


@pytest.fixture
def crowd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crowd:
    use_tree(tmp_path, monkeypatch)
    return Crowd(tmp_path / "proc")


def test_the_busiest_are_named_and_our_own_tree_is_not(crowd: Crowd):
    crowd.add(10, "perjoule", 1.0)
    crowd.add(11, "worker", 2.0, parent=10)
    crowd.add(12, "sensor", 1.0, parent=11)
    for pid, share in ((20, 0.5), (21, 1.0), (22, 0.2), (23, 0.3), (24, 0.0)):
        crowd.add(pid, f"load {pid}", share)
    found = who([10], crowd)
    assert [name for name, _ in found] == ["load 21", "load 20", "load 23"]
    assert found[0][1] == pytest.approx(1.0 / CORES)


@pytest.mark.parametrize("name", ["a) S 1 (b", "(sd-pam)", "two words", ""])
def test_a_name_may_hold_anything(crowd: Crowd, name: str):
    crowd.add(20, name, 1.0)
    [(seen, share)] = who([10], crowd)
    assert seen == (name or "?")
    assert share == pytest.approx(1.0 / CORES)


def test_a_name_cannot_write_to_the_terminal(crowd: Crowd):
    crowd.add(20, "\x1b[2J\x07evil", 1.0)
    assert "?[2J?evil" in told(who([10], crowd))


def test_what_is_no_process_and_what_has_gone_is_passed_over(crowd: Crowd):
    crowd.add(20, "load", 1.0)
    (crowd.proc / "21").mkdir()
    (crowd.proc / "22").mkdir()
    (crowd.proc / "22" / "stat").write_text("22 (half")
    assert [name for name, _ in who([10], crowd)] == ["load"]


def test_it_is_looked_once_and_only_when_others_disturbed(crowd: Crowd):
    crowd.add(20, "secret-project", 1.0)
    notes: list[str] = []
    lookout = Lookout(crowd, notes.append)
    quiet, hot, noisy = (make_process(0, rejected=r) for r in (None, "it got too hot", "other processes used 9%"))
    for run in (quiet, hot):
        assert lookout.after(run.record, run.windows) == run.record
    record = lookout.after(noisy.record, noisy.windows)
    assert record.others_count == 1
    assert record.others_cpu_share == pytest.approx(1.0 / CORES)
    assert "secret" not in repr(record)
    assert lookout.after(noisy.record, noisy.windows).others_count is UNSET
    assert notes == [f"disturbed by secret-project ({1 / CORES:.0%} of all cores)"]


def test_a_load_that_cannot_be_seen_is_said(crowd: Crowd):
    noisy = make_process(0, rejected="other processes used 9%")
    notes: list[str] = []
    assert Lookout(crowd, notes.append).after(noisy.record, noisy.windows).others_count == 0
    assert "no process that is seen from here" in notes[0]
