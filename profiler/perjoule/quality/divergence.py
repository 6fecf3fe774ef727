"""Fidelity of an engine from its logits and the reference's, as sums over blocks of positions.

llama.cpp's `llama-perplexity --kl-divergence` defines the divergence in the same way and evaluates the second half of
each chunk of its context; here every position of the pinned texts counts, the first ones too, whose context is short.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perjoule.quality.fidelity import kl_nats, log_softmax
from perjoule.quality.intervals import BLOCK_POSITIONS, means
from perjoule.records.quality import Fidelity, FidelityBlock, KlDivergence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from perjoule.quality.fidelity import Corpus

_ROWS_AT_ONCE = 64  # of a vocabulary of 150 000 in float64: 77 MB


def blocks_of(
    text: str, ids: Sequence[int], reference: NDArray[np.float32], candidate: NDArray[np.float32]
) -> tuple[list[FidelityBlock], NDArray[np.float64]]:
    """Return the blocks of one text, and the divergence of each position.

    ``reference`` and ``candidate`` are logits of all positions of ``ids``, shape (len(ids), vocabulary). Raises
    ``ValueError`` for other shapes, or for logits that are not finite.
    """
    if len(ids) != len(reference):
        raise ValueError(f"{len(ids)} tokens, but logits of {len(reference)} positions")
    divergence = kl_nats(reference, candidate)
    same = reference.argmax(axis=1) == candidate.argmax(axis=1)
    nll, reference_nll = nll_of(candidate, ids), nll_of(reference, ids)
    blocks = []
    for start in range(0, len(ids), BLOCK_POSITIONS):
        rows = slice(start, start + BLOCK_POSITIONS)
        blocks.append(FidelityBlock(
            text=text,
            positions=len(divergence[rows]),
            predicted=len(nll[rows]),
            kl_nats=float(divergence[rows].sum()),
            same_top=int(same[rows].sum()),
            nll_nats=float(nll[rows].sum()),
            reference_nll_nats=float(reference_nll[rows].sum()),
        ))  # fmt: skip
    return blocks, divergence


def nll_of(logits: NDArray[np.float32], ids: Sequence[int]) -> NDArray[np.float64]:
    """Return -ln p of each next token, nats, shape (len(ids) - 1,): row i of ``logits`` predicts ``ids[i + 1]``."""
    following = np.asarray(ids[1:], dtype=np.int64)
    found = np.empty(len(following), dtype=np.float64)
    for start in range(0, len(following), _ROWS_AT_ONCE):
        rows = slice(start, min(start + _ROWS_AT_ONCE, len(following)))
        log_p = log_softmax(logits[rows])
        found[rows] = -log_p[np.arange(len(log_p)), following[rows]]
    return np.maximum(found, 0.0)


def fidelity_of(
    reference: str, corpus: Corpus, blocks: Sequence[FidelityBlock], divergence: NDArray[np.float64]
) -> Fidelity:
    """Return the fidelity that blocks of all texts amount to; ``divergence`` of every position gives its quantiles."""
    values = means(blocks)
    return Fidelity(
        reference=reference,
        corpus_version=corpus.version,
        corpus_sha256=corpus.sha256,
        kl_divergence_nats=KlDivergence(
            mean=values["mean"], median=float(np.median(divergence)), p99=float(np.quantile(divergence, 0.99))
        ),
        same_top_token=values["same_top_token"],
        perplexity=values["perplexity"],
        perplexity_ratio=values["perplexity_ratio"],
        blocks=tuple(blocks),
    )
