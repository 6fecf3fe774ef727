"""Early stopping, against the figures that LoadGen prints and against counting."""

from __future__ import annotations

import random

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from perjoule.stats.early_stopping import (
    chance_of_at_most,
    estimate,
    judge_server,
    least_queries,
    most_over,
    multi_stream,
    single_stream,
)


def test_the_minima_of_the_rules():
    assert (least_queries(1, 0.90), least_queries(1, 0.99)) == (64, 662)
    assert (least_queries(0, 0.90), least_queries(0, 0.99)) == (44, 459)  # ln 0.01 / ln p, rounded up


# "Processed at least 64 queries (n). Would discard k highest latency queries." in public mlperf_log_summary.txt files
@pytest.mark.parametrize(("n", "discarded"), [(2048, 172), (2116, 178), (2145, 181), (7469, 685)])
def test_as_many_are_discarded_as_in_published_summaries(n, discarded):
    found = single_stream([float(i) for i in range(n)])
    assert found.rank_from_top == discarded + 1
    assert found.value == n - 1 - discarded


@given(st.integers(0, 300), st.integers(1, 300), st.floats(0.05, 0.95))
def test_the_chance_is_the_binomial_s(over, n, percentile):
    expected = float(scipy.stats.binom.cdf(min(over, n), n, 1 - percentile))
    assert chance_of_at_most(over, n, percentile) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(st.integers(0, 40), st.sampled_from([0.5, 0.9, 0.99]))
def test_the_fewest_queries_pass_and_one_fewer_do_not(over, percentile):
    need = least_queries(over, percentile)
    assert chance_of_at_most(over, need, percentile) <= 1 - 0.99 < chance_of_at_most(over, need - 1, percentile)
    assert most_over(need, percentile) == over
    assert (most_over(need - 1, percentile) or 0) <= max(0, over - 1)


def test_too_few_queries_have_no_estimate_and_a_reason():
    found = multi_stream([1.0] * 661)
    assert (found.value, found.least) == (None, 662)
    assert "662" in str(found.value_missing)
    assert multi_stream([1.0] * 662).value == 1.0


def test_the_estimate_is_seldom_below_the_true_percentile():
    draw = random.Random(1)
    low = sum((estimate([draw.random() for _ in range(200)], 0.9).value or 0.0) < 0.9 for _ in range(2000))
    assert low <= 2000 * 0.01 + 14  # three standard errors


def test_a_server_run_is_judged_by_its_share_within_the_limit():
    assert judge_server(0, 459).passed
    refused = judge_server(0, 458)
    assert (refused.passed, refused.more) == (False, 1)
    late = judge_server(10, 1000)
    assert not late.passed
    assert judge_server(10, 1000 + late.more).passed
    assert str(late.more) in late.reason
    assert not judge_server(5, 5).passed
    with pytest.raises(ValueError, match="over"):
        judge_server(2, 1)
    with pytest.raises(ValueError, match="percentile"):
        judge_server(0, 1, share=1.0)
