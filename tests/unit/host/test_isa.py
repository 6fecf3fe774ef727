from __future__ import annotations

from typing import TYPE_CHECKING

from simulated import use_tree

from perjoule import host

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_only_instruction_sets_that_decide_speed_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    use_tree(tmp_path, monkeypatch)
    cpuinfo = tmp_path / "proc" / "cpuinfo"
    cpuinfo.write_text(cpuinfo.read_text().replace("fpu avx2", "fpu avx2 avx512f amx_int8"))
    assert host.read_host({}).cpu.isa == ("avx2", "avx512f", "amx_int8")
