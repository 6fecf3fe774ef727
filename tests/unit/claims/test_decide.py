"""The rules of decision, and how often they err on simulated machines and models."""

from __future__ import annotations

import math
import random

import pytest

from perjoule.answers import Answered
from perjoule.claims.claim import Floor
from perjoule.claims.decide import all_of, beyond, bound_of, front, meets, with_floor
from perjoule.claims.evidence import accuracy_difference, with_answers
from perjoule.claims.verdict import Interval
from perjoule.stats.paired import log_ratio_interval

NO = "no bound"
SEEDS = 500
MARGIN = 0.2
PROCESSES = 8
SPREAD = 0.05  # between processes, as the middle one of the recorded traces


def interval(value: float, low: float | None, high: float | None) -> Interval:
    why = {"low_missing": NO} if low is None else {}
    why |= {"high_missing": NO} if high is None else {}
    return Interval(value=value, low=low, high=high, **why)


def test_the_whole_interval_decides() -> None:
    assert beyond(interval(0.7, 0.6, 0.8), 0.8, below=True) == "holds"
    assert beyond(interval(0.9, 0.81, 1.0), 0.8, below=True) == "fails"
    assert beyond(interval(0.8, 0.7, 0.9), 0.8, below=True) == "undecided"
    assert beyond(interval(1.5, 1.25, 1.8), 1.25, below=False) == "holds"
    assert beyond(interval(1.1, 1.0, 1.2), 1.25, below=False) == "fails"
    assert beyond(interval(0.7, 0.6, None), 0.8, below=True) == "undecided"
    assert beyond(None, 0.8, below=True) == "undecided"


def test_parts_hold_together() -> None:
    assert all_of(["holds", "holds"]) == "holds"
    assert all_of(["holds", "undecided"]) == "undecided"
    assert all_of(["undecided", "fails"]) == "fails"
    assert all_of([]) == "undecided"


def test_a_front_is_decided_only_where_one_dominates() -> None:
    even = interval(0.0, -0.02, 0.02)
    better, worse = interval(0.2, 0.1, 0.3), interval(-0.2, -0.3, -0.1)
    assert front("holds", better, 0.0) == "holds"
    assert front("holds", even, 0.05) == "holds"
    assert front("holds", even, 0.0) == "undecided"
    assert front("holds", worse, 0.05) == "undecided"  # cheaper, but worse
    assert front("fails", better, 0.05) == "undecided"  # dearer, but better
    assert front("fails", worse, 0.05) == "fails"
    assert front("undecided", better, 0.0) == "undecided"
    assert front("holds", None, 0.0) == "undecided"


def test_the_floor_of_quality() -> None:
    floor = Floor(accuracy=0.5, mean_kl_nats=0.02)
    good, bad = interval(0.7, 0.6, 0.8), interval(0.3, 0.2, 0.4)
    close, far = interval(0.01, 0.008, 0.015), interval(0.4, 0.3, 0.5)
    assert meets(floor, good, close) == "holds"
    assert meets(floor, bad, close) == "fails"
    assert meets(floor, good, far) == "fails"
    assert meets(floor, good, None) == "undecided"
    assert meets(floor, interval(0.5, 0.4, 0.6), close) == "undecided"


def test_who_has_not_the_quality_cannot_win() -> None:
    assert with_floor("holds", ["holds", "fails"]) == "holds"
    assert with_floor("holds", ["undecided", "holds"]) == "undecided"
    assert with_floor("holds", ["fails", "holds"]) == "fails"
    assert with_floor("fails", ["holds", "holds"]) == "fails"
    assert with_floor("fails", ["holds", "undecided"]) == "undecided"
    assert with_floor("undecided", ["fails", "holds"]) == "fails"
    assert with_floor("undecided", ["holds", "holds"]) == "undecided"


def test_margins_are_ratios() -> None:
    assert bound_of(0.2, below=True) == pytest.approx(0.8)
    assert bound_of(0.2, below=False) == pytest.approx(1.2)


