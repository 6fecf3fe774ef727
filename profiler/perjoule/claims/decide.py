"""The rules of decision: pure functions from intervals to an answer.

A claim of at least a margin is tested against the margin, not against no effect: it holds where the whole 95 % interval
lies beyond, fails where the whole lies on this side, and is undecided where the margin is inside. With the effect
exactly at the margin each side errs in 2.5 % of runs, so 5 % are decided.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.claims.claim import Floor
    from perjoule.claims.verdict import Answer, Interval


def beyond(interval: Interval | None, bound: float, *, below: bool) -> Answer:
    """Say whether a value lies beyond a bound: ``below`` it, or above."""
    if interval is None:
        return "undecided"
    low = -math.inf if interval.low is None else interval.low
    high = math.inf if interval.high is None else interval.high
    if below:
        return "holds" if high <= bound else "fails" if low > bound else "undecided"
    return "holds" if low >= bound else "fails" if high < bound else "undecided"


def all_of(answers: Sequence[Answer]) -> Answer:
    """Answer a claim of several parts: it holds where all hold, and fails where one does."""
    if "fails" in answers:
        return "fails"
    return "undecided" if "undecided" in answers or not answers else "holds"


def front(cheaper: Answer, difference: Interval | None, tolerance: float) -> Answer:
    """Judge two sides of different quality: a's ``difference`` is its accuracy less b's.

    Holds where a is cheaper by the margin and surely no less accurate, fails where it is surely not cheaper by the
    margin and surely no more accurate; where each has what the other lacks, neither dominates.
    """
    if difference is None or cheaper == "undecided":
        return "undecided"
    no_worse = difference.low is not None and difference.low >= -tolerance
    no_better = difference.high is not None and difference.high <= tolerance
    if cheaper == "holds":
        return "holds" if no_worse else "undecided"
    return "fails" if no_better else "undecided"


def meets(floor: Floor, accuracy: Interval | None, mean_kl_nats: Interval | None) -> Answer:
    """Say whether one side has the quality that the claim asks for."""
    answers: list[Answer] = []
    if floor.accuracy is not None:
        answers.append(beyond(accuracy, floor.accuracy, below=False))
    if floor.mean_kl_nats is not None:
        answers.append(beyond(mean_kl_nats, floor.mean_kl_nats, below=True))
    return all_of(answers)


def with_floor(found: Answer, met: Sequence[Answer]) -> Answer:
    """Let nobody win who is not surely shown to have the quality asked for; ``met`` says who is, side a first.

    A claim of a side that surely has it not fails, whatever that side costs.
    """
    if met[0] == "fails":
        return "fails"
    if found == "holds":
        return "holds" if met[0] == "holds" else "undecided"
    if found == "fails":
        return "fails" if met[-1] == "holds" else "undecided"
    return found


def bound_of(margin: float, *, below: bool) -> float:
    """Return the ratio that a margin amounts to: ``at least a fifth less`` is at most 0.8, ``more`` at least 1.2."""
    return 1 - margin if below else 1 + margin
