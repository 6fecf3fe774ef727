"""Which of several configurations is best: successive halving on interleaved processes, then the best two as pairs.

Half of the field leaves after 2, 4, 8, ... processes of each, worst first [Jamieson and Talwalkar 2016, arXiv
1502.07943]: the few that stay get the many processes that a small difference takes. Pure functions.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Literal

from perjoule.by_process import values
from perjoule.records import Record
from perjoule.scenario import Slo
from perjoule.stats.intervals import half_width
from perjoule.stats.paired import Comparison, compare_pairs, least_pairs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perjoule.records import RunResult

Objective = Literal["energy", "latency", "edp"]
OBJECTIVES: dict[Objective, tuple[tuple[str, ...], str]] = {
    "energy": (("energy_j_per_output_token",), "J per output token"),
    "latency": (("e2e_latency_s",), "seconds per request"),
    "edp": (("energy_j_per_output_token", "e2e_latency_s"), "J per output token x seconds per request"),
}
FIRST_RUNG = 2  # processes: fewer show no spread
FINALISTS = 2
LEAST_PAIRS = least_pairs(1)  # of the best two, before they are judged
ALIKE = 0.01  # a ratio surely closer to 1 than this decides nothing
_METRIC = "objective"


class Race(Record, frozen=True, kw_only=True):
    """What is looked for. ``budget_s`` bounds the measuring of all configurations together."""

    objective: Objective
    slo: Slo | None = None
    budget_s: float


class Score(Record, frozen=True, kw_only=True):
    """How one configuration stands: the objective by process number, and why it is out, if it is.

    ``objective`` is in the unit of ``OBJECTIVES``; ``ttft_s`` and ``tpot_s`` are per-process medians.
    """

    objective: dict[int, float]
    ttft_s: tuple[float, ...] = ()
    tpot_s: tuple[float, ...] = ()
    out: str = ""

    @property
    def mean(self) -> float:
        """Geometric mean over processes; infinite where there is none."""
        logs = [math.log(v) for v in self.objective.values() if v > 0]
        return math.exp(statistics.fmean(logs)) if logs else math.inf


class Standing(Record, frozen=True, kw_only=True):
    """The field after a round: who goes on, why others do not, and whether it is decided.

    ``order`` ranks those in the race, best first. ``pair`` compares the best with the second, once only two are left.
    """

    order: tuple[int, ...]
    dropped: dict[int, str]
    over: bool
    why: str = ""
    pair: Comparison | None = None


def score(result: RunResult, race: Race) -> Score:
    """Return how the configuration stands whose processes so far are in ``result``."""
    names, _unit = OBJECTIVES[race.objective]
    parts = [values(result, name) for name in names]
    missing = [p for p in parts if isinstance(p, str)]
    if missing:
        return Score(objective={}, out=f"the objective is not known: {missing[0]}")
    known = [p for p in parts if not isinstance(p, str)]
    shared = set.intersection(*(set(p) for p in known))
    objective = {process: math.prod(p[process] for p in known) for process in sorted(shared)}
    ttft, tpot = (values(result, name) for name in ("ttft_s", "tpot_s"))
    found = Score(
        objective=objective,
        ttft_s=() if isinstance(ttft, str) else tuple(ttft.values()),
        tpot_s=() if isinstance(tpot, str) else tuple(tpot.values()),
    )
    return found if race.slo is None else _within(found, race.slo)


def _within(found: Score, slo: Slo) -> Score:
    """Put a configuration out that surely misses a limit: even the low end of its interval is above it."""
    for name, seconds, limit in (("TTFT", found.ttft_s, slo.ttft_s), ("TPOT", found.tpot_s, slo.tpot_s)):
        if limit is None or not seconds:
            continue
        mean, half = statistics.fmean(seconds), half_width(seconds)
        if mean - (half or 0.0) > limit:
            return Score(objective=found.objective, ttft_s=found.ttft_s, tpot_s=found.tpot_s,
                         out=f"{name} is {mean * 1e3:.3g} ms; the limit is {limit * 1e3:.3g} ms")  # fmt: skip
    return found


def meets(found: Score, slo: Slo | None) -> bool:
    """Say whether the means of a configuration lie within the limits."""
    if slo is None:
        return True
    pairs = ((found.ttft_s, slo.ttft_s), (found.tpot_s, slo.tpot_s))
    return all(limit is None or not seconds or statistics.fmean(seconds) <= limit for seconds, limit in pairs)


def settle(race: Race, scores: Mapping[int, Score], rounds: int, spent_s: float) -> Standing:
    """Decide after a round who goes on. ``scores``: those in the race; ``rounds``: processes that each has had."""
    dropped = {index: found.out for index, found in scores.items() if found.out}
    left = [i for i in scores if i not in dropped]
    order = sorted(left, key=lambda i: (not meets(scores[i], race.slo), scores[i].mean))
    if rounds >= FIRST_RUNG and rounds & (rounds - 1) == 0 and len(order) > FINALISTS:
        keep = max(FINALISTS, -(-len(order) // 2))
        best = scores[order[0]].mean
        for index in order[keep:]:
            worse = scores[index].mean / best - 1
            dropped[index] = (
                f"{worse:.0%} above the best after {rounds} processes" if worse > 0 else "misses the limits"
            )
        order = order[:keep]
    enough = spent_s * (rounds + 1) / rounds <= race.budget_s
    spent = "" if enough else f"the time budget of {race.budget_s:g} s is spent"
    if len(order) < FINALISTS:
        why = "only one is left" if order else "none is left"
        over = not order or rounds >= LEAST_PAIRS or bool(spent)
        return Standing(order=tuple(order), dropped=dropped, over=over, why=why)
    if len(order) > FINALISTS:
        return Standing(order=tuple(order), dropped=dropped, over=bool(spent), why=spent)
    pair = _pair(scores, order)
    told_apart = pair is not None and pair.verdict in {"better", "worse"}
    alike = pair is not None and pair.n >= LEAST_PAIRS and _alike(pair)
    why = (
        "the best two are told apart"
        if told_apart
        else f"the best two differ by less than {ALIKE:.0%}"
        if alike
        else spent
    )
    return Standing(order=tuple(order), dropped=dropped, over=told_apart or alike or bool(spent), why=why, pair=pair)


def _alike(pair: Comparison) -> bool:
    """Say whether the whole interval of the ratio lies where nobody would choose by it."""
    return pair.low is not None and pair.high is not None and pair.low > 1 - ALIKE and pair.high < 1 + ALIKE


def _pair(scores: Mapping[int, Score], order: Sequence[int]) -> Comparison | None:
    """Compare the second with the best by the processes that both have had: the ratio is second over best."""
    best, second = (scores[i].objective for i in order)
    both = sorted(set(best) & set(second))
    if len(both) < FIRST_RUNG:
        return None
    sides = [best[p] for p in both], [second[p] for p in both]
    return compare_pairs({_METRIC: sides}, named=(_METRIC,))[_METRIC]
