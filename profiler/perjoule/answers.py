"""What models answered: shares of right answers, tokens and joules a right answer takes, over questions.

Decoding is greedy, so a question that is asked again gets the same answer: each counts once. Questions are the unit of
replication of accuracy, fresh processes that of joules.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from perjoule.quality.questions import cluster_of
from perjoule.records import UNSET, Energy, Metric, Missing, Quantity, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perjoule.records import RunResult, Sample

_RESAMPLES = 2000
_LOW, _HIGH = 0.025, 0.975
_Z = 1.959963984540054  # the normal quantile of 97.5 %
NO_QUESTIONS = "the scenario asks no questions"
NONE_RIGHT = "no answer was right, so there is no energy of a right one"
WILSON = "95 % Wilson score over questions, widened for translations of one question"
PER_CORRECT = "95 % bootstrap over questions, times the interval of joules per token"


class Answered(Record, frozen=True, kw_only=True):
    """One question as it was answered: output tokens, and whether that was right."""

    question: str
    tokens: int
    correct: bool


def answered(samples: Iterable[Sample]) -> list[Answered]:
    """Return each question once, as it was answered first, in the order of ids."""
    found: dict[str, Answered] = {}
    for sample in samples:
        if sample.phase != "measured" or not isinstance(sample.question, str) or not isinstance(sample.correct, bool):
            continue
        found.setdefault(
            sample.question,
            Answered(question=sample.question, tokens=sample.output_tokens, correct=sample.correct),
        )
    return [found[name] for name in sorted(found)]


def paired(a: RunResult, b: RunResult) -> list[tuple[Answered, Answered]] | str:
    """Return the answers of both to the same questions, or why they cannot be paired."""
    if a.scenario.spec.get("questions_sha256") != b.scenario.spec.get("questions_sha256"):
        return "the two were not asked the same questions"
    left = {one.question: one for one in answered(a.samples)}
    right = {one.question: one for one in answered(b.samples)}
    if set(left) != set(right):
        return "one side was not asked all of the questions"
    if len(left) < 2:  # noqa: PLR2004 - a spread needs two
        return NO_QUESTIONS if not left else "one question: no spread can be seen"
    return [(left[name], right[name]) for name in sorted(left)]


def answer_metrics(samples: Sequence[Sample], per_token: Metric) -> dict[str, Metric]:
    """Return accuracy, tokens per answer and joules per right answer; nothing where no questions were asked.

    Joules per right answer are J per token x tokens per answer / accuracy.
    """
    all_of_them = answered(samples)
    if not all_of_them:
        return {}
    return {
        "accuracy": accuracy(all_of_them),
        "output_tokens_per_answer": _tokens_per_answer(all_of_them),
        "energy_j_per_correct_answer": _per_correct(all_of_them, per_token),
    }


def accuracy(answers: Sequence[Answered]) -> Quantity:
    """Return the share of right answers with Wilson's interval [Wilson 1927, doi:10.1080/01621459.1927.10502953].

    Translations of one question tend to be right together: the number of questions is divided by the design effect.
    """
    n, share = len(answers), sum(a.correct for a in answers) / len(answers)
    if n < 2:  # noqa: PLR2004 - one question says nothing of the next
        why = "one question: no spread can be seen"
        return Quantity(
            value=share, low=None, high=None, low_missing=why, high_missing=why, unit="share", n=n,
            statistic="share of right answers", interval="none",
        )  # fmt: skip
    alone = n / _design_effect(answers, share)  # questions that would say as much if none were a translation
    middle = (share + _Z**2 / (2 * alone)) / (1 + _Z**2 / alone)
    half = _Z / (1 + _Z**2 / alone) * math.sqrt(share * (1 - share) / alone + _Z**2 / (4 * alone**2))
    return Quantity(
        value=share, low=max(0.0, min(share, middle - half)), high=min(1.0, max(share, middle + half)), unit="share",
        n=n, statistic="share of right answers", interval=WILSON,
    )  # fmt: skip


def _design_effect(answers: Sequence[Answered], share: float) -> float:
    """Return by how much clusters of translations widen the variance of the share [Kish 1965, Survey Sampling].

    At least 1 and at most the mean size of a cluster, which it also is where all answers agree.
    """
    clusters = _clusters(answers)
    n, k = len(answers), len(clusters)
    most = n / k
    simple = share * (1 - share) / n
    if k < 2 or not simple:  # noqa: PLR2004 - no spread between clusters can be seen
        return most
    between = sum((sum(a.correct for a in group) - len(group) * share) ** 2 for group in clusters)
    return min(most, max(1.0, k / (k - 1) * between / n**2 / simple))


def _clusters(answers: Sequence[Answered]) -> list[list[Answered]]:
    found: dict[str, list[Answered]] = {}
    for one in answers:
        found.setdefault(cluster_of(one.question), []).append(one)
    return list(found.values())


def _tokens_per_answer(answers: Sequence[Answered]) -> Quantity:
    mean = sum(a.tokens for a in answers) / len(answers)
    drawn = sorted(sum(a.tokens for a in sample) / len(sample) for sample in _resamples(answers))
    return Quantity(
        value=mean, low=min(mean, _at(drawn, _LOW)), high=max(mean, _at(drawn, _HIGH)), unit="tokens", n=len(answers),
        statistic="mean over questions", interval="95 % bootstrap over questions",
    )  # fmt: skip


def _per_correct(answers: Sequence[Answered], per_token: Metric) -> Metric:
    if isinstance(per_token, Missing):
        return per_token
    if not isinstance(per_token, Energy):
        return Missing(reason="there are no joules per token")
    middle = _tokens_per_right(answers)
    if middle is None:
        return Missing(reason=NONE_RIGHT)
    drawn = sorted(
        math.inf if (value := _tokens_per_right(sample)) is None else value for sample in _resamples(answers)
    )
    few, many = _at(drawn, _LOW) / middle, _at(drawn, _HIGH) / middle
    bounded = math.isfinite(many)
    down = _together(1 - per_token.random[0] / per_token.value, 1 - min(1.0, few))
    up = _together(per_token.random[1] / per_token.value - 1, max(1.0, many) - 1) if bounded else 0.0
    value = per_token.value * middle
    low, high = (bound / per_token.value for bound in per_token.systematic)
    return Energy(
        value=value,
        low=max(0.0, value * (1 - down) * low),
        high=value * (1 + up) * high if bounded else None,
        high_missing=UNSET if bounded else "in more than one resample of forty no answer is right",
        unit="J", n=len(answers), statistic="joules per token x tokens per answer / accuracy", interval=PER_CORRECT,
        label=per_token.label, grade=per_token.grade, scope=per_token.scope, convention=per_token.convention,
        random=(max(0.0, value * (1 - down)), value * (1 + up)),
        systematic=(value * low, value * high),
    )  # fmt: skip


def _together(one: float, other: float) -> float:
    return math.hypot(one, other)


def _tokens_per_right(answers: Sequence[Answered]) -> float | None:
    right = sum(a.correct for a in answers)
    return sum(a.tokens for a in answers) / right if right else None


def _resamples(answers: Sequence[Answered]) -> list[list[Answered]]:
    """Draw clusters of translations with replacement."""
    generator = random.Random(0)  # noqa: S311 - fixed, so that the same answers give the same bounds
    clusters = _clusters(answers)
    return [[a for group in generator.choices(clusters, k=len(clusters)) for a in group] for _ in range(_RESAMPLES)]


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
