"""The queue in front of an engine, against schedules worked out by hand and against queueing theory."""

from __future__ import annotations

import gc
import itertools
import random
import statistics

import pytest
from fake_engines import OneByOne, Together, prompts, stamps_s, waits_s
from hypothesis import given
from hypothesis import strategies as st
from traces import SimulatedClock

from perjoule.load.arrivals import arrival_times
from perjoule.load.serve import Patient, Tally, serve_one_by_one, serve_together
from perjoule.load.sources import AllAtOnce, ClosedLoop, OpenLoop, Source


def alone(source: Source, count: int, seconds: float, *, tokens: int = 1, itl_s: float = 0.0) -> Tally:
    clock = SimulatedClock()
    return serve_one_by_one(OneByOne(clock, lambda: seconds, itl_s), source, prompts(count), tokens, clock)  # type: ignore[arg-type]


def test_an_engine_that_keeps_up_with_a_constant_rate_lets_nobody_wait():
    tally = alone(OpenLoop([0.0, 1.0, 2.0, 3.0], 4.0), 4, 0.75)
    assert stamps_s(tally) == [(i, i, i + 0.75) for i in range(4)]
    assert (tally.end_ns - tally.start_ns) / 1e9 == pytest.approx(4.0), "the gap after the last one belongs to the load"
    assert (tally.offered, tally.longest_wait_ns, tally.verdict) == (4, 0, "")


def test_an_engine_that_is_too_slow_does_not_slow_the_arrivals():
    """D/D/1 beyond capacity: request i is due at i and begun at 1.5 i, so it waits i / 2."""
    tally = alone(OpenLoop([float(i) for i in range(8)], 8.0), 8, 1.5)
    assert stamps_s(tally) == [(i, 1.5 * i, 1.5 * i + 1.5) for i in range(8)]
    assert tally.longest_wait_ns == pytest.approx(3.5e9)
    latency = [(a.token_ns[0] - a.due_ns) / 1e9 for a in tally.answers]
    assert latency == pytest.approx([1.5 + i / 2 for i in range(8)]), "from the scheduled arrival"


def test_a_burst_is_served_in_the_order_of_its_arrivals():
    tally = alone(OpenLoop([0.0, 0.1, 0.2, 5.0], 6.0), 4, 1.0)
    assert stamps_s(tally) == [(0, 0, 1), (0.1, 1, 2), (0.2, 2, 3), (5, 5, 6)]
    assert [a.index for a in tally.answers] == [0, 1, 2, 3]


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.8])
def test_the_mean_wait_is_that_of_pollaczek_and_khinchine_for_constant_service(rho: float):
    """M/D/1: the mean wait in the queue is rho / (2 (1 - rho)) services."""
    count = 60_000
    times = arrival_times("poisson", rate_per_s=rho, duration_s=count / rho, seed=1)
    waits = waits_s(alone(OpenLoop(times), len(times), 1.0))
    blocks = [statistics.fmean(waits[i : i + 3000]) for i in range(0, len(waits) - 3000, 3000)]
    expected = rho / (2 * (1 - rho))
    assert abs(statistics.fmean(blocks) - expected) < 4 * statistics.stdev(blocks) / len(blocks) ** 0.5
    assert statistics.fmean(waits) == pytest.approx(expected, rel=0.08)


def test_the_mean_wait_is_that_of_pollaczek_and_khinchine_for_any_service():
    """M/G/1: lambda E[S^2] / (2 (1 - rho)), here for services of 0.2 or 1.8 s."""
    clock, draw, rate = SimulatedClock(), random.Random(5), 0.6
    times = arrival_times("poisson", rate_per_s=rate, duration_s=60_000 / rate, seed=2)
    engine = OneByOne(clock, lambda: draw.choice((0.2, 1.8)))
    tally = serve_one_by_one(engine, OpenLoop(times), prompts(len(times)), 1, clock)  # type: ignore[arg-type]
    expected = rate * (0.2**2 + 1.8**2) / 2 / (2 * (1 - rate))
    assert statistics.fmean(waits_s(tally)) == pytest.approx(expected, rel=0.08)


