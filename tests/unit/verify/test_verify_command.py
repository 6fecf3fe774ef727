from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from published_results import publishable

from perjoule import store
from perjoule.assemble import derive
from perjoule.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_folders_are_verified_to_any_depth(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = store.save(publishable(), tmp_path / "a" / "b")
    assert main(["verify", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{path}: ok\n"


def test_a_wrong_name_keeps_no_other_file_from_being_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = store.save(publishable(), tmp_path)
    assert main(["verify", str(tmp_path / "none.json"), str(path)]) == 2
    told = capsys.readouterr()
    assert told.out == f"{path}: ok\n"
    assert "none.json: no such file" in told.err


def test_the_deep_look_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    result = publishable()
    first = msgspec.structs.replace(result.processes[0], load_s=50.0)
    path = store.save(derive(msgspec.structs.replace(result, processes=(first, *result.processes[1:]))), tmp_path)
    assert main(["verify", str(path)]) == 0
    assert main(["verify", "--deep", str(path)]) == 5
    assert "before the engine was loaded" in capsys.readouterr().out
