"""What is left of warm-up, in one process and over many, and a machine that drifts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.stats.steady import is_steady, settled
from perjoule.stats.trend import leftover_ramp, trend

NOISE = random.Random(5)
CALM = [1 + 0.02 * NOISE.gauss(0, 1) for _ in range(200)]


def test_a_ramp_is_cut_and_a_calm_series_hardly():
    ramp = [c + 2 * 0.9**i for i, c in enumerate(CALM)]
    cut = settled(ramp)
    assert cut is not None
    assert 25 <= cut <= 60
    calm = settled(CALM)
    assert calm is not None
    assert calm <= 100


def test_a_series_that_goes_on_rising_never_settles():
    assert settled([0.01 * i + c for i, c in enumerate(CALM)]) is None


def test_a_short_series_shows_nothing():
    assert settled(CALM[:19]) is None
    assert settled([1.0] * 20) == 0


@given(st.lists(st.floats(0, 1e3), max_size=80))
def test_a_cut_leaves_at_least_half_of_the_batches_of_five(values):
    cut = settled(values)
    assert cut is None or (cut % 5 == 0 and cut // 5 <= len(values) // 5 // 2)


@given(st.floats(0.03, 0.9), st.integers(2, 12))
def test_a_noiseless_ramp_is_never_steady_while_it_falls(step, count):
    assert not is_steady([1e12 * (1 - step) ** k for k in range(count)])  # never within what the scheduler does


def test_a_trend_has_the_slope_of_its_values_and_chance_has_none():
    rising = trend([1 + 0.01 * i for i in range(20)])
    assert rising is not None
    assert rising.drifts
    assert rising.change == pytest.approx(0.19 / 1.095)
    falling = trend([2 - 0.01 * i for i in range(20)])
    assert falling is not None
    assert falling.change < 0
    calm = trend(CALM[:40])
    assert calm is not None
    assert not calm.drifts


def test_a_trend_needs_eight_values_and_a_level():
    assert trend([1.0, 2.0] * 3 + [1.0]) is None
    assert trend([0.0] * 8) is None
    flat = trend([1.0] * 8)
    assert flat is not None
    assert (flat.change, flat.p) == (0.0, 1.0)


def test_kendall_s_p_is_scipy_s_where_neighbours_do_not_correlate():
    stats = pytest.importorskip("scipy.stats")
    values = [1.0, 3.0, 2.0, 2.0, 5.0, 1.0, 4.0, 2.0, 4.0, 3.0, 6.0, 1.0]
    found = trend(values)
    assert found is not None
    expected = stats.kendalltau(range(len(values)), values, method="asymptotic").pvalue
    assert found.p == pytest.approx(expected, rel=0.25)  # ours has the continuity correction


def test_a_ramp_left_over_is_the_fall_within_processes():
    found = leftover_ramp([[1.1 + 0.001 * i, 1.05, 1.0] for i in range(10)])
    assert found is not None
    assert found.fall == pytest.approx(0.1045, abs=1e-4)
    assert found.warming_up
    rising = leftover_ramp([[1.0, 1.1 + 0.001 * i] for i in range(10)])
    assert rising is not None
    assert not rising.warming_up
    assert leftover_ramp([[1.0, 1.1]] * 7 + [[1.0]]) is None
    same = leftover_ramp([[1.0, 1.0]] * 8)
    assert same is not None
    assert not same.warming_up
