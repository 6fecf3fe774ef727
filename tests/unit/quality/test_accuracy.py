from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from perjoule.quality.accuracy import accuracy, wilson
from perjoule.quality.cost_per_correct import LEAST_QUESTIONS, NO_CORRECT, cost_per_correct
from perjoule.records import Energy, Missing, Quantity


def make_source(**changes) -> Energy:
    values = {
        "value": 2.0, "low": 1.8, "high": 2.2, "unit": "J/token", "n": 5, "statistic": "mean over processes",
        "interval": "t", "label": "measured", "grade": "RAPL", "scope": "package", "convention": "gross",
        "random": (2.0, 2.0), "systematic": (1.9, 2.1),
    }  # fmt: skip
    return Energy(**{**values, **changes})


@given(st.integers(2, 300), st.data())
def test_the_interval_is_wilsons(n, data):
    right = data.draw(st.integers(0, n))
    found = accuracy([True] * right + [False] * (n - right))
    known = binomtest(right, n).proportion_ci(method="wilson")
    assert isinstance(found, Quantity)
    assert (found.value, found.n) == (right / n, n)
    assert found.low == pytest.approx(known.low, abs=1e-9)
    assert found.high == pytest.approx(known.high, abs=1e-9)


@pytest.mark.parametrize("correct", [[], [True], [False]])
def test_one_answer_has_no_interval(correct):
    found = accuracy(correct)
    assert isinstance(found, Missing)
    assert "at least 2" in found.reason


def test_clusters_that_agree_count_once():
    correct = [True, False, True, True, False, True, True, False, True, True] * 3
    alone = accuracy(correct[:10])
    same = accuracy(correct, clusters=[str(i % 10) for i in range(30)])
    independent = accuracy(correct)
    assert isinstance(same, Quantity)
    assert isinstance(alone, Quantity)
    assert isinstance(independent, Quantity)
    assert same.value == alone.value
    assert same.high - same.low == pytest.approx(alone.high - alone.low, rel=0.06)
    assert same.high - same.low > 1.5 * (independent.high - independent.low)


@given(st.lists(st.booleans(), min_size=6, max_size=60), st.integers(2, 5))
def test_clusters_never_narrow_an_interval(correct, groups):
    clusters = [str(i % groups) for i in range(len(correct))]
    found, plain = accuracy(correct, clusters=clusters), accuracy(correct)
    assert isinstance(found, Quantity)
    assert isinstance(plain, Quantity)
    assert found.low <= plain.low + 1e-12
    assert found.high >= plain.high - 1e-12


