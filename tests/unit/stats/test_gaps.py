"""Gaps between tokens from histograms: within half a percent of what the times of tokens say."""

from __future__ import annotations

import math
import random
import statistics

import msgspec
import pytest
from builders import make_process, make_raw, make_result, make_sample
from hypothesis import given
from hypothesis import strategies as st

from perjoule.assemble import MAX_TOKEN_TIMES, assemble, derive, thinned
from perjoule.records import Missing, Quantity
from perjoule.stats.gaps import FIRST_S, RATIO, gaps_of, histogram, itl, itl_p99, quantile_of
from perjoule.stats.selection import group_by_process
from perjoule.verify import verify

HALF_A_BIN = math.sqrt(RATIO) - 1


def sample_with(gaps: list[float], index: int = 2, process: int = 0):
    times = [10.0]
    for gap in gaps:
        times.append(times[-1] + gap)
    return make_sample(
        process, index, start_s=9.0, output_tokens=len(times), first_token_s=10.0, token_times_s=tuple(times),
        end_s=times[-1],
    )  # fmt: skip


def nearest_rank(values: list[float], share: float) -> float:
    return sorted(values)[math.ceil(share * len(values)) - 1]


@given(
    gaps=st.lists(st.floats(2e-6, 10.0), min_size=1, max_size=200),
    share=st.sampled_from([0.01, 0.1, 0.5, 0.9, 0.99]),
)
def test_a_quantile_is_within_half_a_percent(gaps: list[float], share: float):
    sample = sample_with(gaps)
    found, exact = quantile_of(histogram(0, [sample]), share), nearest_rank(gaps_of(sample), share)
    assert found == pytest.approx(exact, rel=HALF_A_BIN * 1.01)
    assert HALF_A_BIN < 0.005


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_many_gaps_of_a_real_shape_agree_with_their_times(share: float):
    draw = random.Random(2)
    sample = sample_with([0.02 * draw.lognormvariate(0, 0.4) for _ in range(20_000)])
    exact = statistics.quantiles(gaps_of(sample), n=100)[round(share * 100) - 1]
    assert quantile_of(histogram(0, [sample]), share) == pytest.approx(exact, rel=0.005)


def test_nothing_is_lost_at_the_edges():
    sample = sample_with([0.0, 1e-9, FIRST_S, FIRST_S * RATIO, 100.0])
    counted = histogram(3, [sample])
    assert (counted.process, sum(counted.counts)) == (3, 5)
    assert counted.counts[0] >= 3, "what is shorter than the first bin is in it"
    assert counted.counts[-1] == 1
    assert sum(histogram(0, [make_sample(output_tokens=1)]).counts) == 0
    with pytest.raises(ValueError, match="without gaps"):
        quantile_of(histogram(0, []), 0.5)


def test_percentiles_of_gaps_need_a_hundred_in_each_process():
    long, short = sample_with([0.02] * 150), sample_with([0.02] * 50, process=1)
    for histograms in ((), (histogram(0, [long]),)):
        assert isinstance(itl_p99([[long]], histograms), Quantity)
    for histograms in ((), (histogram(0, [long]), histogram(1, [short]))):
        assert isinstance(itl_p99([[long], [short]], histograms), Missing)
    told = itl_p99([[long], [short]], ())
    assert isinstance(told, Missing)
    assert "100 gaps a process, the shortest has 50" in told.reason
    single = itl([[make_sample(output_tokens=1)]], ())
    assert isinstance(single, Missing)
    assert "one token" in single.reason


def many(tokens: int):
    """Return a run of five processes with gaps of 15 to 25 ms; about ``tokens`` times of tokens in all."""
    draw, runs = random.Random(4), []
    for process in range(5):
        run = make_process(process, requests=3)
        samples = []
        for sample in run.samples:
            start = 100.0 * process * tokens + sample.index * tokens
            times = [start + 0.5]
            for _ in range(tokens // 25):
                times.append(times[-1] + draw.uniform(0.015, 0.025))
            samples.append(msgspec.structs.replace(
                sample, start_s=start, first_token_s=times[0], token_times_s=tuple(times), end_s=times[-1],
                output_tokens=len(times),
            ))  # fmt: skip
        runs.append(msgspec.structs.replace(run, samples=tuple(samples)))
    return make_raw(runs=tuple(runs))


def test_too_many_times_of_tokens_become_histograms_and_the_result_still_verifies():
    raw = many(MAX_TOKEN_TIMES + 100)
    everything = [s for run in raw.runs for s in run.samples]
    assert sum(len(s.token_times_s or ()) for s in everything) > MAX_TOKEN_TIMES
    result = assemble(raw)
    assert all(s.token_times_s is None and "gap_histograms" in str(s.token_times_s_missing) for s in result.samples)
    assert [h.process for h in result.gap_histograms] == [0, 1, 2, 3, 4]
    assert verify(result) == []
    assert derive(result) == result
    measured = [[s for s in run.samples if s.phase == "measured"] for run in raw.runs]
    for found, exact in (
        (result.metric("itl_s"), itl(measured, ())),
        (result.metric("itl_p99_s"), itl_p99(measured, ())),
    ):
        assert isinstance(found, Quantity)
        assert isinstance(exact, Quantity)
        assert found.value == pytest.approx(exact.value, rel=0.005)
    # what does not need the times is the same
    assert result.metric("tpot_s") == assemble(many(MAX_TOKEN_TIMES + 100)).metric("tpot_s")


def test_a_changed_histogram_is_found_out():
    result = assemble(many(MAX_TOKEN_TIMES + 100))
    first, *others = result.gap_histograms
    moved = msgspec.structs.replace(first, counts=(*first.counts[1:], 0, *first.counts[:1]))
    assert verify(msgspec.structs.replace(result, gap_histograms=(moved, *others)))


def test_few_times_of_tokens_are_kept():
    result = make_result()
    assert result.gap_histograms == ()
    assert all(s.token_times_s for s in result.samples)


def test_gaps_of_disturbed_requests_are_not_in_the_histograms_either():
    samples = tuple(sample_with([0.02] * 20_000, index=i, process=i % 2) for i in range(4))
    clean = [s for s in samples if s.process == 0]
    bare, histograms = thinned(samples, group_by_process(clean))
    assert [(h.process, sum(h.counts)) for h in histograms] == [(0, 40_000)]
    assert all(s.token_times_s is None for s in bare)
