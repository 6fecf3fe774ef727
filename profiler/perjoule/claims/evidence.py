"""What results show of a claim's sides: ratios of costs, accuracies, their difference, all with intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec.structs import replace

from perjoule import answers, reading
from perjoule.assemble import evidence_of
from perjoule.claims.decide import beyond, bound_of
from perjoule.claims.verdict import Effect, Interval
from perjoule.compare.verdicts import judge_pairs
from perjoule.quality.questions import cluster_of
from perjoule.records import UNSET, Energy, Quantity
from perjoule.stats.paired import log_ratio_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from perjoule.answers import Answered
    from perjoule.claims.claim import Claim
    from perjoule.meters.energy import Evidence
    from perjoule.records import Metric, RunResult

_RESAMPLES = 2000
_LOW, _HIGH = 0.025, 0.975
_PER_CORRECT, _PER_TOKEN = "energy_j_per_correct_answer", "energy_j_per_output_token"
WITHIN_PROCESS = "log-ratios within each process, Student t widened for stopping"
BOOTSTRAP = f"paired bootstrap over questions ({_RESAMPLES} resamples, fixed seed), with the ratio of processes"


def ratio_effect(claim: Claim, a: RunResult, b: RunResult) -> Effect:
    """Return the ratio of side a to side b of the claim's metric, with what does not cancel of energy."""
    metric = _PER_TOKEN if claim.metric == _PER_CORRECT else claim.metric
    [pair] = judge_pairs((b, a), [(0, 1)], primary=(metric,), named=())
    found = pair.of(metric)
    if found.ratio is None:
        return _effect(claim, None, found.why, "", "")
    ratio = Interval(
        value=found.ratio.ratio, low=found.ratio.low, high=found.ratio.high,
        low_missing=found.ratio.low_missing, high_missing=found.ratio.high_missing,
    )  # fmt: skip
    if claim.metric != _PER_CORRECT:
        return _effect(claim, ratio, "", found.ratio.method, found.note)
    per_token = math.log(ratio.value), _log(ratio.low), _log(ratio.high)
    pairs = answers.paired(a, b)
    if isinstance(pairs, str):
        return _effect(claim, None, pairs, "", "")
    per_correct = with_answers(per_token, pairs)
    if isinstance(per_correct, str):
        return _effect(claim, None, per_correct, "", "")
    return _effect(claim, per_correct, "", BOOTSTRAP, found.note)


def with_answers(
    per_token: tuple[float, float | None, float | None], pairs: Sequence[tuple[Answered, Answered]]
) -> Interval | str:
    """Return the ratio of joules per right answer, or why there is none.

    ``per_token``: log of the ratio of joules per token with its bounds. Tokens and right answers vary over questions,
    the former over processes: independent, so half-widths add in squares.
    """
    middle = _log_tokens_per_right(pairs)
    if middle is None:
        return "one side has no right answer, so joules per right answer do not exist"
    drawn = sorted(_resampled_log_ratios(pairs))
    low, high = _percentile(drawn, _LOW), _percentile(drawn, _HIGH)
    value = per_token[0] + middle
    down = None if per_token[1] is None else math.hypot(per_token[0] - per_token[1], middle - low)
    up = None if per_token[2] is None else math.hypot(per_token[2] - per_token[0], high - middle)
    bounded_below, bounded_above = down is not None and math.isfinite(low), up is not None and math.isfinite(high)
    why = "in more than one resample of forty a side has no right answer"
    return Interval(
        value=math.exp(value),
        low=math.exp(value - (down or 0.0)) if bounded_below else None,
        high=math.exp(value + (up or 0.0)) if bounded_above else None,
        low_missing=UNSET if bounded_below else why,
        high_missing=UNSET if bounded_above else why,
    )


def accuracy_difference(pairs: Sequence[tuple[Answered, Answered]]) -> Interval:
    """Return side a's share of right answers less b's, over the same questions, with a paired bootstrap."""
    value = _difference(pairs)
    drawn = sorted(_resampled_differences(pairs))
    # a bootstrap over questions that all agree sees no spread: one more question could still differ
    least = 1.0 / len(pairs)
    low, high = _percentile(drawn, _LOW), _percentile(drawn, _HIGH)
    return Interval(value=value, low=max(-1.0, min(low, value - least)), high=min(1.0, max(high, value + least)))


