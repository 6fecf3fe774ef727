"""`perjoule import` and `perjoule export` from end to end: nothing else takes an imported record for a result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from published_results import publishable

from perjoule import store
from perjoule.cli import main

DATA = Path(__file__).parents[1] / "data" / "interchange"


def imported(folder: Path) -> list[Path]:
    assert main(["import", "llama-bench", str(DATA / "llama-bench.json"), "--out", str(folder)]) == 0
    return sorted(folder.glob("*.json"))


def test_import_writes_a_record_a_test_and_never_over_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    paths = imported(tmp_path)
    told = capsys.readouterr()
    assert told.out.splitlines() == [str(p) for p in paths]
    assert "2 records of llama-bench, not measured by perjoule" in told.err
    assert [json.loads(p.read_text(encoding="utf-8"))["schema"] for p in paths] == ["perjoule.imported"] * 2
    assert main(["import", "llama-bench", str(DATA / "llama-bench.json"), "--out", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_show_says_whose_numbers_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    result = store.save(publishable(), tmp_path / "results")
    [pp, tg] = imported(tmp_path / "imported")
    capsys.readouterr()
    assert main(["show", str(result), str(pp), str(tg)]) == 0
    told = capsys.readouterr().out
    assert told.count("imported from llama-bench (b5163 commit 8cf427ff), not measured by perjoule") == 2
    assert "7,100 tokens/s, deviation 2.0 % over 5 repetitions" in told
    assert "Time to first token" in told
    assert main(["show", str(pp)]) == 0
    assert "Time to first token" not in capsys.readouterr().out
    assert main(["show", str(pp), "--html", str(tmp_path / "a.html")]) == 2
    assert not (tmp_path / "a.html").exists()


@pytest.mark.parametrize("command", ["compare", "verify", "publish", "upgrade", "export csv", "export github-summary"])
def test_nothing_else_takes_it_for_a_result(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    result = store.save(publishable(), tmp_path / "results")
    record = imported(tmp_path / "imported")[1]
    capsys.readouterr()
    more = ["--to", str(tmp_path / "to")] if command == "publish" else []
    assert main([*command.split(), str(result), str(record), *more]) in (2, 5)
    told = capsys.readouterr()
    assert "imported from another tool, which perjoule did not measure" in told.out + told.err


def test_mistakes_are_one_line_and_a_hint(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    llama, optimum = DATA / "llama-bench.csv", DATA / "optimum-benchmark.json"
    for words in (
        ["import", "guidellm", str(llama)],
        ["import", "optimum-benchmark", str(llama)],
        ["import", "llama-bench", str(optimum)],
        ["import", "llama-bench", str(tmp_path / "none\x1b[31m.json")],
        ["export", "csv", str(tmp_path / "none.json")],
        ["export", "csv", str(tmp_path)],
        ["export", "parquet", str(llama)],
    ):
        assert main([*words, "--out", str(tmp_path / "out")]) == 2, words
        told = capsys.readouterr()
        assert told.out == ""
        assert len(told.err.splitlines()) == 2
        assert told.err.splitlines()[1].startswith("hint: ")
        assert "\x1b" not in told.err
    assert not (tmp_path / "out").exists()


def test_export_goes_to_standard_output_or_a_new_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    store.save(publishable(), tmp_path / "results")
    for form in ("csv", "github-summary", "mlcommons-energy"):
        out = tmp_path / form
        assert main(["export", form, str(tmp_path / "results")]) == 0
        printed = capsys.readouterr().out
        assert main(["export", form, str(tmp_path / "results"), "--out", str(out)]) == 0
        assert out.read_text(encoding="utf-8") == printed != ""
        capsys.readouterr()
        assert main(["export", form, str(tmp_path / "results"), "--out", str(out)]) == 2
        assert "exists already" in capsys.readouterr().err