@given(
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=30),
    services=st.lists(st.floats(0.01, 3), min_size=30, max_size=30),
)
def test_waits_follow_lindleys_recursion(gaps: list[float], services: list[float]):
    clock, left = SimulatedClock(), iter(services)
    times = list(itertools.accumulate(gaps))
    tally = serve_one_by_one(OneByOne(clock, lambda: next(left)), OpenLoop(times), prompts(len(times)), 1, clock)  # type: ignore[arg-type]
    wait, expected = 0.0, [0.0]
    for gap, service in zip(gaps[1:], services, strict=False):
        wait = max(0.0, wait + service - gap)
        expected.append(wait)
    assert waits_s(tally) == pytest.approx(expected, abs=1e-6)


def test_every_token_is_stamped_and_work_is_counted():
    tally = alone(AllAtOnce(2), 2, 0.5, tokens=4, itl_s=0.25)
    first, second = tally.answers
    assert [(t - tally.start_ns) / 1e9 for t in first.token_ns] == pytest.approx([0.5, 0.75, 1.0, 1.25])
    assert (second.start_ns - tally.start_ns) / 1e9 == pytest.approx(1.25)
    assert second.due_ns == tally.start_ns
    assert tally.forward_passes == 8
    # prompts of one token: the prefill, then passes that see 2, 3 and 4 positions
    assert tally.positions == 2 * (1 + 2 + 3 + 4)


def test_clients_that_wait_for_their_answers_queue_behind_each_other():
    tally = alone(ClosedLoop(clients=3, requests=6), 6, 1.0)
    assert stamps_s(tally) == [(0, 0, 1), (0, 1, 2), (0, 2, 3), (1, 3, 4), (2, 4, 5), (3, 5, 6)]
    assert (tally.end_ns - tally.start_ns) / 1e9 == pytest.approx(6.0)


def together(source: Source, count: int, places: int, *, tokens: int = 3, prompt: int = 1) -> tuple[Tally, Together]:
    clock = SimulatedClock()
    batch = Together(clock, places, prefill_s=1.0, step_s=0.1)
    return serve_together(batch, places, source, prompts(count, prompt), tokens, clock), batch


def test_whoever_waits_is_prefilled_as_soon_as_a_place_is_free():
    tally, batch = together(AllAtOnce(3), 3, 2, tokens=3)
    assert batch.log == ["+0", "+1", "..", "..", "-1", "-0", "+2", ".", ".", "-2"]
    assert stamps_s(tally) == [(0, 0, 2.2), (0, 1, 2.2), (0, 2.2, 3.4)]
    first = next(a for a in tally.answers if a.index == 0)
    assert [(t - tally.start_ns) / 1e9 for t in first.token_ns] == pytest.approx([1.0, 2.1, 2.2]), "it waits for +1"


def test_one_that_comes_while_others_decode_delays_their_next_token():
    tally, batch = together(OpenLoop([0.0, 1.15], 1.2), 2, 2, tokens=5)
    assert batch.log == ["+0", ".", ".", "+1", "..", "..", "-0", ".", ".", "-1"]
    first, second = sorted(tally.answers, key=lambda a: a.index)
    assert [(t - tally.start_ns) / 1e9 for t in first.token_ns] == pytest.approx([1.0, 1.1, 1.2, 2.3, 2.4])
    assert (second.due_ns - tally.start_ns, second.start_ns - tally.start_ns) == pytest.approx((1.15e9, 1.2e9))


def test_no_more_than_the_places_are_inside_and_all_are_answered():
    tally, batch = together(AllAtOnce(13), 13, 4, tokens=7)
    assert batch.most == 4
    assert sorted(a.index for a in tally.answers) == list(range(13))
    assert all(len(a.token_ns) == 7 for a in tally.answers)
    assert batch.inside == []


def test_one_token_answers_leave_at_once():
    tally, batch = together(AllAtOnce(3), 3, 2, tokens=1)
    assert batch.log == ["+0", "-0", "+1", "-1", "+2", "-2"]
    assert len(tally.answers) == 3


