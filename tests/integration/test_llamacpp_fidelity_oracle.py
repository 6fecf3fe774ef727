"""KL divergence and perplexity of llama.cpp as our harness has them, against another computation.

Ours: the backend's logits beside our own engine in fp32, sums over blocks. Theirs: transformers in fp32 on the file's
dequantized weights, llama.cpp through its own high-level API, and the textbook formulas in float64. Both share
the reading of the file, the token ids and the texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
from fixtures_checkpoints import checkpoint_path

from perjoule.protocols import EngineOptions
from perjoule.quality.fidelity import load_corpus
from perjoule.quality.measure import measure_quality

llama_cpp = pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed: pip install 'perjoule[llamacpp]'"
)
pytest.importorskip("transformers", reason="transformers is not installed: pip install 'perjoule[transformers]'")
pytest.importorskip("onnxruntime")
from reference import transformers_model  # noqa: E402 - only after the skips above

from perjoule_backends.checkpoints.gguf import read_gguf  # noqa: E402
from perjoule_backends.llamacpp import LlamaCppBackend  # noqa: E402
from perjoule_backends.onnxruntime import OnnxRuntimeBackend  # noqa: E402

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perjoule.protocols import LogitsEngine
    from perjoule.records.quality import Fidelity

pytestmark = [pytest.mark.checkpoint, pytest.mark.extras]

CONTEXT, THREADS, WITHIN = 256, 2, 0.02


def quiet(_text: str, _share: float | None) -> None:
    """Say nothing."""


def ours(name: str) -> tuple[Fidelity, list[list[int]]]:
    """Return what a result would say, and the ids of each text of the corpus."""
    options = EngineOptions(threads=THREADS, context_tokens=CONTEXT)
    fp32 = EngineOptions(threads=THREADS, quant="fp32", context_tokens=CONTEXT)
    backend, reference = LlamaCppBackend(), OnnxRuntimeBackend()
    engine = backend.load(backend.prepare(name, options, quiet), options)
    scorer = cast("LogitsEngine", reference.scorer(reference.prepare(name, fp32, quiet), fp32))
    found = measure_quality(engine, "", scorer, "onnxruntime fp32", quiet).fidelity
    assert found is not None
    corpus = load_corpus()
    return found, [engine.tokenizer.encode(text)[: corpus.tokens_per_text] for text in corpus.read()]


def theirs(name: str, texts: list[list[int]]) -> tuple[float, float, float]:
    """Return mean KL(fp32 || llama.cpp) in nats, and perplexity of llama.cpp and of the fp32 weights."""
    path = checkpoint_path(name)
    exact = transformers_model.load(read_gguf(path))
    longest = max(map(len, texts))
    engine = llama_cpp.Llama(
        str(path), n_ctx=longest, n_batch=longest, n_threads=THREADS, n_threads_batch=THREADS, flash_attn=True,
        logits_all=True, verbose=False,
    )  # fmt: skip
    divergence, said, fp32 = [], [], []
    for ids in texts:
        engine.reset()
        engine.eval(ids)
        q = log_p(np.array(engine.scores[: len(ids)]))
        p = log_p(transformers_model.logits(exact, ids))
        divergence += (np.exp(p) * (p - q)).sum(axis=1).tolist()
        following = np.array(ids[1:])
        said += (-q[np.arange(len(following)), following]).tolist()
        fp32 += (-p[np.arange(len(following)), following]).tolist()
    engine.close()
    return float(np.mean(divergence)), float(np.exp(np.mean(said))), float(np.exp(np.mean(fp32)))


def log_p(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("name", ["smollm2", pytest.param("qwen", marks=pytest.mark.all_checkpoints)])
def test_divergence_and_perplexity_are_those_of_an_independent_computation(name: str) -> None:
    found, texts = ours(name)
    kl, perplexity, exact = theirs(name, texts)
    assert found.kl_divergence_nats.mean.value == pytest.approx(kl, rel=WITHIN)
    assert found.perplexity.value == pytest.approx(perplexity, rel=WITHIN)
    assert found.perplexity_ratio.value == pytest.approx(perplexity / exact, rel=WITHIN)
