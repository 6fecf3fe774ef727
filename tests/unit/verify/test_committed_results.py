"""The results that this repository publishes hold, file by file."""

from __future__ import annotations

from pathlib import Path

import pytest

from perjoule import store
from perjoule.plausibility import implausible
from perjoule.verify import verify

FILES = sorted(Path(__file__).parents[3].joinpath("results").glob("*/2*.json"))


def test_there_are_some() -> None:
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
