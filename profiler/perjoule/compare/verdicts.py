"""Better, worse, not distinguishable: the ratios of every pair of configurations, Holm-corrected over all of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from perjoule.by_process import values
from perjoule.compare import joules, runs
from perjoule.compare.joules import Systematic
from perjoule.records import UNSET, Missing, Reason, Record
from perjoule.stats.paired import (
    Comparison,
    Control,
    compare_pairs,
    compare_separate,
    control,
    higher_is_better,
    holm,
    least_pairs,
    log_ratios,
)
from perjoule.stats.widening import MISS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perjoule.records import RunResult

Verdict = Literal["better", "worse", "not distinguishable", "not comparable", "not measured"]
_ByProcess = dict[int, float]
_FEWEST = 2  # processes: fewer show no spread


class Judgement(Record, frozen=True, kw_only=True):
    """One metric of a candidate against a baseline. ``ratio`` and its interval hold what does not cancel of energy.

    "not comparable": the two values are not of one kind, or only one side has one; "not measured": neither has.
    ``note`` says what the interval holds beyond the spread of processes, or why a test could not be made.
    """

    metric: str
    primary: bool
    verdict: Verdict
    why: str = ""
    ratio: Comparison | None
    ratio_missing: Reason = UNSET
    note: str = ""


class Pair(Record, frozen=True, kw_only=True):
    """A candidate against a baseline, by their places among the results; ``paired``: the processes took turns."""

    baseline: int
    candidate: int
    paired: bool
    judgements: tuple[Judgement, ...]

    def of(self, metric: str) -> Judgement:
        return next(j for j in self.judgements if j.metric == metric)


class Values:
    """Values of each process by result and metric, each computed once."""

    def __init__(self, results: Sequence[RunResult]) -> None:
        self._results = results
        self._known: dict[tuple[int, str], _ByProcess | str] = {}

    def of(self, place: int, metric: str) -> _ByProcess | str:
        """Return the values, or why the result has none: a metric that the result itself withholds is not had here."""
        key = place, metric
        if key not in self._known:
            result = self._results[place]
            told = result.metric(metric) if metric in result.metrics else Missing(reason="does not apply to this load")
            self._known[key] = told.reason if isinstance(told, Missing) else values(result, metric)
        return self._known[key]


class _Case(Record, frozen=True, kw_only=True):
    """What can be tested of one metric: both sides by process, and what of the ratio is systematic."""

    sides: tuple[_ByProcess, _ByProcess]
    systematic: Systematic


def noise_floor(
    known: Values, controls: Sequence[tuple[int, int]], metrics: Sequence[str]
) -> dict[str, Control]:  # fmt: skip
    """Return what A-A controls show beyond chance, of each metric that they have."""
    found: dict[str, Control] = {}
    for metric in metrics:
        ratios = []
        for a, b in controls:
            first, second = known.of(a, metric), known.of(b, metric)
            if isinstance(first, str) or isinstance(second, str):
                continue
            both = sorted(set(first) & set(second))
            left, right = [first[p] for p in both], [second[p] for p in both]
            if len(both) >= _FEWEST and min(*left, *right) > 0:
                ratios.append(log_ratios(left, right))
        if ratios:
            found[metric] = control(ratios)
    return found


def judge_pairs(
    results: Sequence[RunResult],
    pairs: Sequence[tuple[int, int]],
    *,
    primary: Sequence[str],
    named: Sequence[str] = (),
    threshold: float = 0.0,
    controls: Mapping[str, Control] | None = None,
    known: Values | None = None,
) -> list[Pair]:
    """Judge each pair (baseline, candidate) by every metric; Holm's correction runs over all tests together.

    ``threshold``: "worse" means worse by more than that share. Raises ``ValueError`` for a negative one.
    """
    known = known or Values(results)
    metrics = tuple(dict.fromkeys((*primary, *named)))
    cases = {
        (pair, metric): _case(known, results, pair, metric) for pair in pairs for metric in metrics
    }  # fmt: skip
    testable = {key: case for key, case in cases.items() if isinstance(case, _Case)}
    side_by_side = {pair: runs.interleaved(results[pair[0]], results[pair[1]]) for pair in pairs}
    tested: dict[tuple[tuple[int, int], str], Comparison] = {}
    as_pairs: dict[tuple[int, int], bool] = {}
    for pair in pairs:
        own = {metric: case for (p, metric), case in testable.items() if p == pair}
        as_pairs[pair] = side_by_side[pair] and _enough(own, len(testable))
        found = _tested(own, as_pairs[pair], threshold, controls or {})
        tested |= {(pair, metric): one for metric, one in found.items()}
    adjusted = holm({_key(*key): one.p for key, one in tested.items() if one.p is not None})
    return [
        Pair(
            baseline=pair[0], candidate=pair[1], paired=as_pairs[pair],
            judgements=tuple(
                _judgement(metric, metric in primary, cases[pair, metric], tested.get((pair, metric)),
                           adjusted.get(_key(pair, metric)), few=side_by_side[pair] and not as_pairs[pair])
                for metric in metrics
            ),
        )
        for pair in pairs
    ]  # fmt: skip


def _key(pair: tuple[int, int], metric: str) -> str:
    return f"{pair[0]} {pair[1]} {metric}"


def _case(
    known: Values, results: Sequence[RunResult], pair: tuple[int, int], metric: str
) -> _Case | tuple[Verdict, str]:
    """Return what can be tested, or the verdict that takes its place and why."""
    a, b = (known.of(place, metric) for place in pair)
    if isinstance(a, str) and isinstance(b, str):
        return "not measured", a if a == b else f"{a}; {b}"
    if isinstance(a, str) or isinstance(b, str):
        side, why = ("the baseline", a) if isinstance(a, str) else ("the candidate", b)
        return "not comparable", f"only one side has it; {side}: {why}"
    if min(*a.values(), *b.values()) <= 0:
        return "not comparable", "a process shows 0, so there is no ratio"
    if metric not in joules.METRICS:
        return _Case(sides=(a, b), systematic=Systematic())
    apart = joules.systematic(results[pair[0]], results[pair[1]], metric)
    return ("not comparable", apart) if isinstance(apart, str) else _Case(sides=(a, b), systematic=apart)


def _enough(cases: Mapping[str, _Case], family: int) -> bool:
    """Say whether there are pairs enough to show anything in a family of so many tests; it is asked before any test.

    With fewer, values that are compared as if they were of separate runs still can, since there are more ways to
    deal them out; what pairs have in common is then in the spread, so that the test only loses power.
    """
    counts = [len(set(c.sides[0]) & set(c.sides[1])) for c in cases.values()]
    return bool(counts) and min(counts) >= least_pairs(family)


def _tested(
    cases: Mapping[str, _Case], paired: bool, threshold: float, controls: Mapping[str, Control]
) -> dict[str, Comparison]:
    """Compare; where a part of the ratio is systematic, the p value is that of the ratio nearest to 1 it allows."""
    sides = {metric: _lists(case, paired) for metric, case in cases.items()}
    compare = compare_pairs if paired else compare_separate
    named = tuple(cases)
    seen = compare(sides, controls=controls, named=named, threshold=threshold)
    if not any(c.systematic.down or c.systematic.up for c in cases.values()):
        return seen
    shifts = {m: _towards_one(math.log(seen[m].ratio), c.systematic) for m, c in cases.items()}
    moved = {m: (a, [v * math.exp(shifts[m]) for v in b]) for m, (a, b) in sides.items()}
    judged = compare(moved, controls=controls, named=named, threshold=threshold)
    return {m: _widened(seen[m], judged[m], cases[m].systematic) for m in cases}


def _lists(case: _Case, paired: bool) -> tuple[list[float], list[float]]:
    a, b = case.sides
    if not paired:
        return list(a.values()), list(b.values())
    both = sorted(set(a) & set(b))
    return [a[p] for p in both], [b[p] for p in both]


def _towards_one(log_ratio: float, apart: Systematic) -> float:
    if log_ratio > 0:
        return -min(log_ratio, apart.down)
    return min(-log_ratio, apart.up)


def _widened(seen: Comparison, judged: Comparison, apart: Systematic) -> Comparison:
    return replace(
        seen,
        low=None if seen.low is None else seen.low * math.exp(-apart.down),
        high=None if seen.high is None else seen.high * math.exp(apart.up),
        p=judged.p, p_missing=judged.p_missing,
        adjusted_p=judged.adjusted_p, adjusted_p_missing=judged.adjusted_p_missing,
    )  # fmt: skip


def _judgement(
    metric: str, primary: bool, case: _Case | tuple[Verdict, str], found: Comparison | None, adjusted: float | None,
    *, few: bool,
) -> Judgement:  # fmt: skip
    if found is None or not isinstance(case, _Case):
        verdict, why = case if isinstance(case, tuple) else ("not measured", "")
        return Judgement(metric=metric, primary=primary, verdict=verdict, why=why, ratio=None, ratio_missing=why)
    told: Verdict = "not distinguishable"
    if adjusted is not None and adjusted <= MISS:
        told = "better" if (found.ratio > 1) == higher_is_better(metric) else "worse"
    notes = [case.systematic.why] if case.systematic.why else []
    if found.p is None:
        notes.append(str(found.p_missing))
    if few:
        notes.append("too few pairs for a test of pairs, so compared as if measured apart")
    ratio = found if adjusted is None else replace(found, adjusted_p=adjusted)
    return Judgement(
        metric=metric, primary=primary, verdict=told, ratio=replace(ratio, verdict=told), note="; ".join(notes)
    )  # fmt: skip


def surely_not_worse(found: Judgement) -> bool:
    """Say whether the candidate is better, or the whole interval of its ratio lies on the good side of 1."""
    return found.verdict == "better" or _on_one_side(found, above=higher_is_better(found.metric))


def surely_not_better(found: Judgement) -> bool:
    """Say whether the candidate is worse, or the whole interval of its ratio lies on the bad side of 1."""
    return found.verdict == "worse" or _on_one_side(found, above=not higher_is_better(found.metric))


def _on_one_side(found: Judgement, *, above: bool) -> bool:
    if found.ratio is None or found.ratio.low is None or found.ratio.high is None:
        return False
    return found.ratio.low >= 1 if above else found.ratio.high <= 1
