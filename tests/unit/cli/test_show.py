"""perjoule show: a file that is no result is named last and stops none of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builders import make_result

from perjoule import store
from perjoule.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_one_bad_file_is_named_and_the_others_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    good = store.save(make_result(), tmp_path)
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    assert main(["show", str(bad), str(good)]) == 2
    said = capsys.readouterr()
    assert make_result().model.name in said.out
    assert said.err.startswith(f"not shown: {bad}: ")
    assert len(said.err.splitlines()) == 1


def test_a_report_of_the_good_files_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    good = store.save(make_result(), tmp_path)
    bad = tmp_path / "bad.json"
    bad.write_text("[]")
    assert main(["show", str(good), str(bad), "--html", str(tmp_path / "report.html")]) == 2
    assert make_result().model.name in (tmp_path / "report.html").read_text()
    assert "not shown" in capsys.readouterr().err


def test_nothing_but_bad_files_is_an_error_with_its_hint(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    bad = tmp_path / "machine.json"
    bad.write_text("{}")
    assert main(["show", str(bad)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("perjoule: error: ")
    assert "hint: " in said
