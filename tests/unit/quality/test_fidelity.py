from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.quality.fidelity import compare, kl_nats, load_corpus


def test_divergence_of_two_coins_is_the_textbook_value() -> None:
    p, q = np.log([[0.5, 0.5]]).astype(np.float32), np.log([[0.9, 0.1]]).astype(np.float32)
    assert kl_nats(p, q)[0] == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1), rel=1e-6)


@given(st.integers(0, 1000), st.floats(-50, 50))
def test_a_shift_of_all_logits_changes_nothing(seed: int, shift: float) -> None:
    logits = np.random.default_rng(seed).standard_normal((3, 7)).astype(np.float32)
    assert kl_nats(logits, logits + np.float32(shift)).max() < 1e-9


def test_summary_counts_positions_and_equal_top_tokens() -> None:
    reference = np.eye(4, dtype=np.float32)
    candidate = reference[[0, 1, 2, 0]]
    found = compare([(reference, candidate)])
    assert (found.tokens, found.same_top_token, found.median_kl_nats) == (4, 0.75, 0.0)
    assert found.mean_kl_nats == pytest.approx(found.p99_kl_nats / (0.97 * 4), rel=1e-6)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        kl_nats(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match="not finite"):
        kl_nats(np.zeros((1, 3), np.float32), np.full((1, 3), np.nan, np.float32))


def test_pinned_corpus_is_the_one_that_ships() -> None:
    corpus = load_corpus()
    assert len(corpus.read()) == 4
    assert {text.language for text in corpus.text} == {"English", "Chinese", "Python"}
    assert corpus.tokens_per_text == 512
