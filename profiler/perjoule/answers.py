"""What models answered: shares of right answers, tokens and joules a right answer takes, over questions.

Decoding is greedy, so a question that is asked again gets the same answer: each counts once. Questions are the unit of
replication of accuracy, fresh processes that of joules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.quality.accuracy import accuracy
from perjoule.quality.cost_per_correct import cost_per_correct
from perjoule.quality.questions import cluster_of
from perjoule.records import Energy, Metric, Missing, Record
from perjoule.stats.intervals import exact

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perjoule.records import RunResult, Sample

NO_QUESTIONS = "the scenario asks no questions"


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

    ``per_token`` are the joules of a request per output token, so that J per right answer is J per token x tokens per
    answer / accuracy.
    """
    found = answered(samples)
    if not found:
        return {}
    clusters = [cluster_of(a.question) for a in found]
    return {
        "accuracy": accuracy([a.correct for a in found], clusters=clusters),
        "output_tokens_per_answer": _tokens_per_answer(found),
        "energy_j_per_correct_answer": _per_correct(found, per_token, clusters),
    }


def _tokens_per_answer(found: Sequence[Answered]) -> Metric:
    """Return the mean over questions; its spread over questions is in the joules per right answer."""
    return exact(
        sum(a.tokens for a in found) / len(found), unit="tokens", statistic="mean over the questions that were asked"
    )


def _per_correct(found: Sequence[Answered], per_token: Metric, clusters: Sequence[str]) -> Metric:
    if not isinstance(per_token, Energy):
        return per_token if isinstance(per_token, Missing) else Missing(reason="there are no joules per token")
    if len(found) < 2:  # noqa: PLR2004 - as accuracy
        return Missing(reason="one question: no spread can be seen")
    return cost_per_correct(
        [per_token.value * a.tokens for a in found], [a.tokens for a in found], [a.correct for a in found],
        source=per_token, clusters=clusters,
    ).energy_j_per_correct  # fmt: skip
