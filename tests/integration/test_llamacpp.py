"""llama.cpp on a real checkpoint: what our loop says is what its own high-level API says, and near the fp32 weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from fixtures_checkpoints import checkpoint_path

from perjoule.protocols import EngineOptions
from perjoule.quality.fidelity import kl_nats, load_corpus

llama_cpp = pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed: pip install 'perjoule[llamacpp]'"
)
pytest.importorskip("onnxruntime")

from perjoule_backends.llamacpp import LlamaCppBackend  # noqa: E402 - only after the skips above
from perjoule_backends.onnxruntime import OnnxRuntimeBackend  # noqa: E402

if TYPE_CHECKING:
    from perjoule.protocols import Engine, LogitsEngine

pytestmark = [pytest.mark.checkpoint, pytest.mark.extras]

REF, CONTEXT, NEW_TOKENS = "smollm2", 256, 16
PROMPTS = 2
FAITHFUL_NATS = 0.02  # what the checks of a result call faithful; 0.0045 was measured


def quiet(_text: str, _share: float | None) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def engine() -> Engine:
    checkpoint_path(REF)
    options = EngineOptions(threads=1, context_tokens=CONTEXT)
    return LlamaCppBackend().load(LlamaCppBackend().prepare(REF, options, quiet), options)


def test_greedy_tokens_are_those_of_its_own_high_level_api(engine: Engine) -> None:
    theirs = llama_cpp.Llama(
        str(checkpoint_path(REF)), n_ctx=CONTEXT, n_threads=1, n_threads_batch=1, flash_attn=True, verbose=False
    )
    for text in load_corpus().read()[:PROMPTS]:
        prompt = engine.tokenizer.encode(text)[:40]
        out: list[int] = []
        engine.generate(prompt, NEW_TOKENS, frozenset(), out.append)
        theirs.reset()
        expected = []
        for token in theirs.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0):
            expected.append(token)
            if len(expected) == NEW_TOKENS:
                break
        assert out == expected
    theirs.close()


def test_logits_are_near_those_of_the_files_own_weights_in_fp32(engine: Engine) -> None:
    options = EngineOptions(threads=1, quant="fp32", context_tokens=CONTEXT, extra={"spinning": False})
    backend = OnnxRuntimeBackend()
    reference = backend.scorer(backend.prepare(REF, options, quiet), options)
    divergence = []
    for text in load_corpus().read()[:PROMPTS]:
        ids = engine.tokenizer.encode(text)[:64]
        divergence.append(kl_nats(reference.logits(ids), cast("LogitsEngine", engine).logits(ids)).mean())
    assert 0 < sum(divergence) / len(divergence) < FAITHFUL_NATS
