"""`perjoule verify` on verdicts of claims: judged again where their results are at hand, and never in the way."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from perjoule import store
from perjoule.cli import main
from perjoule.cli.verify_verdicts import results_of, verdict_judged

PUBLISHED = Path(__file__).parents[3] / "results"
[VERDICT] = PUBLISHED.glob("claims/qwen-low-power-*.json")
RESULTS = sorted(PUBLISHED.glob("*/2*-tasks-quick-*.json"))


def test_its_results_are_found_in_the_folders_beside(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(VERDICT)]) == 0
    assert capsys.readouterr().out == f"{VERDICT}: ok\n"


def test_its_results_are_found_among_the_files_given_under_any_name(tmp_path: Path) -> None:
    alone = shutil.copy(VERDICT, tmp_path / "alone.json")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for number, path in enumerate(RESULTS):
        shutil.copy(path, tmp_path / "deep" / "er" / f"{number}.json")
    assert main(["verify", str(tmp_path)]) == 0
    found = results_of([store.load(path).id for path in RESULTS], sorted(tmp_path.rglob("*.json")))
    assert [result.model.name for result in found.values()] == [store.load(path).model.name for path in RESULTS]
    assert verdict_judged(Path(alone), sorted(tmp_path.rglob("[0-9].json"))) == ([], "")


def test_without_its_results_it_says_which_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = shutil.copy(VERDICT, tmp_path)
    assert main(["verify", str(alone), str(RESULTS[0])]) == 2
    told = capsys.readouterr()
    assert f"{RESULTS[0]}: ok" in told.out
    assert f"{alone}: not judged" in told.out
    assert f"needs {store.load(RESULTS[1]).id}" in told.err
    assert store.load(RESULTS[0]).id not in told.err


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ('"answer": "holds"', '"answer": "fails"', 5, "answer: the file says 'fails'"),
        ('"claim_sha256": "d', '"claim_sha256": "e', 5, "claim_sha256: is not that of the claim"),
        ('"claim": "qwen-low-power"', '"claim": "mine"', 2, "claim 'mine' does not ship"),
        ('"scope": ', '"scopes": ', 5, "not a verdict of perjoule"),
    ],
)
def test_what_was_edited_does_not_hold(
    tmp_path: Path, old: str, new: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = VERDICT.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "edited.verdict.json"
    path.write_text(text.replace(old, new), encoding="utf-8")
    assert main(["verify", str(path), *map(str, RESULTS)]) == code
    told = capsys.readouterr()
    assert said in told.out + told.err
    assert told.out.count(": ok\n") == 2


def test_a_result_that_does_not_hold_carries_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(VERDICT, tmp_path)
    for path in RESULTS:
        text = path.read_text(encoding="utf-8")
        edited = text.replace('"vendor": "Alibaba', '"vendor": "Nobody')
        (tmp_path / path.name).write_text(edited, encoding="utf-8")
    assert len({(tmp_path / path.name).read_bytes() == path.read_bytes() for path in RESULTS}) == 2
    assert main(["verify", str(tmp_path / VERDICT.name)]) == 5
    assert capsys.readouterr().out.count("which does not hold") == 1
