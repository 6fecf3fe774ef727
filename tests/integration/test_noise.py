"""A machine that is not quiet: real processes work beside a run, which marks it, and can say who they are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from perjoule import store
from perjoule.cli import main
from perjoule.clock import MonotonicClock
from perjoule.noise import Lookout, Watch, changes, who
from perjoule.records import UNSET
from perjoule.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perjoule.records import RunResult

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names and pressure come from procfs")

PACED = [
    "--set", "backend.ttft_s=0.2", "--set", "backend.itl_s=0.02", "--set", "new_tokens=16",
    "--set", "prompt_tokens=32", "--time-budget", "1",
]  # fmt: skip
NAME = "half-busy"
BUSY = f"""
import time
open("/proc/self/comm", "w").write("{NAME}")
end = time.monotonic() + 120
while time.monotonic() < end:
    until = time.monotonic() + 0.02
    while time.monotonic() < until:
        pass
    time.sleep(0.02)
"""
# half the time on one core of twenty, at least one: more than 2 % of all cores wherever this runs
LOADS = -(-(os.cpu_count() or 1) // 10)


@contextmanager
def busy_machine() -> Iterator[None]:
    """Keep cores busy half the time with processes that are not below this one: their parents have ended."""
    start = ["sh", "-c", '"$0" -c "$1" >/dev/null 2>&1 & echo $!', sys.executable, BUSY]
    pids = [int(subprocess.run(start, check=True, capture_output=True, text=True).stdout) for _ in range(LOADS)]
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunResult]:
    """Return a result of a run beside the load, which goes on meanwhile."""
    out = tmp_path_factory.mktemp("noise")
    with busy_machine():
        assert main(["run", "quickstart", "--backend", "null", "--out", str(out), *PACED]) == 0
        [path] = out.glob("*.json")
        yield store.load(path)


def test_requests_beside_a_load_are_marked_and_the_result_is_not_publishable(disturbed: RunResult):
    reasons = [w.rejected for w in disturbed.windows if w.rejected]
    assert len(reasons) > len(disturbed.windows) / 2
    assert all("of all cores (limit " in reason for reason in reasons)
    checks = {check.code: check for check in disturbed.checks}
    assert checks["noisy_host"].severity == "invalid"
    assert "other processes used" in checks["noisy_host"].message
    assert not disturbed.publishable
    assert verify(disturbed) == []


def test_the_load_is_named_on_the_terminal_and_counted_in_the_result(disturbed: RunResult):
    first = next(w.process for w in disturbed.windows if w.rejected)
    [record] = [p for p in disturbed.processes if p.process == first]
    notes: list[str] = []
    for _ in range(25):  # on a machine that others use as well it is not among the busiest three at once
        seen = Lookout(MonotonicClock(), notes.append).after(record, disturbed.windows)
        if NAME in notes[-1]:
            break
    assert f"{NAME} (" in notes[-1]
    assert seen.others_count is not UNSET
    assert seen.others_count >= 1
    assert NAME not in repr(seen)


def test_what_is_below_this_process_is_not_others(disturbed: RunResult):
    assert disturbed.processes
    with subprocess.Popen([sys.executable, "-c", BUSY.replace(NAME, "our-own")]) as child:
        try:
            names = [name for name, _ in who([os.getpid()], MonotonicClock(), 1.0)]
        finally:
            child.kill()
    assert names
    assert "our-own" not in names


def test_every_window_says_what_was_watched_or_why_not(disturbed: RunResult):
    fields = {
        "throttle_count", "swap_pages", "freq_hz", "clock_jump_s",
        "pressure_cpu_s", "pressure_memory_s", "pressure_io_s",
    }  # fmt: skip
    windows = [w for w in disturbed.windows if w.phase in ("prefill", "decode")]
    assert windows
    for process in disturbed.processes:
        lost = {} if process.unwatched is UNSET else process.unwatched
        assert all(lost.values())
        for window in (w for w in windows if w.process == process.process):
            there = {name for name in fields if getattr(window, name) is not UNSET}
            assert there | set(lost) == fields
            assert window.cpu_tick_s == 1 / os.sysconf("SC_CLK_TCK")


def test_the_real_kernel_is_read_without_a_child_and_without_leaks():
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the kernel's list, not a folder of ours
    with Watch(MonotonicClock()) as watch:
        looks = [watch.look() for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    for earlier, later in pairwise(looks):
        found = changes(earlier, later)
        assert abs(found["clock_jump_s"]) < 0.05
        assert found.get("swap_pages", 0) >= 0
