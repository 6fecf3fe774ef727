"""Three engines, one checkpoint in fp32: optimum, transformers and ours say the same words."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
from fixtures_checkpoints import checkpoint_path

from perjoule import registry
from perjoule.protocols import EngineOptions, LogitsEngine

if TYPE_CHECKING:
    from perjoule.protocols import Engine

pytestmark = [pytest.mark.checkpoint, pytest.mark.extras]

NEW_TOKENS = 24
TIE = 1e-3  # logits this close may fall either way in another order of summation
SOURCES = (("declaration-en.txt", 96), ("declaration-zh.txt", 40), ("source-code.txt", 64))


def loaded(name: str, path: str) -> Engine:
    backend = registry.backend(name)
    if not backend.info().available:
        pytest.skip(f"{name} is not installed: {backend.info().install}")
    options = EngineOptions(threads=2, quant="fp32", context_tokens=512, extra={"spinning": False})
    if name == "transformers":
        options = EngineOptions(threads=2, quant="fp32", context_tokens=512)
    return backend.load(backend.prepare(path, options, lambda _text, _share: None), options)


@pytest.mark.parametrize("name", ["optimum", "transformers"])
def test_greedy_continuations_are_those_of_our_engine(name: str) -> None:
    path = str(checkpoint_path("smollm2"))
    ours, theirs = loaded("onnxruntime", path), loaded(name, path)
    assert isinstance(ours, LogitsEngine)
    folder = files("perjoule_scenarios").joinpath("corpora", "fidelity")
    for file, length in SOURCES:
        text = folder.joinpath(file).read_text(encoding="utf-8")
        prompt = ours.tokenizer.encode(text)[:length]
        assert theirs.tokenizer.encode(text)[:length] == prompt
        found: dict[str, list[int]] = {"ours": [], "theirs": []}
        ours.generate(prompt, NEW_TOKENS, frozenset(), found["ours"].append)
        theirs.generate(prompt, NEW_TOKENS, frozenset(), found["theirs"].append)
        assert len(found["theirs"]) == NEW_TOKENS
        if found["ours"] != found["theirs"]:
            at = next(i for i in range(NEW_TOKENS) if found["ours"][i] != found["theirs"][i])
            best = sorted(ours.logits([*prompt, *found["ours"][:at]])[-1])[-2:]
            assert best[1] - best[0] < TIE, f"{file}, token {at}: {found}"
