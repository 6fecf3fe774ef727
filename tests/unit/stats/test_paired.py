"""Verdicts: what is compared, in which direction, at which level, and when no test is run."""

from __future__ import annotations

import math
import random

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from perjoule.stats.paired import (
    PRIMARY,
    Control,
    compare_pairs,
    compare_separate,
    control,
    holm,
    least_pairs,
    log_ratio_half_width,
    log_ratios,
)
from perjoule.stats.sequential import Targets, enough_pairs

TARGETS = Targets(min_processes=5, half_width=0.05, budget_s=100.0)


def values(count, ratio=1.0, spread=0.01, seed=1):
    draw = random.Random(seed)
    return [[math.exp(spread * draw.gauss(0, 1)) * r for _ in range(count)] for r in (1.0, ratio)]


@pytest.mark.parametrize(
    ("metric", "verdict"),
    [("ttft_s", "worse"), ("decode_tokens_per_s", "better"), ("energy_j_per_output_token", "worse"),
     ("peak_memory_bytes", "worse")],
)  # fmt: skip
@pytest.mark.parametrize("compare", [compare_pairs, compare_separate])
def test_more_is_better_for_rates_only(compare, metric, verdict):
    a, b = values(12, 1.1)
    assert compare({metric: (a, b)})[metric].verdict == verdict
    assert compare({metric: (b, a)})[metric].verdict == ({"worse", "better"} - {verdict}).pop()
    assert compare({metric: (a, values(12, seed=2)[0])})[metric].verdict == "not distinguishable"


def test_the_ratio_has_its_interval_and_its_p_is_student_s_widened_for_stopping():
    a, b = values(16, 1.02, 0.02)
    ratios = log_ratios(a, b)
    found = compare_pairs({"ttft_s": (a, b)})["ttft_s"]
    assert found.ratio == pytest.approx(math.exp(sum(ratios) / 16))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.ratio < found.high
    assert found.p is not None
    assert found.p >= scipy.stats.ttest_1samp(ratios, 0).pvalue
    half = log_ratio_half_width(ratios)
    assert half == pytest.approx(found.high / found.ratio - 1)


def test_separate_runs_are_welch_s_and_wider():
    a, b = values(14, 1.05, 0.03)[0], values(20, 1.05, 0.08, seed=3)[1]
    found = compare_separate({"ttft_s": (a, b)})["ttft_s"]
    welch = scipy.stats.ttest_ind([math.log(x) for x in b], [math.log(x) for x in a], equal_var=False)
    assert found.p is not None
    assert found.p >= welch.pvalue
    assert found.n == 14
    assert found.low is not None
    assert math.log(found.low) < welch.confidence_interval(0.95).low


def test_two_single_values_and_too_few_pairs_are_never_tested():
    single = compare_separate({"ttft_s": ([1.0], [2.0])})["ttft_s"]
    assert (single.verdict, single.p, single.low) == ("not distinguishable", None, None)
    assert "cannot show" in str(single.p_missing)
    for count in range(1, 12):
        a, b = values(count, 1.5)
        found = compare_pairs(dict.fromkeys(PRIMARY, (a, b)))["ttft_s"]
        assert (found.p is not None) is (count >= 8)
        assert (found.verdict == "worse") is (count >= 8)


@given(st.integers(1, 30))
def test_the_least_pairs_are_those_whose_order_could_show_it(family):
    least = least_pairs(family)
    assert 2.0 ** (1 - least) <= 0.05 / family < 2.0 ** (2 - least)


def test_other_metrics_have_an_interval_and_no_verdict_unless_named():
    a, b = values(12, 1.1)
    alone = compare_pairs({"load_s": (a, b)})["load_s"]
    assert alone.verdict is None
    assert alone.p is None
    assert "named" in str(alone.verdict_missing)
    assert alone.low is not None
    assert compare_pairs({"load_s": (a, b)}, named=["load_s"])["load_s"].verdict == "worse"


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1), min_size=1))
def test_holm_is_monotone_and_between_no_correction_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for name, p in p_values.items():
        assert p <= adjusted[name] <= min(1.0, p * len(p_values)) or adjusted[name] == pytest.approx(p)
    order = sorted(p_values, key=lambda n: p_values[n])
    assert [adjusted[n] for n in order] == sorted(adjusted.values())


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})


def test_worse_by_more_than_a_threshold():
    a, b = values(20, 1.05)
    assert compare_pairs({"ttft_s": (a, b)}, threshold=0.02)["ttft_s"].verdict == "worse"
    assert compare_pairs({"ttft_s": (a, b)}, threshold=0.05)["ttft_s"].verdict == "not distinguishable"
    assert compare_pairs({"ttft_s": (b, a)}, threshold=0.05)["ttft_s"].verdict == "better"
    with pytest.raises(ValueError, match="threshold"):
        compare_pairs({"ttft_s": (a, b)}, threshold=-0.1)


def test_a_known_difference_without_spread_is_found_and_none_is_not():
    found = compare_pairs({"peak_memory_bytes": ([1e9] * 8, [2e9] * 8), "ttft_s": ([1.0] * 8, [1.0] * 8)})
    assert found["peak_memory_bytes"].verdict == "worse"
    assert found["peak_memory_bytes"].p == 2.0**-7
    assert (found["ttft_s"].p, found["ttft_s"].verdict) == (1.0, "not distinguishable")


def test_what_a_control_shows_beyond_chance_is_variance_not_a_dead_zone():
    a, b = values(20, 1.05)
    quiet = control([log_ratios(*values(20, seed=s)) for s in (4, 5, 6)])
    assert quiet.variance < 1e-5
    uneven = control([[0.05 + 0.01 * (-1) ** i for i in range(20)], [-0.05 + 0.01 * (-1) ** i for i in range(20)]])
    assert uneven.variance == pytest.approx(0.05**2, rel=0.01)
    plain = compare_pairs({"ttft_s": (a, b)})["ttft_s"]
    wide = compare_pairs({"ttft_s": (a, b)}, controls={"ttft_s": uneven})["ttft_s"]
    assert plain.verdict == "worse"
    assert wide.verdict == "not distinguishable"
    assert wide.ratio == plain.ratio
    assert wide.high is not None
    assert plain.high is not None
    assert wide.high > plain.high
    with pytest.raises(ValueError, match="two pairs"):
        control([[0.1]])


def test_ratios_need_values_above_zero_and_pairs():
    for a, b in (([0.0], [1.0]), ([1.0], [1.0, 2.0]), ([], [])):
        with pytest.raises(ValueError, match=r"above 0|argument"):
            log_ratios(a, b)


def test_pairs_are_added_until_the_ratios_or_the_budget():
    few, many = (dict.fromkeys(PRIMARY, log_ratios(*values(n, spread=0.01))) for n in (7, 8))
    assert not enough_pairs(few, TARGETS, measuring_s=10.0).stop  # too few for a verdict, however narrow
    assert "within" in enough_pairs(many, TARGETS, measuring_s=10.0).reason
    assert "budget" in enough_pairs(few, TARGETS, measuring_s=99.0).reason
    floor = dict.fromkeys(PRIMARY, Control(variance=0.01, controls=3))
    assert not enough_pairs(many, TARGETS, measuring_s=10.0, controls=floor).stop
    assert not enough_pairs({m: [] for m in PRIMARY}, TARGETS, measuring_s=0.0).stop
