from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.quality.bits_per_byte import Prediction, bits_per_byte, perplexity, predict, windows
from perjoule.records import Missing

VOCABULARY = 256
BOS = 0


class Bytes:
    """A token a byte: a character of Chinese takes three."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids) -> str:
        return bytes(ids).decode(errors="replace")


class Lossy(Bytes):
    def encode(self, text: str) -> list[int]:
        return super().encode(text.lower())


def even(ids):
    return np.zeros((len(ids), VOCABULARY), np.float32)


def of_position(ids):
    """Logits that depend on the token before, so that a wrong shift by one shows."""
    return np.stack([np.random.default_rng(i).standard_normal(VOCABULARY) for i in ids]).astype(np.float32)


def test_an_even_model_needs_eight_bits_for_a_byte_in_every_language():
    for text in ("plain", "人人生而自由", "모든"):
        found = predict(even, Bytes(), text, bos=BOS, context=64)
        assert isinstance(found, Prediction)
        assert found.bits_per_byte == pytest.approx(8)
        assert found.perplexity == pytest.approx(256)
        assert (found.tokens, found.bytes) == (len(text.encode()), len(text.encode()))
        assert "after BOS" in found.first_token


def test_without_a_first_token_the_first_character_does_not_count():
    for text, skipped in (("plain", 1), ("人人生而自由", 3)):
        found = predict(even, Bytes(), text, bos=None, context=64)
        assert isinstance(found, Prediction)
        size = len(text.encode()) - skipped
        assert (found.tokens, found.bytes, found.first_token) == (size, size, "not predicted")


def test_half_a_bit_a_byte_by_hand():
    assert bits_per_byte([math.log(0.5)] * 3, 6) == pytest.approx(0.5)
    assert perplexity([math.log(0.5), math.log(0.125)]) == pytest.approx(4)


@pytest.mark.parametrize(("logprobs", "size"), [([], 3), ([0.1], 3), ([-1.0], 0), ([-math.inf], 3), ([math.nan], 3)])
def test_nonsense_is_refused(logprobs, size):
    with pytest.raises(ValueError, match=r"predicted|finite"):
        bits_per_byte(logprobs, size)


@given(st.integers(1, 60), st.integers(2, 20), st.data())
def test_windows_predict_every_token_but_the_first_once(tokens, context, data):
    stride = data.draw(st.integers(1, context - 1))
    found = list(windows(tokens, context, stride))
    assert [i for w in found for i in range(w.first, w.end)] == list(range(1, tokens))
    assert all(w.end - w.start <= context for w in found)
    assert all(w.first - w.start == context - stride for w in found[1:])


@pytest.mark.parametrize(("context", "stride"), [(4, 0), (4, 4), (1, 1)])
def test_a_stride_that_would_leave_tokens_out_is_refused(context, stride):
    with pytest.raises(ValueError, match="stride"):
        list(windows(10, context, stride))


@given(st.text(st.characters(codec="utf-8"), min_size=2, max_size=30), st.integers(2, 12), st.booleans())
def test_windows_change_nothing_where_only_the_last_token_matters(text, context, begins):
    bos = BOS if begins else None
    whole = predict(of_position, Bytes(), text, bos=bos, context=1000)
    cut = predict(of_position, Bytes(), text, bos=bos, context=context, stride=1)
    assert isinstance(whole, Prediction)
    assert isinstance(cut, Prediction)
    assert whole.windows == 1
    assert cut.windows == max(1, whole.tokens - context + 1 + (1 if begins else len(text[0].encode())))
    assert cut.bits_per_byte == pytest.approx(whole.bits_per_byte)
    by_hand = [of_position([i])[0].astype(float) for i in text.encode()]
    nats = sum(
        math.log(np.exp(row).sum()) - row[following]
        for row, following in list(zip(by_hand, text.encode()[1:], strict=False))[len(text[0].encode()) - 1 :]
    )
    if not begins:
        assert whole.bits_per_byte * whole.bytes * math.log(2) == pytest.approx(nats, rel=1e-5)


def test_a_tokenizer_that_changes_the_text_gives_no_figure():
    found = predict(even, Lossy(), "All human beings", bos=None, context=64)
    assert isinstance(found, Missing)
    assert "another" in found.reason


def test_broken_logits_are_refused():
    with pytest.raises(ValueError, match="positions"):
        predict(lambda ids: even(ids[1:]), Bytes(), "text", bos=None, context=64)
    with pytest.raises(ValueError, match="finite"):
        predict(lambda ids: even(ids) + np.nan, Bytes(), "text", bos=None, context=64)
    with pytest.raises(ValueError, match="no token"):
        predict(even, Bytes(), "t", bos=None, context=64)
