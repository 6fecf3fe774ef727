"""Whether an engine keeps up: never doubted while it does, soon seen when it does not."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from fake_engines import OneByOne, Together, prompts
from traces import SimulatedClock

from perjoule.load.arrivals import arrival_times
from perjoule.load.saturation import GRACE_SHARE, LONGEST_SHARE, MIN_WAITING, Saturation
from perjoule.load.serve import Tally, serve_one_by_one, serve_together
from perjoule.load.sources import OpenLoop

PLACES, TOKENS, PREFILL_S, STEP_S = 4, 64, 0.1, 0.02
SERVICES = {
    "constant": lambda _draw: 1.0,
    "uniform": lambda draw: draw.uniform(0.5, 1.5),
    "exponential": lambda draw: draw.expovariate(1.0),
}


def one_by_one(service: str, rho: float, count: int, seed: int, kind: str = "poisson") -> tuple[Tally, float]:
    """Return a load of about ``count`` requests, and its length as a share of the planned one."""
    clock, draw, planned_s = SimulatedClock(), random.Random(seed), count / rho
    times = arrival_times(kind, rate_per_s=rho, duration_s=planned_s, seed=seed)  # type: ignore[arg-type]
    engine = OneByOne(clock, lambda: SERVICES[service](draw))
    tally = serve_one_by_one(
        engine, OpenLoop(times, planned_s), prompts(len(times)), 1, clock, Saturation(rho, planned_s)  # type: ignore[arg-type]
    )  # fmt: skip
    return tally, (tally.end_ns - tally.start_ns) / 1e9 / planned_s


def together(rho: float, count: int, seed: int) -> tuple[Tally, float]:
    """The same for four places; full, they answer four requests in four prefills and 63 steps."""
    rate = rho * PLACES / (PLACES * PREFILL_S + (TOKENS - 1) * STEP_S)
    clock, planned_s = SimulatedClock(), count / rate
    times = arrival_times("poisson", rate_per_s=rate, duration_s=planned_s, seed=seed)
    tally = serve_together(
        Together(clock, PLACES, PREFILL_S, STEP_S), PLACES, OpenLoop(times, planned_s), prompts(len(times)), TOKENS,
        clock, Saturation(rate, planned_s, PLACES),
    )  # fmt: skip
    return tally, (tally.end_ns - tally.start_ns) / 1e9 / planned_s


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("rho", [0.5, 0.8])
def test_an_engine_with_room_is_never_taken_to_be_full(service: str, rho: float):
    assert not [seed for seed in range(60) if one_by_one(service, rho, 300, seed)[0].verdict]


@pytest.mark.parametrize("service", SERVICES)
def test_false_alarms_just_below_capacity_are_one_in_a_hundred_at_most(service: str):
    alarms = sum(bool(one_by_one(service, 0.95, 300, seed)[0].verdict) for seed in range(200))
    assert alarms <= 2


@pytest.mark.parametrize("rho", [0.5, 0.8, 0.95])
def test_a_batching_engine_with_room_is_never_taken_to_be_full(rho: float):
    assert not [seed for seed in range(20) if together(rho, 300, seed)[0].verdict]


@pytest.mark.parametrize("count", [60, 300])
@pytest.mark.parametrize("rho", [1.5, 4.0])
@pytest.mark.parametrize("service", ["constant", "uniform"])
def test_an_engine_beyond_its_capacity_is_found_out_in_time(service: str, rho: float, count: int):
    for seed in range(30):
        tally, share = one_by_one(service, rho, count, seed)
        assert tally.verdict.startswith("saturated: ")
        assert share <= 1.2
        assert len(tally.answers) < tally.offered


@pytest.mark.parametrize("service", ["constant", "uniform"])
def test_a_tenth_too_much_is_found_out_too(service: str):
    found = [one_by_one(service, 1.1, 300, seed) for seed in range(30)]
    assert all(tally.verdict for tally, _share in found)
    assert max(share for _tally, share in found) <= 1.2


@pytest.mark.parametrize(("rho", "count"), [(1.1, 300), (1.5, 300), (4.0, 300), (1.5, 60), (4.0, 60)])
def test_a_batching_engine_beyond_its_capacity_is_found_out_in_time(rho: float, count: int):
    for seed in range(10):
        tally, share = together(rho, count, seed)
        assert tally.verdict.startswith("saturated: ")
        assert share <= 1.2


@pytest.mark.parametrize("rho", [1.5, 4.0])
def test_a_constant_load_beyond_capacity_is_found_out_after_twenty_answers(rho: float):
    tally, share = one_by_one("constant", rho, 300, 0, "constant")
    assert f"about {1:.3g} are answered" in tally.verdict
    assert len(tally.answers) < 40
    assert share < 0.6


def test_a_load_that_stands_still_is_ended_at_the_first_answer_after_its_time():
    """Nothing can interrupt a request: the load of 10 s is over when its first one is, of 15 s."""
    clock = SimulatedClock()
    tally = serve_one_by_one(
        OneByOne(clock, lambda: 15.0), OpenLoop([0.0, 1.0], 10.0), prompts(2), 1, clock, Saturation(0.2, 10.0)  # type: ignore[arg-type]
    )  # fmt: skip
    assert "1 requests were unanswered 5 s after the load was to end" in tally.verdict
    assert len(tally.answers) == 1


def told(gaps_s: list[float], *, rate: float, waiting: int = MIN_WAITING, full: bool = True) -> str:
    judge, now_ns, verdict = Saturation(rate, 1e6), 0, ""
    judge.begin(0)
    judge.answered(0, 1, waiting, full=full)
    for gap in gaps_s:
        now_ns += round(gap * 1e9)
        verdict = verdict or judge.answered(now_ns, 1, waiting, full=full)
    return verdict


def test_only_a_full_engine_shows_its_capacity():
    assert told([1.0] * 30, rate=1.2)
    assert not told([1.0] * 30, rate=1.2, full=False), "it may have had nothing to do"
    assert not told([1.0] * 30, rate=1.2, waiting=MIN_WAITING - 1), "a burst explains it"
    assert not told([1.0] * 15, rate=1.2), "too few"
    assert not told([1.0] * 1000, rate=1.0)


def test_the_spread_of_the_answers_counts():
    noisy = [0.1, 1.9] * 15
    assert told([1.0] * 30, rate=1.1)
    assert not told(noisy, rate=1.1), "0.9 s of deviation over 30 answers is 16 %, three of which are 49 %"
    assert told(noisy * 40, rate=1.1)


def test_what_waits_at_the_end_is_given_time_by_what_is_known():
    def late(judge: Saturation, seconds: float, unanswered: int = 1) -> bool:
        return bool(judge.overdue(round((100 + seconds) * 1e9), unanswered))

    unknown = Saturation(1.0, 100.0)
    unknown.begin(0)
    assert [late(unknown, s) for s in (-1, 100 * GRACE_SHARE - 1, 100 * GRACE_SHARE + 1)] == [False, False, True]
    assert not late(unknown, 1e6, unanswered=0)
    quick, slow = Saturation(1.0, 100.0), Saturation(1.0, 100.0)
    for judge, gap_s in ((quick, 0.9), (slow, 1.5)):
        judge.begin(0)
        for answer in range(10):
            judge.answered(round(answer * gap_s * 1e9), 1, 1, full=True)
    assert [late(quick, s) for s in (40, 100 * LONGEST_SHARE - 1, 100 * LONGEST_SHARE)] == [False, False, True]
    assert [late(slow, 1, unanswered=n) for n in (1, 9, 10)] == [False, False, True], "ten more take 15 s: hopeless"


def test_places_that_end_together_are_taken_together():
    """Four answers at once each 4 s: one a second, though three of four gaps are nothing."""

    def verdict(rate: float) -> str:
        judge = Saturation(rate, 1e6, places=4)
        judge.begin(0)
        judge.answered(0, 4, 8, full=True)
        return next((v for i in range(1, 12) if (v := judge.answered(4 * i * 10**9, 4, 8, full=True))), "")

    assert "about 1 are answered" in verdict(1.05)
    assert not verdict(0.99)


def test_services_are_drawn_as_they_are_named():
    draws = {name: [draw(random.Random(i)) for i in range(2000)] for name, draw in SERVICES.items()}
    assert all(abs(sum(values) / 2000 - 1) < 0.1 for values in draws.values())
    assert Counter(draws["constant"]) == {1.0: 2000}
