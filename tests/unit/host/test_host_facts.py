from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
from simulated import use_tree

from perjoule import host

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_cpu_facts_come_from_the_named_tree_which_is_marked_simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tree(tmp_path, monkeypatch, vendor="AuthenticAMD", family=25, model=17)
    facts = host.read_host({})
    assert (facts.cpu.vendor, facts.cpu.family, facts.cpu.model) == ("AuthenticAMD", 25, 17)
    assert facts.simulated


def test_busy_leaves_out_idle_waiting_and_steal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tree(tmp_path, monkeypatch)
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    times = host.read_cpu_times()
    assert times.busy_s == (100 + 20 + 30 + 6 + 7) * tick_s
    assert times.steal_s == 80 * tick_s


def test_facts_name_no_host_user_or_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tree(tmp_path, monkeypatch)
    planted = {"hostname": "planted-host", "USER": "planted-user", "mac": "02:de:ad:be:ef:01"}
    kernel = tmp_path / "proc" / "sys" / "kernel"
    kernel.mkdir(parents=True)
    (kernel / "hostname").write_text(planted["hostname"])
    card = tmp_path / "sys" / "class" / "net" / "eth0"
    card.mkdir(parents=True)
    (card / "address").write_text(planted["mac"])
    monkeypatch.setenv("USER", planted["USER"])
    monkeypatch.setattr("platform.node", lambda: planted["hostname"])
    text = msgspec.json.encode(host.read_host({})).decode()
    assert not [value for value in (*planted.values(), str(tmp_path)) if value in text]
