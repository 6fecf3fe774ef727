"""Sequences of a real checkpoint that join and leave a batch at different times say what they say alone."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
from fixtures_checkpoints import checkpoint_path

from perjoule.protocols import EngineOptions

pytest.importorskip("onnxruntime")

from perjoule_backends.onnxruntime import OnnxRuntimeBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule_backends.onnxruntime.engine import OnnxRuntimeEngine

pytestmark = pytest.mark.checkpoint

PLACES, NEW_TOKENS, CONTEXT = 4, 24, 256
LENGTHS = (3, 150, 40, 1, 90, 17, 64, 8)
# By how much the token said alone may lead, where a batch says another one. At 32 bits only the order of a sum differs
# between kernels; at 8 bits that decides how activations are rounded, and logits move as far as quantization moves
# them: up to 1.1 (backends/perjoule_backends/onnxruntime/batch.py). A wrong cache or position is off by far more.
TIES = {"fp32": 1e-3, "int8": 1.5, "faithful": 1.5}


def load(quant: str) -> OnnxRuntimeEngine:
    checkpoint_path("smollm2")
    options = EngineOptions(threads=2, quant=quant, context_tokens=CONTEXT, batch=PLACES, extra={"spinning": False})
    backend = OnnxRuntimeBackend()
    engine: OnnxRuntimeEngine = backend.load(backend.prepare("smollm2", options, lambda _text, _share: None), options)
    return engine


def prompts(engine: OnnxRuntimeEngine) -> list[list[int]]:
    folder = files("perjoule_scenarios").joinpath("corpora", "fidelity")
    text = folder.joinpath("declaration-en.txt").read_text(encoding="utf-8")
    ids = engine.tokenizer.encode(text)
    return [ids[100 * i : 100 * i + length] for i, length in enumerate(LENGTHS)]


def served(engine: OnnxRuntimeEngine, queue: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return what each prompt is answered: one joins at each step while there is a place, and leaves when done."""
    batch = engine.batch()
    said: list[list[int]] = [[] for _ in queue]
    waiting, seated = list(range(len(queue))), []
    while waiting or seated:
        if waiting and len(seated) < PLACES:
            seated.append(waiting.pop(0))
            said[seated[-1]].append(batch.add(queue[seated[-1]]))
        for number, token in zip(seated, batch.step(), strict=True):
            said[number].append(token)
        for place in reversed(range(len(seated))):
            if len(said[seated[place]]) >= NEW_TOKENS - place:  # of different lengths, so that they leave apart
                batch.remove(place)
                seated[place] = seated[-1]
                seated.pop()
    return said


@pytest.mark.parametrize("quant", TIES)
def test_a_batch_says_what_each_says_alone(quant: str) -> None:
    engine = load(quant)
    queue = prompts(engine)
    found = served(engine, queue)
    compared = 0
    for prompt, said in zip(queue, found, strict=True):
        alone: list[int] = []
        engine.generate(prompt, len(said), frozenset(), alone.append)
        at = next((i for i, pair in enumerate(zip(said, alone, strict=True)) if pair[0] != pair[1]), None)
        compared += len(said) if at is None else at
        if at is not None:
            logits = engine.logits([*prompt, *alone[:at]])[-1]
            lead = float(logits[alone[at]] - logits[said[at]])
            assert lead < TIES[quant], f"token {at} of {len(prompt)} + {len(said)}: {said[at]}, not {alone[at]}"
    assert [len(said) >= NEW_TOKENS - PLACES for said in found] == [True] * len(LENGTHS)
    assert compared >= len(LENGTHS) * 4  # it did not leave at once everywhere


def test_the_same_company_says_the_same_again() -> None:
    engine = load("faithful")
    queue = prompts(engine)
    assert served(engine, queue) == served(engine, queue)
