"""Schedules of open loops: their distribution, and that they repeat."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import InputError
from perjoule.load.arrivals import arrival_times


def poisson(seed: int, *, process: int = 0, rate: float = 5.0, duration: float = 200.0) -> list[float]:
    return arrival_times("poisson", rate_per_s=rate, duration_s=duration, seed=seed, process=process)


def test_poisson_counts_have_the_mean_and_the_variance_of_a_poisson_process():
    counts = [len(poisson(seed)) for seed in range(400)]
    standard_error = math.sqrt(1000 / 400)
    assert abs(statistics.fmean(counts) - 1000) < 4 * standard_error
    # the variance of a sample variance of n Poisson counts is about 2 mean^2 / n
    assert abs(statistics.variance(counts) / 1000 - 1) < 4 * math.sqrt(2 / 400)


def test_poisson_gaps_are_exponential():
    gaps = sorted(b - a for seed in range(20) for a, b in itertools.pairwise(poisson(seed)))
    worst = max(abs(i / len(gaps) - (1 - math.exp(-5 * gap))) for i, gap in enumerate(gaps))
    assert worst < 1.63 / math.sqrt(len(gaps))  # Kolmogorov-Smirnov at 1 %


def test_disjoint_stretches_of_a_poisson_load_do_not_know_of_each_other():
    halves = [(sum(t < 100 for t in times), sum(t >= 100 for t in times)) for times in map(poisson, range(400))]
    assert abs(statistics.correlation(*zip(*halves, strict=True))) < 4 / math.sqrt(400)


def test_the_same_seed_gives_the_same_schedule_and_another_process_another():
    assert poisson(7) == poisson(7)
    assert poisson(7)[:3] == pytest.approx([0.00025115, 0.02786204, 0.03374767], abs=1e-8), "the same on every machine"
    first = {tuple(poisson(seed, process=process)[:3]) for seed in range(4) for process in range(4)}
    assert len(first) == 16


def test_a_rate_changes_the_scale_of_a_schedule_only():
    """Rates are compared on the same draw, so that a search is not led by luck."""
    slow, fast = poisson(3, rate=1.0), poisson(3, rate=4.0)
    assert [t / 4 for t in slow[:50]] == pytest.approx(fast[:50])


def test_a_draw_without_an_arrival_gets_one():
    empty = [t for seed in range(50) if (t := poisson(seed, rate=0.1, duration=1.0)) == [0.5]]
    assert len(empty) > 30


@given(rate=st.floats(0.01, 500), duration=st.floats(0.01, 200), seed=st.integers(0, 99))
def test_any_schedule_is_in_order_and_within_the_duration(rate: float, duration: float, seed: int):
    for kind in ("poisson", "constant"):
        times = arrival_times(kind, rate_per_s=rate, duration_s=duration, seed=seed)  # type: ignore[arg-type]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] < duration


@pytest.mark.parametrize(
    ("rate", "duration", "count"),
    [(4, 1, 4), (0.7, 10, 7), (4.9, 10, 49), (0.3, 10, 3), (1 / 3, 3, 1), (0.1, 30, 3), (3, 0.5, 2), (0.5, 0.1, 1)],
)
def test_a_constant_rate_is_exact(rate: float, duration: float, count: int):
    times = arrival_times("constant", rate_per_s=rate, duration_s=duration)
    assert times == pytest.approx([i / rate for i in range(count)])


def test_recorded_times_are_kept_up_to_the_duration():
    recorded = [0.0, 0.1, 0.1, 5.0, 9.0]
    assert arrival_times("recorded", rate_per_s=None, duration_s=9.0, recorded=recorded) == recorded[:4]


@pytest.mark.parametrize("kind", ["poisson", "constant"])
@pytest.mark.parametrize("rate", [None, 0.0, -1.0])
def test_without_a_rate_there_is_no_schedule(kind: str, rate: float | None):
    with pytest.raises(InputError, match="rate above 0"):
        arrival_times(kind, rate_per_s=rate, duration_s=1.0)  # type: ignore[arg-type]
