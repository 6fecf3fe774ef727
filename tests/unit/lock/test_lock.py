"""The machine's lock: held by one, signed, never through another user's link, and nobody's word about it is trusted."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from perjoule import lock
from perjoule.errors import HostError
from perjoule.lock import lock_path, machine_lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


class Clock:
    """Stands still."""

    def __init__(self, utc: datetime = NOON) -> None:
        self.utc = utc

    def now_ns(self) -> int:
        return 0

    def cpu_ns(self) -> int:
        return 0

    def sleep(self, seconds: float) -> None:
        pytest.fail(f"slept {seconds} s")

    def utc_now(self) -> datetime:
        return self.utc


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERJOULE_LOCK", str(tmp_path / "lock"))
    return tmp_path / "lock"


@contextmanager
def held_by_another(path: Path, content: bytes = b"") -> Iterator[None]:
    """Hold the lock as another process would: by an open file of its own."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_free(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def enter(*, clock: Clock | None = None) -> str:
    """Try to hold the machine without waiting; return the refusal in one line."""
    with pytest.raises(HostError) as caught, machine_lock("x", wait=False, tell=pytest.fail, clock=clock or Clock()):
        pytest.fail("it was held")
    return f"{caught.value.message} | {caught.value.hint}"


def test_the_holder_is_named_while_it_holds_and_not_after(path: Path):
    with machine_lock("perjoule run quickstart", tell=pytest.fail, clock=Clock()):
        said = json.loads(path.read_bytes())
        assert said == {"pid": os.getpid(), "since_utc": NOON.isoformat(), "command": "perjoule run quickstart"}
        assert not is_free(path)
    assert path.read_bytes() == b""
    assert is_free(path)


def test_entered_again_it_is_held_until_the_outermost_leaves(path: Path):
    with machine_lock("outer", tell=pytest.fail, clock=Clock()):
        with machine_lock("inner", wait=False, tell=pytest.fail, clock=Clock()):
            assert not is_free(path)
        assert not is_free(path)
        assert json.loads(path.read_bytes())["command"] == "outer"
    assert is_free(path)


def test_an_error_inside_frees_it(path: Path):
    with pytest.raises(ZeroDivisionError), machine_lock("x", tell=pytest.fail, clock=Clock()):
        raise ZeroDivisionError
    assert is_free(path)
    with machine_lock("x", wait=False, tell=pytest.fail, clock=Clock()):
        assert not is_free(path)


@pytest.mark.parametrize(("now", "shown"), [(NOON, "%H:%M"), (datetime(2026, 1, 9, tzinfo=UTC), "%Y-%m-%d %H:%M")])
def test_who_does_not_wait_is_told_who_holds_it(path: Path, now: datetime, shown: str):
    content = json.dumps({"pid": 1234, "since_utc": NOON.isoformat(), "command": "perjoule doctor"}).encode()
    with held_by_another(path, content):
        refusal = enter(clock=Clock(now))
    assert f"another perjoule (process 1234, measuring since {NOON.astimezone():{shown}})" in refusal
    assert "`perjoule doctor`" in refusal
    assert "--no-wait" in refusal


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe", b"[" * 3000, b"{}", b'{"pid": 1, "since_utc": "yesterday", "command": ""}',
        b'{"pid": 1, "since_utc": "0001-01-01T00:00:00+23:59", "command": ""}', b'{"pid": "1", "since_utc": 1}',
    ],
)  # fmt: skip
def test_whatever_stands_in_the_file_the_lock_is_what_counts(path: Path, content: bytes):
    with held_by_another(path, content):
        assert enter().startswith("another perjoule holds this machine")
    path.write_bytes(content)
    with machine_lock("x", tell=pytest.fail, clock=Clock()):
        assert json.loads(path.read_bytes())["command"] == "x"


def test_a_long_command_is_cut(path: Path):
    with machine_lock("x" * 100_000, tell=pytest.fail, clock=Clock()):
        assert len(path.read_bytes()) < 500


def test_a_link_is_not_followed(path: Path, tmp_path: Path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    path.symlink_to(precious)
    assert "symbolic link" in enter()
    assert precious.read_text() == "mine"


def test_a_file_with_a_second_name_is_not_written(path: Path, tmp_path: Path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    path.hardlink_to(precious)
    assert "not a plain file with one name" in enter()
    assert precious.read_text() == "mine"


def test_a_pipe_is_refused_without_waiting_for_its_other_end(path: Path):
    os.mkfifo(path)
    assert "not a plain file" in enter()


def test_a_folder_and_a_missing_one_are_refused_with_a_hint(path: Path, monkeypatch: pytest.MonkeyPatch):
    path.mkdir()
    assert "PERJOULE_LOCK" in enter()
    monkeypatch.setenv("PERJOULE_LOCK", str(path / "no" / "lock"))
    assert "PERJOULE_LOCK" in enter()


def test_every_user_may_write_it_whatever_the_umask(path: Path):
    before = os.umask(0o077)
    try:
        with machine_lock("x", tell=pytest.fail, clock=Clock()):
            assert stat.S_IMODE(path.stat().st_mode) == 0o666
    finally:
        os.umask(before)


def test_a_file_that_was_removed_meanwhile_locks_nothing(path: Path, monkeypatch: pytest.MonkeyPatch):
    taken, removed = lock._taken, []

    def remove_first(handle: int, name: Path) -> bool:
        if not removed:
            path.unlink()
            removed.append(name)
        return taken(handle, name)

    monkeypatch.setattr(lock, "_taken", remove_first)
    with machine_lock("x", tell=pytest.fail, clock=Clock()):
        assert not is_free(path), "the file that bears the name now is the one that is held"
    assert removed


def test_the_lock_is_the_machines_not_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("PERJOULE_LOCK")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert tmp_path not in lock_path().parents
