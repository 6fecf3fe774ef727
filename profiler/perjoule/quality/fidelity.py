"""How far a converted model is from the file it was made of: divergence of its next-token distributions.

The Kullback-Leibler divergence of the candidate Q from the reference P at one position is
sum over the vocabulary of P * (log P - log Q), in nats (Kullback and Leibler 1951, "On Information and
Sufficiency"). Positions are those of a corpus pinned by hash.
"""

from __future__ import annotations

import hashlib
import tomllib
from importlib.resources import files
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from perjoule.errors import InputError
from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_ROWS_AT_ONCE = 64  # of a vocabulary of 150 000 in float64: 77 MB


class Text(Record, frozen=True, kw_only=True):
    """One text of the corpus, as listed in ``fidelity.toml``."""

    file: str
    language: str
    sha256: str
    source: str


class Corpus(Record, frozen=True, kw_only=True):
    """The pinned texts; each is cut to its first ``tokens_per_text`` tokens of the model's own tokenizer."""

    version: int
    tokens_per_text: int
    text: tuple[Text, ...]

    @property
    def sha256(self) -> str:
        """Return one digest for all texts in their order and the token count."""
        parts = [str(self.tokens_per_text), *(text.sha256 for text in self.text)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def read(self) -> list[str]:
        """Return the texts. Raises ``InputError`` if one is not the pinned one."""
        return [_read(text) for text in self.text]


class Fidelity(Record, frozen=True, kw_only=True):
    """KL divergence (nats) over all positions, and the share of positions with the same most likely token."""

    mean_kl_nats: float
    median_kl_nats: float
    p99_kl_nats: float
    same_top_token: float
    tokens: int


def load_corpus() -> Corpus:
    data = files("perjoule_scenarios").joinpath("corpora", "fidelity.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(data), Corpus)


def kl_nats(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return KL(reference || candidate) per position from two arrays of logits, shape (positions, vocabulary).

    Computed in float64 and never below zero. Raises ``ValueError`` for shapes that differ or logits that
    are not finite.
    """
    if reference.shape != candidate.shape or reference.ndim != 2:  # noqa: PLR2004 - positions and vocabulary
        raise ValueError(
            f"two arrays of one shape (positions, vocabulary) needed, got {reference.shape}, {candidate.shape}"
        )
    divergence = np.empty(len(reference), dtype=np.float64)
    for start in range(0, len(reference), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        log_p, log_q = log_softmax(reference[rows]), log_softmax(candidate[rows])
        divergence[rows] = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    if not np.isfinite(divergence).all():
        raise ValueError("logits are not finite")
    return np.maximum(divergence, 0.0)


def compare(pairs: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> Fidelity:
    """Summarize (reference, candidate) logits of several texts, each of shape (positions, vocabulary)."""
    divergences, same = [], []
    for reference, candidate in pairs:
        divergences.append(kl_nats(reference, candidate))
        same.append(reference.argmax(axis=1) == candidate.argmax(axis=1))
    values, agreed = np.concatenate(divergences), np.concatenate(same)
    return Fidelity(
        mean_kl_nats=float(values.mean()),
        median_kl_nats=float(np.median(values)),
        p99_kl_nats=float(np.quantile(values, 0.99)),
        same_top_token=float(agreed.mean()),
        tokens=len(values),
    )


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return ln p of each row of logits, shape (positions, vocabulary), in float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def _read(text: Text) -> str:
    data = files("perjoule_scenarios").joinpath("corpora", "fidelity", text.file).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != text.sha256:
        raise InputError(
            f"fidelity corpus: {text.file} has SHA-256 {found[:16]}..., pinned is {text.sha256[:16]}...",
            hint="install perjoule again; an edited corpus cannot be compared",
        )
    return data.decode("utf-8")
