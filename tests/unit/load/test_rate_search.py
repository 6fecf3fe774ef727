"""The search for the highest rate, on an engine whose answer is known: M/D/1 with a limit on a quantile of the wait."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.load.rate_search import MOST_TRIALS, RESOLUTION, RateSearch


def search(first: float, answer: float, most: int = MOST_TRIALS) -> RateSearch:
    found = RateSearch(first, most)
    while (rate := found.next_per_s()) is not None:
        found.tell(rate, met=rate <= answer)
    return found


@given(first=st.floats(0.05, 50), factor=st.floats(1 / 12, 8))
def test_the_rate_is_found_within_a_tenth_from_far_away(first: float, factor: float):
    answer = first * factor
    best = search(first, answer).best_per_s
    assert best is not None
    assert answer / RESOLUTION * 0.999999 <= best <= answer


def test_an_analytic_engine_is_driven_to_its_limit():
    """Mean wait of M/D/1 in services, rho / (2 (1 - rho)), must stay below 2: so rho may be 0.8."""
    found = RateSearch(0.4 / 0.25)
    while (rate := found.next_per_s()) is not None:
        rho = rate * 0.25
        found.tell(rate, met=rho < 1 and rho / (2 * (1 - rho)) <= 2.0)
    assert found.best_per_s == pytest.approx(0.8 / 0.25, rel=0.1)
    assert len(found.trials) <= 8


def test_no_trial_is_repeated_and_the_number_is_limited():
    for answer in (0.0, 1e-9, 1e9, math.inf):
        found = search(1.0, answer)
        rates = [t.rate_per_s for t in found.trials]
        assert len(set(rates)) == len(rates) == MOST_TRIALS
    assert search(1.0, 0.0).best_per_s is None
    assert search(1.0, math.inf).best_per_s == pytest.approx(1.5**9)


def test_a_lucky_trial_beyond_a_missed_one_ends_the_search():
    found = RateSearch(1.0)
    found.tell(2.0, met=False)
    found.tell(3.0, met=True)
    assert found.next_per_s() is None
    assert found.best_per_s == 3.0
