"""Greedy continuations at fp32 equal those of transformers on the same dequantized weights."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from perjoule.protocols import EngineOptions

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

from reference import transformers_model

from perjoule_backends.checkpoints.gguf import read_gguf
from perjoule_backends.checkpoints.resolve import resolve
from perjoule_backends.onnxruntime import OnnxRuntimeBackend

pytestmark = [pytest.mark.checkpoint, pytest.mark.extras]

NEW_TOKENS = 64
TIE = 1e-3  # logits of the reference this close may fall either way in another order of summation
LENGTHS = (8, 16, 32, 64, 128, 256, 512)
SHORT_TEXTS = (
    "La inteligencia artificial consume energía, y nadie sabe exactamente cuánta.",
    "Сколько энергии нужно, чтобы ответить на один вопрос?",
    "كم من الطاقة يحتاج هذا الجهاز للإجابة عن سؤال واحد؟",
    "この機械が一つの質問に答えるのに必要なエネルギーを測る。",
    "एक सवाल का जवाब देने में कितनी ऊर्जा लगती है?",
)


def prompts(tokenizer: object) -> list[list[int]]:
    """Return 21 prompts of 8 to 700 tokens: English, Chinese, source code, and five more scripts and languages.

    One is longer than the window of gemma3, which is 512 tokens.
    """
    folder = files("perjoule_scenarios").joinpath("corpora", "fidelity")
    texts = [
        folder.joinpath(name).read_text(encoding="utf-8")
        for name in ("declaration-en.txt", "declaration-zh.txt", "source-code.txt")
    ]
    cuts = [(texts[i % 3], length) for i, length in enumerate(LENGTHS + LENGTHS + (100,))]
    cuts += [(texts[0], 700), *((text, 512) for text in SHORT_TEXTS)]
    return [tokenizer.encode(text)[:length] for text, length in cuts]  # type: ignore[attr-defined]


@pytest.mark.parametrize("ref", ["smollm2", "qwen", "gemma"])
def test_greedy_continuations_equal_transformers(ref: str, capsys: pytest.CaptureFixture[str]) -> None:
    backend = OnnxRuntimeBackend()
    options = EngineOptions(threads=2, quant="fp32", context_tokens=1024, extra={"spinning": False})
    engine = backend.load(backend.prepare(ref, options, lambda _text, _share: None), options)
    path = Path(resolve(ref, lambda _text, _share: None).path)
    model = transformers_model.load(read_gguf(path))
    ties = []
    cases = prompts(engine.tokenizer)
    assert len(cases) == 21
    assert max(map(len, cases)) == 700
    for number, ids in enumerate(cases):
        found: list[int] = []
        engine.generate(ids, NEW_TOKENS, frozenset(), found.append)
        expected, leads = transformers_model.greedy(model, ids, NEW_TOKENS)
        if found != expected:
            at = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
            assert leads[at] < TIE, (
                f"prompt {number}, token {at}: {found[at]} instead of {expected[at]}, lead {leads[at]}"
            )
            ties.append((number, at, leads[at]))
    with capsys.disabled():
        print(f"\n{ref}: {len(cases) - len(ties)} of {len(cases)} equal, {len(ties)} differ at a tie: {ties}")  # noqa: T201
