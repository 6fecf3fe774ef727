"""Fidelity as a result carries it: sums over blocks, and what follows from them."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from builders import make_quality, make_raw, make_result
from hypothesis import given
from hypothesis import strategies as st

from perjoule.assemble import assemble
from perjoule.quality.divergence import blocks_of, fidelity_of, nll_of
from perjoule.quality.fidelity import kl_nats, load_corpus
from perjoule.quality.intervals import BLOCK_POSITIONS, derive_fidelity
from perjoule.quality.measure import NO_LOGITS, measure_quality
from perjoule.records import FidelityBlock
from perjoule.verify import verify

VOCABULARY = 11


def logits(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, VOCABULARY)).astype(np.float32)


def ids_of(rows: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCABULARY, rows).tolist()


@given(st.integers(1, 200), st.integers(0, 1000))
def test_blocks_add_up_to_the_whole_text(rows: int, seed: int) -> None:
    reference, candidate, ids = logits(rows, seed), logits(rows, seed + 1), ids_of(rows, seed)
    blocks, divergence = blocks_of("a", ids, reference, candidate)
    assert sum(b.positions for b in blocks) == rows == len(divergence)
    assert sum(b.predicted for b in blocks) == rows - 1  # the last token has nothing to predict
    assert all(b.positions <= BLOCK_POSITIONS for b in blocks)
    assert sum(b.kl_nats for b in blocks) == pytest.approx(kl_nats(reference, candidate).sum())
    assert sum(b.same_top for b in blocks) == (reference.argmax(1) == candidate.argmax(1)).sum()


def test_likelihood_is_of_the_token_that_follows() -> None:
    sure = np.full((3, 4), -100.0, np.float32)
    sure[0, 2] = sure[1, 3] = 0.0
    assert nll_of(sure, [1, 2, 3]) == pytest.approx([0.0, 0.0])
    assert nll_of(np.zeros((2, 4), np.float32), [0, 1]) == pytest.approx([math.log(4)])


def test_an_engine_that_is_its_reference_loses_nothing() -> None:
    same, ids = logits(256, 0), ids_of(256, 0)
    blocks, divergence = blocks_of("a", ids, same, same)
    found = fidelity_of("itself", load_corpus(), blocks, divergence)
    assert found.kl_divergence_nats.mean.value == pytest.approx(0.0, abs=1e-12)
    assert found.same_top_token.value == found.same_top_token.high == 1.0
    assert found.perplexity_ratio.low == found.perplexity_ratio.high == pytest.approx(1.0)


def test_the_interval_is_students_t_within_texts() -> None:
    """Two texts of two blocks each: means 1 and 3, 5 and 9; the difference between the texts is no spread."""
    made = [
        FidelityBlock(text=t, positions=10, predicted=10, kl_nats=10.0 * kl, same_top=5, nll_nats=1.0,
                      reference_nll_nats=1.0)
        for t, kl in (("a", 1.0), ("a", 3.0), ("b", 5.0), ("b", 9.0))
    ]  # fmt: skip
    mean = fidelity_of("r", load_corpus(), made, np.array([1.0])).kl_divergence_nats.mean
    # variance: (1/2)^2 * 2 / 2 + (1/2)^2 * 8 / 2 = 1.25; t of two degrees of freedom is 4.3027
    assert mean.value == pytest.approx(4.5)
    assert mean.high - mean.value == pytest.approx(4.302653 * math.sqrt(1.25), rel=1e-5)
    assert mean.low == 0.0  # a divergence is never below


def test_intervals_hold_the_truth_of_the_texts_they_come_from() -> None:
    """Blocks drawn within texts of different level: about 95 % of intervals hold the mean of the levels."""
    random, held = np.random.default_rng(1), 0
    levels = {"a": 0.01, "b": 0.05, "c": 0.02, "d": 0.03}
    for _ in range(400):
        made = [
            FidelityBlock(text=t, positions=64, predicted=64, kl_nats=64 * level * random.gamma(8, 1 / 8), same_top=60,
                          nll_nats=1.0, reference_nll_nats=1.0)
            for t, level in levels.items() for _ in range(8)
        ]  # fmt: skip
        mean = fidelity_of("r", load_corpus(), made, np.array([1.0])).kl_divergence_nats.mean
        held += mean.low <= 0.0275 <= mean.high
    assert 0.91 <= held / 400 <= 0.985


def test_one_block_a_text_has_no_bounds_and_says_so() -> None:
    blocks, divergence = blocks_of("a", ids_of(9, 3), logits(9, 3), logits(9, 4))
    mean = fidelity_of("r", load_corpus(), blocks, divergence).kl_divergence_nats.mean
    assert mean.low is None
    assert "spread" in str(mean.low_missing)


def test_a_result_keeps_its_quality_and_verify_computes_it_again() -> None:
    result = assemble(make_raw(quality=make_quality(kl_nats=0.4)))
    assert result.quality is not None
    assert derive_fidelity(result.quality.fidelity) == result.quality.fidelity
    assert verify(result) == []
    better = msgspec.structs.replace(result.quality.fidelity.same_top_token, value=0.99, high=1.0)
    forged = msgspec.structs.replace(result.quality.fidelity, same_top_token=better)
    told = verify(msgspec.structs.replace(result, quality=msgspec.structs.replace(result.quality, fidelity=forged)))
    assert any("quality.fidelity.same_top_token" in line for line in told)


def test_what_lost_its_fidelity_is_warned_of() -> None:
    lost = assemble(make_raw(quality=make_quality(kl_nats=0.4)))
    [check] = [c for c in lost.checks if c.code == "unfaithful"]
    assert check.severity == "warning"
    assert "0.4 nats" in check.message
    assert not any(c.code == "unfaithful" for c in assemble(make_raw(quality=make_quality(kl_nats=0.01))).checks)
    assert make_result().quality is None
    assert make_result().quality_missing == "nobody asked for it"


class NoLogits:
    tokenizer = None


def test_an_engine_without_logits_says_so() -> None:
    found = measure_quality(NoLogits(), "1", "no reference", "", lambda _text, _share: None)  # type: ignore[arg-type]
    assert (found.fidelity, found.fidelity_missing) == (None, NO_LOGITS)
