"""Guards around unit tests: they never sleep, and never talk to another machine."""

from __future__ import annotations

import ipaddress
import socket
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

from perjoule.clock import MonotonicClock

UNIT = Path(__file__).parent / "unit"

try:
    from hypothesis import settings
except ModuleNotFoundError:  # the environment of other tools' readers has none, and needs none
    pass
else:  # tests are not timed: a busy machine is slow, not wrong
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _tests_do_not_wait_for_each_other(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real measurement on this machine, or another run of the tests, must not hold these up."""
    monkeypatch.setenv("PERJOULE_LOCK", str(tmp_path_factory.getbasetemp() / "perjoule.lock"))


@pytest.fixture(autouse=True)
def _unit_tests_neither_sleep_nor_reach_out(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if UNIT not in request.path.parents:
        return
    monkeypatch.setattr(time, "sleep", _refuse_to_sleep)
    monkeypatch.setattr(MonotonicClock, "sleep", staticmethod(_refuse_to_sleep))
    monkeypatch.setattr(socket.socket, "connect", _loopback_only(socket.socket.connect))
    monkeypatch.setattr(socket, "getaddrinfo", _no_names(socket.getaddrinfo))


def _refuse_to_sleep(seconds: float) -> NoReturn:
    raise AssertionError(f"a unit test slept {seconds} s: inject a clock")


def _is_loopback(host: object) -> bool:
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return host in (None, "", "localhost", b"localhost")


def _loopback_only(connect: Any) -> Any:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            raise AssertionError(f"a unit test connected to {address}")
        return connect(self, address)

    return guarded


def _no_names(getaddrinfo: Any) -> Any:
    def guarded(host: Any, *args: Any, **options: Any) -> Any:
        if not _is_loopback(host):
            raise AssertionError(f"a unit test looked up {host}")
        return getaddrinfo(host, *args, **options)

    return guarded