def language_effects(claim: Claim, result: RunResult) -> list[Effect]:
    """Return the ratio of each language to the reference.

    That all hold is claimed, so each is tested by its own interval [Berger 1982, doi:10.1080/00401706.1982.10487790];
    that one fails refutes the claim, so failing is tested by bounds for all languages together.
    """
    evidence = evidence_of(result)
    read = reading.languages_of(evidence.samples)
    found = []
    for language in claim.languages:
        absent = [one for one in (language, claim.reference) if one not in read]
        alone = _language_ratio(claim, evidence, language, 1) if not absent else f"nobody read it in {absent[0]}"
        together = _language_ratio(claim, evidence, language, len(claim.languages)) if not absent else ""
        ratio = alone if isinstance(alone, Interval) else None
        effect = _effect(claim, ratio, alone if isinstance(alone, str) else "", WITHIN_PROCESS, "")
        surely = isinstance(together, Interval) and beyond(together, effect.bound, below=False) == "fails"
        answer = "undecided" if effect.answer == "fails" and not surely else effect.answer
        found.append(replace(effect, said=f"{language} against {claim.reference}", answer=answer))
    return found


def _language_ratio(claim: Claim, evidence: Evidence, language: str, family: int) -> Interval | str:
    sides = []
    for one in (language, claim.reference):
        part = reading.of_language(evidence, one)
        if claim.metric == "tokens_per_passage":
            tokens = float(part.samples[0].prompt_tokens)
            sides.append(dict.fromkeys((s.process for s in part.samples), tokens))
            continue
        joules = reading.energy_by_process(part)
        if isinstance(joules, str):
            return joules
        sides.append(joules)
    logs = reading.log_ratios_of(*sides)
    if not logs:
        return "no process read both undisturbed"
    if claim.metric == "tokens_per_passage":
        value = math.exp(logs[0])  # counted, not estimated
        return Interval(value=value, low=value, high=value)
    middle, low, high = log_ratio_interval(logs, family=family)
    none = "one process: no spread between processes can be seen"
    return Interval(
        value=math.exp(middle),
        low=None if low is None else math.exp(low), high=None if high is None else math.exp(high),
        low_missing=none if low is None else UNSET, high_missing=none if high is None else UNSET,
    )  # fmt: skip


def interval_of(metric: Metric) -> Interval | str:
    """Return a metric's value and bounds, or why there is none."""
    if not isinstance(metric, Quantity | Energy):
        return metric.reason
    return Interval(
        value=metric.value, low=metric.low, high=metric.high,
        low_missing=metric.low_missing, high_missing=metric.high_missing,
    )  # fmt: skip


def _effect(claim: Claim, ratio: Interval | None, why: str, method: str, note: str) -> Effect:
    bound = bound_of(claim.margin, below=claim.less)
    sides = [side.said for side in claim.sides]
    return Effect(
        said=" against ".join(sides), metric=claim.metric, ratio=ratio, ratio_missing=UNSET if ratio else why,
        bound=bound, below=claim.less, answer=beyond(ratio, bound, below=claim.less), method=method, note=note,
    )  # fmt: skip


def _resampled(pairs: Sequence[tuple[Answered, Answered]]) -> NDArray[np.float64]:
    """Draw questions with replacement: translations of one, and both sides' answers, together.

    Returns sums, shape (resamples, 5): questions, right answers of a and b, tokens of a and b.
    """
    import numpy as np  # noqa: PLC0415 - only where a claim is judged

    clusters: dict[str, list[tuple[int, int, int, int, int]]] = {}
    for a, b in pairs:
        clusters.setdefault(cluster_of(a.question), []).append((1, a.correct, b.correct, a.tokens, b.tokens))
    sums = np.array([np.sum(group, axis=0) for group in clusters.values()], dtype=np.float64)
    generator = np.random.default_rng(0)  # fixed, so that the same answers give the same bounds
    drawn = generator.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=_RESAMPLES)
    return np.asarray(drawn @ sums, dtype=np.float64)


def _resampled_log_ratios(pairs: Sequence[tuple[Answered, Answered]]) -> list[float]:
    """Return the log of a's tokens per right answer over b's of each resample; infinite where a side has none right."""
    found = []
    for _, right_a, right_b, tokens_a, tokens_b in _resampled(pairs).tolist():
        none = not right_a or not right_b
        found.append(math.inf if none else math.log(tokens_a / right_a) - math.log(tokens_b / right_b))
    return found


def _resampled_differences(pairs: Sequence[tuple[Answered, Answered]]) -> list[float]:
    return [(right_a - right_b) / n for n, right_a, right_b, _, _ in _resampled(pairs).tolist()]


def _log_tokens_per_right(pairs: Sequence[tuple[Answered, Answered]]) -> float | None:
    """Return the log of a's tokens per right answer over b's; None where a side has none right."""
    right = [sum(pair[side].correct for pair in pairs) for side in (0, 1)]
    tokens = [sum(pair[side].tokens for pair in pairs) for side in (0, 1)]
    if not all(right):
        return None
    return math.log(tokens[0] / right[0]) - math.log(tokens[1] / right[1])


def _difference(pairs: Sequence[tuple[Answered, Answered]]) -> float:
    return sum(a.correct - b.correct for a, b in pairs) / len(pairs)


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _log(value: float | None) -> float | None:
    return None if value is None or value <= 0 else math.log(value)
