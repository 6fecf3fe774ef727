"""Fidelity of a converted folder: its logits against those of the same file at fp32, on the pinned corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from perjoule.errors import InputError
from perjoule.quality.fidelity import compare, load_corpus
from perjoule_backends.checkpoints.tokenizer import load_tokenizer
from perjoule_backends.onnxruntime.manifest import read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from perjoule.protocols import EngineOptions, LogitsEngine, Prepared, Progress


def measure_fidelity(
    candidate: Prepared, scorer: LogitsEngine, reference: LogitsEngine, options: EngineOptions, progress: Progress
) -> dict[str, Any]:
    """Return KL divergence (nats), share of equal top tokens, corpus digest and the worst error of one matrix.

    Both models stay in memory (fp32 and quantized), and the logits of one text at a time. Raises
    ``InputError`` where a text is shorter than the corpus asks for.
    """
    corpus, tokenizer = load_corpus(), load_tokenizer(candidate.path)
    texts = [tokenizer.encode(text)[: corpus.tokens_per_text] for text in corpus.read()]
    for listed, ids in zip(corpus.text, texts, strict=True):
        if len(ids) < corpus.tokens_per_text:
            raise InputError(
                f"fidelity corpus: {listed.file} has only {len(ids)} of {corpus.tokens_per_text} tokens",
                hint="this tokenizer is too coarse for the pinned corpus",
            )

    def pairs() -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        for done, ids in enumerate(texts):
            progress("comparing with the file's own weights", done / len(texts))
            yield reference.logits(ids), scorer.logits(ids)

    found = compare(pairs())
    errors = read_manifest(candidate.path).relative_error
    worst = max(errors, key=errors.__getitem__, default=None)
    return {
        **msgspec.to_builtins(found),
        "quant": options.quant,
        "corpus_sha256": corpus.sha256,
        "corpus_version": corpus.version,
        "worst_matrix": worst,
        "worst_matrix_relative_error": errors[worst] if worst is not None else 0.0,
    }
