"""The null engine's batch keeps the pace it was given, on a clock that only moves when told to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traces import SimulatedClock

from perjoule.errors import InputError, UsageError
from perjoule.protocols import EngineOptions
from perjoule_backends.null import NullBackend, NullEngine

TTFT_S, ITL_S = 0.1, 0.02


def load(clock: SimulatedClock, places: int, ttft_s: float = TTFT_S, itl_s: float = ITL_S) -> NullEngine:
    options = EngineOptions(batch=places, context_tokens=600, extra={"ttft_s": ttft_s, "itl_s": itl_s})
    backend = NullBackend(clock)
    return backend.load(backend.prepare("null", options, lambda _text, _share: None), options)


@given(places=st.integers(1, 8), steps=st.integers(0, 20))
def test_a_prefill_takes_ttft_and_a_step_itl_whatever_the_number_of_places(places: int, steps: int) -> None:
    clock = SimulatedClock()
    batch = load(clock, places).batch()
    start_ns = clock.now_ns()
    for _ in range(places):
        batch.add([1, 2, 3])
    assert clock.now_ns() - start_ns == places * round(TTFT_S * 1e9)
    start_ns = clock.now_ns()
    for _ in range(steps):
        assert len(batch.step()) == places
    assert clock.now_ns() - start_ns == steps * round(ITL_S * 1e9)


class StoppedClock(SimulatedClock):
    def sleep(self, seconds: float) -> None:
        raise AssertionError(f"slept {seconds} s")


def test_at_pace_0_nothing_sleeps() -> None:
    batch = load(StoppedClock(), 4, ttft_s=0, itl_s=0).batch()
    for _ in range(4):
        batch.add([1])
    for count in range(1, 300):
        assert batch.step() == [count % 256] * 4


class EarlyClock(SimulatedClock):
    """Wakes a little too early, as a coarse timer may."""

    def sleep(self, seconds: float) -> None:
        self.ns += max(1, int(seconds * 0.9e9))


def test_a_step_is_never_short() -> None:
    clock = EarlyClock()
    batch = load(clock, 1).batch()
    batch.add([1])
    start_ns = clock.now_ns()
    batch.step()
    assert clock.now_ns() - start_ns >= round(ITL_S * 1e9)


def test_each_sequence_counts_from_where_it_joined() -> None:
    batch = load(SimulatedClock(), 3).batch()
    assert batch.add([1]) == 0
    assert batch.step() == [1]
    batch.add([1])
    assert batch.step() == [2, 1]
    batch.add([1])
    assert batch.step() == [3, 2, 1]
    batch.remove(0)
    assert batch.step() == [2, 3]
    batch.remove(1)
    assert batch.step() == [3]


def test_a_full_context_is_refused_before_any_time_passes() -> None:
    clock = SimulatedClock()
    batch = load(clock, 2).batch()
    batch.add([1] * 599)
    assert batch.step() == [1]
    start_ns = clock.now_ns()
    with pytest.raises(InputError, match="place 0"):
        batch.step()
    assert clock.now_ns() == start_ns


def test_a_batch_of_nobody_is_refused() -> None:
    with pytest.raises(UsageError, match="batch"):
        load(SimulatedClock(), 0)
