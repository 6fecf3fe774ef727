"""One measurement at a time: others wait or give up, of whatever user, and a killed holder holds nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from perjoule import lock
from perjoule.cli import main
from perjoule.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator

NULL = ["run", "--backend", "null", "--set", "new_tokens=4", "--set", "prompt_tokens=8", "--set", "min_processes=1",
        "--set", "requests_per_process=1", "--set", "max_warmup_requests=1", "--time-budget", "0.01"]  # fmt: skip
QUICK = [*NULL, "--set", "backend.ttft_s=0.002", "--set", "backend.itl_s=0.001"]
SLOW = [*NULL, "--set", "backend.ttft_s=30"]
NOBODY = 65534


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERJOULE_LOCK", str(tmp_path / "lock"))
    return tmp_path / "lock"


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "perjoule", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def says(process: subprocess.Popen[str], text: str) -> str:
    """Wait until the process has said something on its standard error; return the line."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    pytest.fail(f"it ended before it said {text!r}")


def test_a_second_run_waits_for_the_first_and_then_measures(tmp_path: Path):
    with started(*SLOW, "--out", str(tmp_path / "a")) as first:
        says(first, "process 1")
        with started(*QUICK, "--out", str(tmp_path / "b")) as second:
            line = says(second, "holds this machine")
            assert line.startswith(f"another perjoule (process {first.pid}, measuring since ")
            assert line.rstrip().endswith("; waiting")
            assert not (tmp_path / "b" / ".unfinished").exists()
            first.send_signal(signal.SIGINT)
            _out, errors = second.communicate(timeout=60)
        assert "waiting" not in errors, "said once"
        assert second.returncode == 0
    assert len(list((tmp_path / "b").glob("*.json"))) == 1


def test_who_does_not_want_to_wait_is_told_who_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with started(*SLOW, "--out", str(tmp_path / "a")) as first:
        says(first, "process 1")
        assert main([*QUICK, "--no-wait", "--out", str(tmp_path / "b")]) == 2
        error, hint = capsys.readouterr().err.splitlines()
    assert f"process {first.pid}" in error
    assert "perjoule run quickstart" in hint
    assert str(tmp_path) not in hint


def test_ctrl_c_ends_the_waiting(tmp_path: Path):
    with started(*SLOW, "--out", str(tmp_path / "a")) as first:
        says(first, "process 1")
        with started(*QUICK, "--out", str(tmp_path / "b")) as second:
            says(second, "waiting")
            second.send_signal(signal.SIGINT)
            second.communicate(timeout=60)
        assert second.returncode == 130
        assert first.poll() is None
    assert list((tmp_path / "b").iterdir()) == []


def test_a_killed_holder_holds_nothing_and_its_worker_never_did(tmp_path: Path, path: Path):
    with started(*SLOW, "--out", str(tmp_path / "a")) as first:
        says(first, "process 1")
        [worker] = [c for c in psutil.Process(first.pid).children() if "perjoule.worker" in " ".join(c.cmdline())]
        held = [str(path), str(tmp_path / "a" / ".unfinished")]
        for pid, holds in ((first.pid, True), (worker.pid, False)):
            files = [str(f.readlink()) for f in Path(f"/proc/{pid}/fd").iterdir()]
            assert any(f.startswith(tuple(held)) for f in files) == holds
        first.kill()
        first.wait()
    assert json.loads(path.read_bytes())["pid"] == first.pid, "its name is still there, and says nothing"
    assert main([*QUICK, "--no-wait", "--out", str(tmp_path / "b")]) == 0


HOLD = """
import os, sys
from perjoule.errors import HostError
from perjoule.lock import machine_lock
import perjoule.clock, datetime
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
try:
    with machine_lock("x", wait=False, tell=print):
        print("held")
except HostError as error:
    print(error.message)
"""


def test_another_user_respects_it_and_may_take_it_later(path: Path, monkeypatch: pytest.MonkeyPatch):
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    shared = Path(tempfile.gettempdir()) / f"perjoule-test-{os.getpid()}.lock"  # a folder that both can reach
    monkeypatch.setenv("PERJOULE_LOCK", str(shared))

    def as_nobody() -> str:
        return subprocess.check_output([sys.executable, "-c", HOLD, str(NOBODY)], text=True).strip()

    try:
        with lock.machine_lock("root's", tell=pytest.fail):
            assert f"process {os.getpid()}" in as_nobody()
        assert as_nobody() == "held"
        shared.unlink()
        assert as_nobody() == "held"
        assert shared.stat().st_uid == NOBODY
        with lock.machine_lock("root's again", wait=False, tell=pytest.fail):
            assert f"process {os.getpid()}" in as_nobody()
    finally:
        shared.unlink(missing_ok=True)
    assert not path.exists()


MARK = """
import os, sys, time
from perjoule.lock import machine_lock
for _ in range(5):
    with machine_lock("x", tell=lambda _text: None):
        with open(sys.argv[1], "a") as file:
            file.write("in "); file.flush(); time.sleep(0.005); file.write("out ")
"""


def test_no_two_are_ever_inside_even_if_somebody_removes_the_file(tmp_path: Path, path: Path):
    diary = tmp_path / "diary"
    many = [subprocess.Popen([sys.executable, "-c", MARK, str(diary)]) for _ in range(4)]
    while any(p.poll() is None for p in many):
        time.sleep(0.02)
        remove_if_free(path)  # as a cleaner of temporary files would, while nobody measures
    assert [p.returncode for p in many] == [0] * 4
    assert diary.read_text().split() == ["in", "out"] * 20


def remove_if_free(path: Path) -> None:
    with suppress(HostError), lock.machine_lock("cleaner", wait=False, tell=pytest.fail):
        path.unlink()