def ratio_answers(true_log: float, *, below: bool) -> list[str]:
    """Judge simulated claims: pairs of processes whose log-ratio spreads by that of two processes."""
    found = []
    for seed in range(SEEDS):
        draw = random.Random(f"{seed} {true_log}")
        logs = [draw.gauss(true_log, SPREAD * math.sqrt(2)) for _ in range(PROCESSES)]
        middle, low, high = log_ratio_interval(logs)
        assert low is not None
        assert high is not None
        ratio = interval(math.exp(middle), math.exp(low), math.exp(high))
        found.append(beyond(ratio, bound_of(MARGIN, below=below), below=below))
    return found


def test_claims_without_an_effect_are_seldom_said_to_hold() -> None:
    answers = ratio_answers(0.0, below=True)
    assert answers.count("holds") <= 0.05 * SEEDS


def test_claims_exactly_at_the_margin_are_seldom_decided() -> None:
    for below in (True, False):
        answers = ratio_answers(math.log(bound_of(MARGIN, below=below)), below=below)
        assert SEEDS - answers.count("undecided") <= 0.05 * SEEDS


def test_claims_at_twice_the_margin_are_decided_rightly() -> None:
    answers = ratio_answers(math.log(bound_of(2 * MARGIN, below=True)), below=True)
    assert answers.count("holds") >= 0.9 * SEEDS
    assert answers.count("fails") == 0


def answered(seed: int, right: float, tokens: float, questions: int) -> list[Answered]:
    draw = random.Random(seed)
    return [
        Answered(question=f"t/1/1/{n}/en", tokens=max(1, round(draw.gauss(tokens, tokens / 5))),
                 correct=draw.random() < right)
        for n in range(questions)
    ]  # fmt: skip


def front_answer(seed: int, *, right: tuple[float, float], cost: float, questions: int = 300) -> str:
    """Judge a simulated front: shares of right answers, and the ratio of joules per token (tokens are alike)."""
    pairs = list(zip(answered(2 * seed, right[0], 20, questions), answered(2 * seed + 1, right[1], 20, questions),
                     strict=True))  # fmt: skip
    draw = random.Random(f"front {seed}")
    logs = [draw.gauss(math.log(cost), SPREAD * math.sqrt(2)) for _ in range(PROCESSES)]
    ratio = with_answers(log_ratio_interval(logs), pairs)
    assert isinstance(ratio, Interval)
    cheaper = beyond(ratio, bound_of(MARGIN, below=True), below=True)
    return front(cheaper, accuracy_difference(pairs), 0.1)


def test_fronts_err_seldom_and_find_what_is_there() -> None:
    """Equal models: never said to hold; cost at the margin: seldom decided; at twice the margin: found."""
    seeds = range(120)
    equal = [front_answer(s, right=(0.6, 0.6), cost=1.0) for s in seeds]
    assert equal.count("holds") <= 0.05 * len(seeds)
    margin = [front_answer(s, right=(0.6, 0.6), cost=bound_of(MARGIN, below=True)) for s in seeds]
    assert len(seeds) - margin.count("undecided") <= 0.08 * len(seeds)  # 5 % of 120 is 6; 10 or more: a chance of 8 %
    found = [front_answer(s, right=(0.75, 0.6), cost=bound_of(2 * MARGIN, below=True)) for s in seeds]
    assert found.count("holds") >= 0.9 * len(seeds)
    assert found.count("fails") == 0


def test_no_right_answer_has_no_ratio_and_few_have_no_bound() -> None:
    none = [(a, b) for a, b in zip(answered(1, 0.0, 20, 40), answered(2, 0.5, 20, 40), strict=True)]
    assert isinstance(with_answers((0.0, -0.1, 0.1), none), str)
    one = [Answered(question=f"t/1/1/{n}/en", tokens=20, correct=n == 0) for n in range(40)]
    few = with_answers((0.0, -0.1, 0.1), list(zip(one, answered(3, 0.5, 20, 40), strict=True)))
    assert isinstance(few, Interval)
    assert few.high is None
    assert "no right answer" in str(few.high_missing)
