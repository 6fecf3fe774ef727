"""kill -9 at any moment, of the parent, its worker or both: results stay whole, and the run can be finished."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from perjoule import store
from perjoule.cli import main
from perjoule.journal import FOLDER, Journal, unfinished
from perjoule.verify import verify

if TYPE_CHECKING:
    from perjoule.records import RunResult

PROCESSES = 2
LOAD = [
    "--threads", "1,2", "--set", "new_tokens=4", "--set", "prompt_tokens=8", "--set", f"min_processes={PROCESSES}",
    "--set", "requests_per_process=1", "--set", "max_warmup_requests=1", "--time-budget", "0.001",
]  # fmt: skip
NULL = ["run", "--backend", "null", "--set", "backend.ttft_s=0.002", "--set", "backend.itl_s=0.001", *LOAD]
SMOLLM2 = ["run", "--model", "smollm2-135m-instruct:q4_1", *LOAD]
VICTIMS = ("parent", "worker", "both")
FEW, MANY, OF_SMOLLM2 = 6, 45, 5
PATIENCE_S = 60.0


@pytest.mark.parametrize(
    "seed", [*range(FEW), *(pytest.param(n, marks=pytest.mark.all_checkpoints) for n in range(FEW, MANY))]
)
def test_a_killed_run_loses_nothing_that_was_finished(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    check_kill(seed, NULL, 1.5, tmp_path, monkeypatch)


@pytest.mark.checkpoint
@pytest.mark.all_checkpoints
@pytest.mark.parametrize("seed", range(OF_SMOLLM2))
def test_so_does_one_of_a_real_model(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    check_kill(seed, SMOLLM2, 6.0, tmp_path, monkeypatch)


def check_kill(seed: int, command: list[str], within_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_LOCK", str(tmp_path / "lock"))
    out, victim, chance = tmp_path / "out", VICTIMS[seed % len(VICTIMS)], random.Random(seed)
    code = run_and_kill(command, out, victim, chance.uniform(0, within_s))
    wait_until_nothing_is_left_of(tmp_path)
    assert_whole(out)
    before = finished_processes(out)
    if unfinished(out):
        assert main(["run", "--resume", str(out)]) == 0
    elif not complete(out):
        assert victim == "worker"
        assert (code, before) == (4, {}), "nothing was finished, so nothing is kept"
        assert main([*command, "--out", str(out)]) == 0
    assert_whole(out)
    assert not (out / FOLDER).exists()
    found = complete(out)
    assert sorted(r.backend.requested_options["threads"] for r in found) == [1, 2], "one result per configuration"
    for result in found:
        kept = before.get(result.backend.requested_options["threads"], {})
        now = {p.process: of_process(result, p.process) for p in result.processes}
        assert {n: now[n] for n in kept} == kept, "what was finished was not measured again"


def run_and_kill(command: list[str], out: Path, victim: str, after_s: float) -> int:
    """Start a run, wait until it measures and a moment more, kill; return the exit code of the parent."""
    words = [sys.executable, "-m", "perjoule", *command, "--out", str(out)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as parent:
        deadline = time.monotonic() + PATIENCE_S
        while not list(out.glob(f"{FOLDER}/*/plan.json")) and parent.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        with suppress(subprocess.TimeoutExpired):
            parent.wait(after_s)
        with suppress(psutil.NoSuchProcess):
            workers = [c.pid for c in psutil.Process(parent.pid).children()]
            pids = {"parent": [parent.pid], "worker": workers, "both": [parent.pid, *workers]}[victim]
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return parent.wait(PATIENCE_S)


def wait_until_nothing_is_left_of(tmp_path: Path) -> None:
    """Wait for workers to follow their parent: each carries this test's folder in its environment."""
    mark = str(tmp_path / "lock").encode()
    deadline = time.monotonic() + PATIENCE_S
    while (left := [p for p in running() if mark in environment(p)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left == [], "an orphan"


def running() -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and int(p.name) != os.getpid()]


def environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""  # it has ended


def assert_whole(out: Path) -> None:
    for path in out.iterdir():
        assert path.suffix == ".json" or path.name == FOLDER, "a left-over"
        if path.suffix == ".json":
            assert verify(store.load(path)) == []


def complete(out: Path) -> list[RunResult]:
    found = [store.load(path) for path in sorted(out.glob("*.json"))]
    return [r for r in found if len(r.processes) >= PROCESSES]


def of_process(result: RunResult, process: int) -> Any:
    return tuple(s for s in result.samples if s.process == process)


def finished_processes(out: Path) -> dict[int, dict[int, Any]]:
    """Return the samples in the journal, by threads and process."""
    found: dict[int, dict[int, Any]] = {}
    for folder in unfinished(out):
        kept, story = Journal.open(folder, pytest.fail)
        kept.close()
        assert story.damaged == ()
        for k, each in story.measured.items():
            threads = story.begun.plan.configurations[k].options.threads
            found[threads] = {m.run.record.process: m.run.samples for m in each}
    return found
