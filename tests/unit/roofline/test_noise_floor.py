"""The noise floor: what a comparison of two equal things would take for a difference."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule import noise_floor as module
from perjoule.noise_floor import PROCESSES, NoiseFloor, measure_noise_floor, noise_floor
from perjoule.roofline import jobs


def floor(round_s: list[float]) -> NoiseFloor:
    found = noise_floor(round_s, threads=2, rounds=30)
    assert isinstance(found, NoiseFloor)
    return found


def test_a_machine_without_noise_has_no_floor():
    found = floor([0.01] * PROCESSES)
    assert found.half_width_share == found.spread_share == 0
    assert found.a_over_b == 1


def test_two_values_in_turn_give_the_interval_by_hand():
    found = floor([1.0, math.exp(0.02)] * 5)
    # every neighbour differs by 2 %; t with 4 degrees of freedom is 2.776 at 97.5 % (any table)
    assert found.half_width_share == pytest.approx(math.expm1(2.776 * 0.02 / math.sqrt(5)), rel=1e-3)
    assert found.a_over_b == pytest.approx(math.exp(-0.02))


def test_a_slow_drift_is_not_taken_for_noise():
    drifting = floor([1 + 0.01 * i for i in range(PROCESSES)])
    shuffled = floor([1 + 0.01 * i for i in (5, 0, 7, 2, 9, 4, 1, 8, 3, 6)])
    assert drifting.spread_share == pytest.approx(shuffled.spread_share)
    assert drifting.half_width_share < shuffled.half_width_share / 3


def test_it_is_the_half_width_that_five_pairs_have():
    """Between-process spread s: half-width of five pairs is 2.776 x sqrt 2 x s / sqrt 5 on average over machines."""
    generator = random.Random(0)
    found = [floor([math.exp(generator.gauss(0, 0.03)) for _ in range(PROCESSES)]).half_width_share for _ in range(500)]
    expected = 2.776 * math.sqrt(2) * 0.03 / math.sqrt(5)
    assert sum(found) / len(found) == pytest.approx(expected, rel=0.1)


@given(st.lists(st.floats(1e-6, 10), min_size=4, max_size=20), st.floats(1e-3, 1e3))
def test_the_unit_of_time_does_not_matter(round_s: list[float], scale: float):
    assert floor(round_s).half_width_share == pytest.approx(
        floor([scale * x for x in round_s]).half_width_share, rel=1e-6, abs=1e-9
    )


@pytest.mark.parametrize("round_s", [[], [0.1] * 3, [0.1] * 9 + [0.0]])
def test_too_little_is_a_reason(round_s: list[float]):
    assert "processes that took time" in str(noise_floor(round_s, threads=2, rounds=30))


def test_the_amount_of_work_is_found_once_and_then_fixed(monkeypatch: pytest.MonkeyPatch):
    asked: list[jobs.WorkJob] = []

    def ask(job: jobs.WorkJob) -> jobs.Answer:
        asked.append(job)
        return jobs.WorkDone(rounds=job.rounds or 42, round_s=0.007)

    monkeypatch.setattr(module, "ask", ask)
    found = measure_noise_floor(2)
    assert isinstance(found, NoiseFloor)
    assert [job.rounds for job in asked] == [0] + [42] * PROCESSES
    assert len(found.round_s) == PROCESSES


def test_a_process_that_fails_is_a_reason(monkeypatch: pytest.MonkeyPatch):
    answers: list[jobs.Answer | str] = [jobs.WorkDone(rounds=3, round_s=0.1), "it crashed"]
    monkeypatch.setattr(module, "ask", lambda _job: answers.pop(0))
    assert measure_noise_floor(2) == "it crashed"
