"""CPUs and niceness: lists are read as they are meant, or refused with what this process may use."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule import placement
from perjoule.errors import HostError, UsageError
from perjoule.placement import parse_cpus, place


@pytest.fixture(autouse=True)
def _eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)


@pytest.mark.parametrize(
    ("text", "cpus"), [("0", (0,)), ("0-1,4", (0, 1, 4)), ("4, 0-1", (0, 1, 4)), ("1-1,1", (1,)), ("6-7", (6, 7))]
)
def test_lists_of_cpus_are_read(text: str, cpus: tuple[int, ...]):
    assert parse_cpus(text) == cpus


@pytest.mark.parametrize(
    "text", ["", "-1", "0-", "a", "1-0", "0,,1", "0-1-2", "²", "9" * 5000, "0-999999999", "4096", "0:1"]
)
def test_what_is_no_list_is_refused(text: str):
    with pytest.raises(UsageError, match="--pin"):
        parse_cpus(text)


def test_cpus_that_may_not_be_used_are_named_with_those_that_may():
    with pytest.raises(UsageError, match="may not use CPU 8, 9") as caught:
        parse_cpus("6-9")
    assert caught.value.hint == "it may use: 0-7"


@given(st.sets(st.integers(0, 100), min_size=1))
def test_shown_ranges_say_what_they_were_made_of(cpus):
    shown = placement._shown(sorted(cpus))
    back = {
        n for part in shown.split(",") for a, _, b in [part.partition("-")] for n in range(int(a), int(b or a) + 1)
    }  # fmt: skip
    assert back == cpus


def test_nothing_asked_for_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: pytest.fail("pinned"), raising=False)
    monkeypatch.setattr(os, "setpriority", lambda *_: pytest.fail("niced"))
    assert place(None, None) is None


def test_a_refusal_of_the_kernel_is_said(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "setpriority", refuse)
    with pytest.raises(HostError, match=r"refused nice -5: Permission denied") as caught:
        place(None, -5)
    assert "CAP_SYS_NICE" in caught.value.hint