def test_clusters_hold_the_truth_where_questions_go_together():
    """Each cluster is right or wrong as a whole: 95 % intervals that took answers for independent would miss often."""
    generator = random.Random(7)
    held = plain = 0
    for _ in range(300):
        whole = [generator.random() < 0.6 for _ in range(30)]
        correct = [one for one in whole for _ in range(3)]
        clustered = accuracy(correct, clusters=[str(i // 3) for i in range(90)])
        independent = accuracy(correct)
        assert isinstance(clustered, Quantity)
        assert isinstance(independent, Quantity)
        held += clustered.low <= 0.6 <= clustered.high
        plain += independent.low <= 0.6 <= independent.high
    assert held >= 0.91 * 300
    assert plain < 0.85 * 300


def test_clusters_must_be_those_of_the_answers():
    with pytest.raises(ValueError, match="clusters"):
        accuracy([True, False], clusters=["a"])
    assert isinstance(accuracy([True, False], clusters=["a", "a"]), Missing)


COSTS = st.integers(LEAST_QUESTIONS, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(0.01, 1e4), min_size=n, max_size=n),
        st.lists(st.integers(1, 500), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n).filter(any),
    )
)


@settings(max_examples=25, deadline=None)  # each draws thousands of resamples
@given(COSTS)
def test_the_factors_multiply_to_the_cost(case):
    joules, tokens, correct = case
    found = cost_per_correct(joules, tokens, correct, source=make_source())
    cost = found.energy_j_per_correct
    assert isinstance(cost, Energy)
    assert isinstance(found.accuracy, Quantity)
    product = found.energy_j_per_token * found.tokens_per_answer / found.accuracy.value
    assert cost.value == pytest.approx(product, rel=1e-12)
    assert cost.value == pytest.approx(sum(joules) / sum(correct))
    assert (cost.label, cost.scope, cost.convention, cost.unit) == ("measured", "package", "gross", "J")
    assert cost == cost_per_correct(joules, tokens, correct, source=make_source()).energy_j_per_correct


def test_pairs_stay_together():
    """Wrong answers that ran into the limit cost ten times as much: joules and correctness vary together."""
    correct = [i % 2 == 0 for i in range(40)]
    joules = [1.0 if c else 10.0 for c in correct]
    shuffled = [10.0 if i < 20 else 1.0 for i in range(40)]
    together = cost_per_correct(joules, [5] * 40, correct, source=make_source()).energy_j_per_correct
    apart = cost_per_correct(shuffled, [5] * 40, correct, source=make_source()).energy_j_per_correct
    assert isinstance(together, Energy)
    assert isinstance(apart, Energy)
    assert together.value == apart.value
    assert together.random[1] - together.random[0] > 1.2 * (apart.random[1] - apart.random[0])


def test_no_right_answer_has_no_cost_but_its_factors():
    found = cost_per_correct([1.0] * 30, [10] * 30, [False] * 30, source=make_source())
    assert found.energy_j_per_correct == Missing(reason=NO_CORRECT)
    assert (found.energy_j_per_token, found.tokens_per_answer) == (0.1, 10)
    assert isinstance(found.accuracy, Quantity)
    assert found.accuracy.value == 0


def test_one_right_answer_of_thirty_has_no_upper_bound():
    found = cost_per_correct([1.0] * 30, [10] * 30, [True] + [False] * 29, source=make_source()).energy_j_per_correct
    assert isinstance(found, Energy)
    assert found.value == 30
    assert found.high is None
    assert "no right answer" in str(found.high_missing)
    assert found.low is not None
    assert found.low < 30 / 2


def test_few_questions_have_no_bounds():
    n = LEAST_QUESTIONS - 1
    found = cost_per_correct([1.0] * n, [10] * n, [True] * n, source=make_source()).energy_j_per_correct
    assert isinstance(found, Energy)
    assert (found.low, found.high, found.interval) == (None, None, "none")
    assert str(n) in str(found.low_missing)


def test_all_right_is_still_uncertain_upwards():
    found = cost_per_correct([1.0] * 30, [10] * 30, [True] * 30, source=make_source()).energy_j_per_correct
    assert isinstance(found, Energy)
    assert found.random == pytest.approx((1.0, 1 / wilson(1.0, 30)[0]))


def test_processes_and_sensor_widen_the_interval():
    correct = [i % 3 > 0 for i in range(60)]
    joules = [1.0 + i / 60 for i in range(60)]
    still = cost_per_correct(joules, [10] * 60, correct, source=make_source(systematic=(2.0, 2.0)))
    noisy = cost_per_correct(joules, [10] * 60, correct, source=make_source(random=(1.6, 2.5)))
    a, b = still.energy_j_per_correct, noisy.energy_j_per_correct
    assert isinstance(a, Energy)
    assert isinstance(b, Energy)
    assert a.low is not None
    assert a.high is not None
    assert (a.low, a.high) == pytest.approx(a.random)
    up = math.hypot(math.log(a.random[1] / a.value), math.log(1.25))
    assert b.random[1] == pytest.approx(b.value * math.exp(up))
    assert b.high == pytest.approx(b.random[1] * 1.05)
    assert b.low == pytest.approx(b.random[0] * 0.95)
    assert b.systematic == pytest.approx((b.value * 0.95, b.value * 1.05))


@pytest.mark.parametrize(
    ("joules", "tokens", "correct", "said"),
    [
        ([1.0], [1], [True], "two questions"),
        ([1.0, 2.0], [1], [True, False], "1 tokens"),
        ([0.0, 0.0], [1, 1], [True, False], "above 0"),
        ([-1.0, 2.0], [1, 1], [True, False], "above 0"),
        ([1.0, 2.0], [0, 1], [True, False], "above 0"),
    ],
)
def test_nonsense_is_refused(joules, tokens, correct, said):
    with pytest.raises(ValueError, match=said):
        cost_per_correct(joules, tokens, correct, source=make_source())


def test_the_bootstrap_holds_the_truth():
    generator = random.Random(3)
    held, runs = 0, 60
    for _ in range(runs):
        joules = [generator.lognormvariate(0, 0.5) for _ in range(50)]
        correct = [generator.random() < 0.5 for _ in range(50)]
        found = cost_per_correct(joules, [10] * 50, correct, source=make_source(systematic=(2.0, 2.0)))
        cost = found.energy_j_per_correct
        assert isinstance(cost, Energy)
        assert cost.low is not None
        held += cost.low <= math.exp(0.125) / 0.5 <= (cost.high or math.inf)
    assert held >= 0.85 * runs
