"""The results that this repository publishes hold, file by file."""

from __future__ import annotations

from pathlib import Path

import pytest

from perjoule import store
from perjoule.claims.judge_again import foreign, rests_on, unlike
from perjoule.claims.verdict_file import load_verdict, verdict_name
from perjoule.plausibility import implausible
from perjoule.verify import verify

FILES = sorted(Path(__file__).parents[3].joinpath("results").glob("*/2*.json"))

VERDICTS = sorted(Path(__file__).parents[3].joinpath("results", "claims").glob("*.json"))


def test_there_are_some() -> None:
    assert VERDICTS  # so that the site that is made of them has a section of claims
    models = {store.load(path).model.family for path in FILES}
    assert {"Qwen", "SmolLM", "Gemma"} <= models


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_published_result_holds(path: Path) -> None:
    result = store.load(path)
    assert verify(result) == []
    assert list(implausible(result)) == []
    assert result.publishable
    assert path.parent.name == result.host.machine_id
    assert path.name == store.file_name(result)


@pytest.mark.parametrize("path", VERDICTS, ids=lambda p: p.stem)
def test_a_published_verdict_follows_from_published_results(path: Path) -> None:
    verdict = load_verdict(path)
    by_id = {result.id: result for result in map(store.load, FILES)}
    assert foreign(verdict) == ""
    assert unlike(verdict, [by_id[id_] for id_ in rests_on(verdict)]) == []
    assert path.name == verdict_name(verdict)
