"""Timing of ways on a simulated clock: which is the fastest, how long it is tried, what a reason looks like."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traces import SimulatedClock

from perjoule.records import Peak
from perjoule.roofline import jobs
from perjoule.roofline.ways import BLOCKS, Way, fastest, growing, spread

if TYPE_CHECKING:
    from collections.abc import Callable


def taking(clock: SimulatedClock, *seconds: float) -> Callable[[], None]:
    turns = itertools.cycle(seconds)
    return lambda: clock.advance(next(turns))


def test_the_fastest_way_wins_by_its_best_block():
    clock = SimulatedClock()
    # a warm-up and five repeats a block: one block in which nothing disturbs, four at a quarter of the speed
    disturbed = taking(clock, *[0.01] * 6, *[0.04] * 24)
    ways = [Way("steady", 100.0, taking(clock, 0.02)), Way("disturbed", 100.0, disturbed)]
    peak = fastest(ways, unit="bytes/s", block_s=0.05, clock=clock)
    assert isinstance(peak, Peak)
    assert (peak.way, peak.best) == ("disturbed", pytest.approx(10_000))
    assert peak.slower == {"steady": pytest.approx(5_000)}
    assert 2_500 <= peak.median < peak.best
    assert peak.spread_share > 0


def test_a_single_lucky_repeat_is_no_peak():
    clock = SimulatedClock()
    peak = fastest([Way("lucky", 100.0, taking(clock, *[0.02] * 7, 0.001))], unit="bytes/s", block_s=0.1, clock=clock)
    assert isinstance(peak, Peak)
    assert peak.best == pytest.approx(5_000)


def test_a_slow_machine_is_tried_a_few_times_only():
    clock = SimulatedClock()
    start_ns = clock.now_ns()
    peak = fastest([Way("slow", 1.0, taking(clock, 1.0))], unit="ops/s", block_s=0.03, clock=clock)
    assert isinstance(peak, Peak)
    assert peak.repeats == 3 * BLOCKS
    assert (clock.now_ns() - start_ns) / 1e9 == pytest.approx(4 * BLOCKS)


def test_without_a_way_there_are_reasons_each_once():
    found = fastest(["no onnxruntime", "no onnxruntime", "no kernel"], unit="ops/s", block_s=1, clock=SimulatedClock())
    assert found == "no onnxruntime; no kernel"
    assert fastest([], unit="ops/s", block_s=1, clock=SimulatedClock()) == "no way to measure it"


def test_sizes_grow_until_they_are_slow():
    clock = SimulatedClock()

    def make(size: int) -> Way:
        return Way(f"n {size}", size**3, taking(clock, (size / 512) ** 3 * 0.001))

    assert [w.name for w in growing([make], clock) if isinstance(w, Way)] == ["n 512", "n 1024"]


def test_a_kernel_that_is_not_there_is_a_reason_and_the_others_go_on():
    def missing(_size: int) -> Way:
        raise NotImplementedError("no such kernel")

    def broken(_size: int) -> Way:
        raise RuntimeError("line one\nline two")

    clock = SimulatedClock()
    ready = Way("ready", 1.0, taking(clock, 0.1))
    assert list(growing([missing, broken, "a reason", ready], clock)) == [
        "no such kernel", "RuntimeError: line one", "a reason", ready,
    ]  # fmt: skip


@given(st.lists(st.floats(1, 1e12), min_size=1, max_size=30))
def test_the_spread_is_finite_and_never_negative(values: list[float]):
    found = spread(values)
    assert 0 <= found < 1e12
    if len(set(values)) == 1:
        assert found == pytest.approx(0)


@given(threads=st.integers(1, 512), rounds=st.integers(0, 10**6), size=st.integers(1, 2**40))
def test_jobs_and_answers_survive_the_pipe(threads: int, rounds: int, size: int):
    work = jobs.WorkJob(threads=threads, buffer_bytes=size, rounds=rounds, seconds=0.3)
    assert jobs.decode_job(jobs.encode(work)) == work
    peaks = jobs.PeaksJob(threads=threads, buffer_bytes=size)
    assert jobs.decode_job(jobs.encode(peaks)) == peaks
    done = jobs.WorkDone(rounds=rounds, round_s=0.01)
    assert jobs.decode_answer(jobs.encode(done)) == done


def test_a_peak_refuses_nonsense():
    fine = {"unit": "ops/s", "best": 2.0, "median": 1.0, "spread_share": 0.1, "repeats": 3, "way": "w", "slower": {}}
    assert Peak(**fine).best == 2.0
    for wrong in ({"median": 3.0}, {"best": 0.0, "median": 0.0}, {"repeats": 0}, {"spread_share": float("nan")}):
        with pytest.raises(ValueError, match=r"peak|finite"):
            Peak(**(fine | wrong))