def test_work_together_is_counted_once_a_pass_and_for_each_sequence():
    tally, _batch = together(AllAtOnce(2), 2, 2, tokens=3, prompt=10)
    assert tally.forward_passes == 2 + 2, "two prefills, and two steps for both"
    assert tally.positions == 2 * (10 + 11 + 12)


def test_the_same_load_is_the_same_work_alone_and_together():
    one, _ = together(AllAtOnce(5), 5, 1, tokens=4)
    clock = SimulatedClock()
    other = serve_one_by_one(OneByOne(clock, lambda: 1.0, 0.1), AllAtOnce(5), prompts(5), 4, clock)  # type: ignore[arg-type]
    assert (one.positions, one.forward_passes) == (other.positions, other.forward_passes)
    assert stamps_s(one) == stamps_s(other)


@given(
    gaps=st.lists(st.floats(0, 2), min_size=1, max_size=20),
    places=st.integers(1, 5),
    tokens=st.integers(1, 6),
)
def test_whatever_comes_is_answered_in_order_and_nobody_idles_while_one_waits(
    gaps: list[float], places: int, tokens: int
):
    times = list(itertools.accumulate(gaps))
    tally, batch = together(OpenLoop(times, times[-1] + 0.1), len(times), places, tokens=tokens)
    by_index = sorted(tally.answers, key=lambda a: a.index)
    assert [a.index for a in by_index] == list(range(len(times)))
    assert [a.start_ns for a in by_index] == sorted(a.start_ns for a in by_index)
    assert all(a.due_ns <= a.start_ns < a.token_ns[0] and len(a.token_ns) == tokens for a in by_index)
    assert tally.end_ns >= max(a.token_ns[-1] for a in by_index)
    assert tally.forward_passes == len(times) + sum(entry.startswith(".") for entry in batch.log)


class _EndsAfter(Patient):
    """A judge who has seen enough after so many answers."""

    def __init__(self, answers: int) -> None:
        self._left = answers
        self.told: list[tuple[int, int, bool]] = []

    def answered(self, now_ns: int, count: int, waiting: int, *, full: bool) -> str:
        del now_ns
        self._left -= count
        self.told.append((count, waiting, full))
        return "enough" if self._left <= 0 else ""


def test_a_load_ends_with_the_verdict_and_says_who_was_left():
    clock, judge = SimulatedClock(), _EndsAfter(2)
    tally = serve_one_by_one(
        OneByOne(clock, lambda: 1.0), OpenLoop([0.0, 0.1, 0.2, 0.3, 9.0], 10.0), prompts(5), 1, clock, judge  # type: ignore[arg-type]
    )  # fmt: skip
    assert (tally.verdict, len(tally.answers), tally.offered) == ("enough", 2, 4)
    assert (tally.end_ns - tally.start_ns) / 1e9 == pytest.approx(2.0)
    assert tally.longest_wait_ns == pytest.approx(1.8e9), "of one that was never begun"
    assert judge.told == [(1, 3, True), (1, 2, True)], "what came during a request waits when it is answered"


def test_a_judge_hears_whether_every_place_is_taken_again():
    clock, judge = SimulatedClock(), _EndsAfter(99)
    batch = Together(clock, 2, prefill_s=1.0, step_s=0.1)
    serve_together(batch, 2, AllAtOnce(5), prompts(5), 2, clock, judge)
    assert judge.told == [(2, 3, True), (2, 1, False), (1, 0, False)]


def test_an_engine_that_fails_ends_the_load_with_its_error():
    clock = SimulatedClock()

    def fail() -> float:
        raise MemoryError("no more")

    with pytest.raises(MemoryError, match="no more"):
        serve_one_by_one(OneByOne(clock, fail), AllAtOnce(1), prompts(1), 1, clock)  # type: ignore[arg-type]
    assert gc.isenabled()


def test_a_long_load_leaves_no_cycles_while_nothing_is_collected():
    """The collector is off during a load, so cycles would pile up: a request must leave none."""

    def left(count: int) -> int:
        gc.collect()
        before = len(gc.get_objects())
        tally = alone(AllAtOnce(count), count, 1e-3, tokens=3)
        del tally
        gc.disable()
        try:
            return len(gc.get_objects()) - before
        finally:
            gc.enable()

    assert left(2000) - left(100) < 100
