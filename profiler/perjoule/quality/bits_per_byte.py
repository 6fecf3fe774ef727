"""How well a model predicts a text: bits per byte of its UTF-8, which does not depend on the tokenizer.

    bits per byte = sum of -ln p(token | tokens before it) / ln 2 / bytes of the text that these tokens say

Where the model has a token for the beginning (BOS) it is put before the text and every token is predicted. Otherwise
nothing precedes the first token, so it is not predicted and its bytes do not count; where the first character takes
several tokens, that holds for all of them. A text longer than the context is read in windows: each after the first
goes on ``stride`` tokens further, and predicts only tokens that no window before has, from at least
``context - stride`` tokens; BOS stands in the first window alone. Perplexity is per token, and compares only models
with the same tokenizer.

Models are compared within one language. There is no average over languages: a byte of Hindi says less than one of
English, and texts like this one stand in most models' training data.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from perjoule.records import Missing, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from perjoule.protocols import Tokenizer

    LogitsOf = Callable[[Sequence[int]], NDArray[np.float32]]

_LONGEST_CHARACTER = 16  # tokens; four bytes, and a space or two that tokenizers put before
_ROWS_AT_ONCE = 64  # of a vocabulary of 150 000 in float64: 77 MB


class Prediction(Record, frozen=True, kw_only=True):
    """``tokens`` and ``bytes`` are those predicted; ``windows`` how often the context was begun."""

    bits_per_byte: float
    perplexity: float
    tokens: int
    bytes: int
    windows: int
    context_tokens: int
    stride_tokens: int
    first_token: str  # "predicted after BOS" or "not predicted"


class Window(NamedTuple):
    """Tokens ``start`` to ``end`` are read at once; those from ``first`` on are predicted."""

    start: int
    end: int
    first: int


def bits_per_byte(logprobs_nats: Sequence[float], predicted_bytes: int) -> float:
    """Return bits per byte from the natural log of each predicted token's probability and the bytes they say.

    Raises ``ValueError`` without bytes or tokens, and for a logarithm above 0 or not finite.
    """
    return -_total(logprobs_nats) / math.log(2) / _positive(predicted_bytes)


def perplexity(logprobs_nats: Sequence[float]) -> float:
    """Return exp of the mean of -ln p. Raises ``OverflowError`` beyond a mean of 709 nats: no model is that wrong."""
    return math.exp(-_total(logprobs_nats) / len(logprobs_nats))


def windows(tokens: int, context: int, stride: int) -> Iterator[Window]:
    """Yield the windows over ``tokens`` (BOS included) in which each but the first is predicted once.

    Raises ``ValueError`` unless 1 <= stride < context.
    """
    if not 1 <= stride < context:
        raise ValueError(f"stride must be at least 1 and less than the context, got {stride} and {context}")
    predicted = 1  # nothing precedes the first
    start = 0
    while predicted < tokens:
        end = min(start + context, tokens)
        yield Window(start, end, predicted)
        predicted = end
        start += stride


def predict(
    logits_of: LogitsOf, tokenizer: Tokenizer, text: str, *, bos: int | None, context: int, stride: int | None = None
) -> Prediction | Missing:
    """Return how well a model predicts ``text``. ``logits_of(ids)`` has the shape (len(ids), vocabulary).

    ``stride`` is half the context unless given. Missing with the reason if the tokenizer cannot say the text (its
    tokens decode to something else), as bits per byte would then be of another text. Raises ``ValueError`` for a text
    of too few tokens and for logits that are not finite.
    """
    ids = tokenizer.encode(text)
    if _decodes_to_another(tokenizer, ids, text):
        return Missing(reason="the tokenizer changes this text: its tokens decode to another one")
    skipped = 0 if bos is not None else _first_character(tokenizer, ids, text)
    if skipped is None:
        return Missing(reason="no beginning of this text is said by the first tokens alone, so its bytes are unknown")
    unsaid = len(_said(tokenizer, ids[:skipped], text).encode()) if skipped else 0
    whole = ids if bos is None else [bos, *ids]
    step = max(1, context // 2) if stride is None else stride
    logprobs: list[float] = []
    count = 0
    for window in windows(len(whole), context, step):
        count += 1
        part = whole[window.start : window.end]
        rows = _logprobs(logits_of(part), part)
        logprobs += rows[window.first - window.start - 1 :]
    counted = logprobs[skipped - 1 :] if skipped else logprobs
    if not counted:
        raise ValueError("the text has no token that can be predicted")
    size = len(text.encode()) - unsaid
    return Prediction(
        bits_per_byte=bits_per_byte(counted, size), perplexity=perplexity(counted), tokens=len(counted), bytes=size,
        windows=count, context_tokens=context, stride_tokens=step,
        first_token="not predicted" if bos is None else "predicted after BOS",
    )  # fmt: skip


def _decodes_to_another(tokenizer: Tokenizer, ids: Sequence[int], text: str) -> bool:
    """Return whether the tokens say another text; a space that the tokenizer puts before it does not count."""
    said = tokenizer.decode(ids)
    return said not in (text, f" {text}")


def _first_character(tokenizer: Tokenizer, ids: Sequence[int], text: str) -> int | None:
    """Return how many of the first tokens say a whole beginning of the text; None if no few of them do."""
    for count in range(1, min(len(ids), _LONGEST_CHARACTER) + 1):
        if _said(tokenizer, ids[:count], text):
            return count
    return None


def _said(tokenizer: Tokenizer, ids: Sequence[int], text: str) -> str:
    """Return what tokens say if the text begins with it, else nothing: half a character decodes to something else."""
    said = tokenizer.decode(ids)
    if said and text.startswith(said):
        return said
    bare = said.removeprefix(" ")
    return bare if bare and text.startswith(bare) else ""


def _logprobs(logits: NDArray[np.float32], ids: Sequence[int]) -> list[float]:
    """Return ln p of each token but the first, from the logits before it, in float64."""
    import numpy as np  # noqa: PLC0415 - heavy; only when a model is at hand

    if logits.shape[0] != len(ids):
        raise ValueError(f"{len(ids)} tokens, logits of {logits.shape[0]} positions")
    found: list[float] = []
    for start in range(0, len(ids) - 1, _ROWS_AT_ONCE):
        end = min(start + _ROWS_AT_ONCE, len(ids) - 1)
        rows = logits[start:end].astype(np.float64)
        top = rows.max(axis=1, keepdims=True)
        total = np.log(np.exp(rows - top).sum(axis=1)) + top[:, 0]
        chosen = rows[np.arange(end - start), np.asarray(ids[start + 1 : end + 1])]
        found += (chosen - total).tolist()
    if not all(map(math.isfinite, found)):
        raise ValueError("logits are not finite")
    return [min(0.0, value) for value in found]  # rounding may leave 1e-16 above a certainty


def _total(logprobs_nats: Sequence[float]) -> float:
    if not logprobs_nats:
        raise ValueError("no token was predicted")
    if not all(math.isfinite(value) and value <= 0 for value in logprobs_nats):
        raise ValueError("logarithms of probabilities must be finite and not above 0")
    return math.fsum(logprobs_nats)


def _positive(predicted_bytes: int) -> int:
    if predicted_bytes < 1:
        raise ValueError("no byte was predicted")
    return predicted_bytes
