"""Judging a claim: from the results of its sides to holds, fails or undecided, in sentences that a reader can check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule import __version__, answers
from perjoule.claims import decide
from perjoule.claims.claim import SAID
from perjoule.claims.evidence import accuracy_difference, interval_of, language_effects, ratio_effect
from perjoule.claims.verdict import Effect, Interval, SideFacts, Verdict
from perjoule.compare.gate import judge as gate
from perjoule.errors import EXIT_DONE, EXIT_UNDECIDED, EXIT_WORSE
from perjoule.records import UNSET, Energy, Quantity
from perjoule.records.facts import ToolFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.claims.choose import Chosen
    from perjoule.claims.claim import Claim, Side
    from perjoule.claims.verdict import Answer
    from perjoule.records import RunResult

_EXIT = {"holds": EXIT_DONE, "fails": EXIT_WORSE, "undecided": EXIT_UNDECIDED}
_MORE = "more fresh processes (--rigor standard or strict) narrow what processes differ by"
_SENSOR = "a sensor, or a wall meter, in place of modelled joules"
_QUESTIONS = "more questions narrow what accuracies differ by"


def judge(claim: Claim, chosen: Chosen) -> Verdict:
    """Return the verdict of a claim on its results, side a first.

    Raises ``NotComparableError`` where the results must not be compared, naming why.
    """
    results = chosen.results
    if len(results) > 1:
        gate(results, None if claim.varying == "language" else claim.varying).refuse()
    sides = tuple(_facts(claim, side, result) for side, result in zip(claim.sides, results, strict=True))
    if claim.kind == "languages":
        effects, difference = tuple(language_effects(claim, results[0])), None
        found = decide.all_of([e.answer for e in effects])
    else:
        effects = (ratio_effect(claim, results[0], results[1]),)
        difference = _difference(results) if claim.kind == "front" else None
        found = effects[0].answer
    why: list[str] = []
    if claim.kind == "front":
        tolerance = 0.0 if claim.quality is None else claim.quality.tolerance
        found = decide.front(effects[0].answer, difference if isinstance(difference, Interval) else None, tolerance)
        why += [_factors(sides), _front_said(claim, effects[0].answer, difference, tolerance)]
    found, floor = _with_floor(claim, sides, found)
    return Verdict(
        tool=ToolFacts(name="perjoule", version=__version__),
        claim=claim.name, claim_version=claim.version, claim_sha256=claim.sha256,
        registered_utc=claim.registered_utc, statement=claim.statement, scope=claim.scope,
        exploratory=bool(chosen.exploratory_why), exploratory_why=chosen.exploratory_why,
        answer=found, why=_weightiest_first(found, floor, [*map(_said, effects), *(w for w in why if w)]),
        would_decide="" if found != "undecided" else _would_decide(claim, effects, difference, sides),
        energy_says=_energy_says(results), effects=effects,
        accuracy_difference=difference if isinstance(difference, Interval) else None,
        accuracy_difference_missing=UNSET if isinstance(difference, Interval)
        else difference or "the claim is not about accuracy",
        sides=sides, caveats=tuple(_caveats(results)),
    )  # fmt: skip


def _weightiest_first(found: Answer, floor: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """Return all sentences; what is missing of quality comes first where it kept the claim from holding."""
    return (*others, *floor) if found == "holds" else (*floor, *others)


def exit_code(verdict: Verdict) -> int:
    return _EXIT[verdict.answer]


def _difference(results: Sequence[RunResult]) -> Interval | str:
    pairs = answers.paired(results[0], results[1])
    return pairs if isinstance(pairs, str) else accuracy_difference(pairs)


def _with_floor(claim: Claim, sides: Sequence[SideFacts], found: Answer) -> tuple[Answer, list[str]]:
    """Hold each side against the quality that the claim asks for: one that has it not surely cannot win."""
    if claim.quality is None:
        return found, []
    met = [decide.meets(claim.quality, side.accuracy, side.mean_kl_nats) for side in sides]
    lines = [_floor_said(claim, side, answer) for side, answer in zip(sides, met, strict=True) if answer != "holds"]
    return decide.with_floor(found, met), lines


def _floor_said(claim: Claim, side: SideFacts, answer: Answer) -> str:
    asked = []
    floor = claim.quality
    if floor is not None and floor.accuracy is not None:
        asked.append(f"at least {floor.accuracy:.0%} right answers (it has {_told(side.accuracy, percent=True)})")
    if floor is not None and floor.mean_kl_nats is not None:
        had = side.mean_kl_nats_missing if side.mean_kl_nats is None else _told(side.mean_kl_nats)
        asked.append(f"at most {floor.mean_kl_nats:g} nats from its own file (it has {had})")
    verb = "does not have" if answer == "fails" else "is not surely shown to have"
    return f"{side.said} {verb} the quality that the claim asks for: {' and '.join(asked)}"


def _said(effect: Effect) -> str:
    if effect.ratio is None:
        return f"{effect.said}: no ratio of {SAID[effect.metric]}: {effect.ratio_missing}"
    claimed = f"{'at most' if effect.below else 'at least'} {effect.bound:.3g}"
    return f"{effect.said}: {SAID[effect.metric]} is x{_told(effect.ratio)}; the claim says {claimed}: {effect.answer}"


def _factors(sides: Sequence[SideFacts]) -> str:
    """Say what joules per right answer are made of: a cheap token is not a cheap answer."""
    told = []
    for side in sides:
        per_token, tokens, accuracy = side.energy_j_per_output_token, side.tokens_per_answer, side.accuracy
        if per_token is None or tokens is None or accuracy is None:
            return ""
        told.append(f"{side.said} {per_token.value:.3g} J x {tokens:.3g} tokens / {accuracy.value:.2g}")
    return f"J per right answer is J per token x tokens per answer / accuracy: {', '.join(told)}"


def _front_said(claim: Claim, cheaper: Answer, difference: Interval | str | None, tolerance: float) -> str:
    if not isinstance(difference, Interval):
        return f"accuracies cannot be compared: {difference}"
    names = [side.said for side in claim.sides]
    told = (
        f"{names[0]}'s share of right answers less {names[1]}'s: {_told(difference, percent=True, signed=True)} of all "
        "questions"
    )
    better = difference.low is not None and difference.low > 0
    worse = difference.high is not None and difference.high < -tolerance
    if cheaper == "fails" and better:
        return f"{told}: neither dominates, since the one that answers better is not the one that costs less"
    if cheaper == "holds" and worse:
        return f"{told}: neither dominates, since the one that costs less answers worse"
    return told


def _would_decide(
    claim: Claim, effects: Sequence[Effect], difference: Interval | str | None, sides: Sequence[SideFacts]
) -> str:
    needed = []
    if any(e.answer == "undecided" for e in effects):
        needed.append(_MORE)
        if any("coefficients" in e.note for e in effects):
            needed.append(_SENSOR)
    if claim.kind == "front" and isinstance(difference, Interval):
        needed.append(_QUESTIONS)
    if claim.quality is not None and claim.quality.mean_kl_nats is not None:
        needed += [f"the fidelity of {s.said} (--quality fidelity)" for s in sides if s.mean_kl_nats is None]
    return "; ".join(dict.fromkeys(needed)) or "nothing more of the same: the sides trade quality against cost"


def _energy_says(results: Sequence[RunResult]) -> str:
    """Say what the label of the joules allows to be said."""
    headlines = [r.energy.headline for r in results]
    labels = {h.label for h in headlines if h is not None}
    scopes = {h.scope for h in headlines if h is not None}
    if not labels:
        return "no joules: nothing is said of energy"
    scope = " / ".join(sorted(scopes))
    if labels == {"measured"}:
        return f"joules were read from a sensor, scope: {scope}"
    return (
        f"joules are {' / '.join(sorted(labels))}, not measured (scope: {scope}): they follow CPU time, so that the "
        "ratio is one of work on this processor; what a wall meter would show is not known"
    )


def _caveats(results: Sequence[RunResult]) -> list[str]:
    found = [f"{r.model.name}: {c.message}" for r in results for c in r.checks if c.severity == "invalid"]
    found += [f"{r.model.name}: {c.message}" for r in results for c in r.checks if c.code == "unfaithful"]
    return list(dict.fromkeys(found))


def _facts(claim: Claim, side: Side, result: RunResult) -> SideFacts:
    cost = _metric(result, claim.metric)
    accuracy = _metric(result, "accuracy")
    tokens = _metric(result, "output_tokens_per_answer")
    per_token = _metric(result, "energy_j_per_output_token")
    kl = _divergence(result)
    energy = result.metrics.get(claim.metric)
    return SideFacts(
        said=side.said, results=(result.id,),
        cost=_found(cost), cost_missing=_why(cost),
        cost_unit=energy.unit if isinstance(energy, Quantity | Energy) else "",
        cost_label=energy.label if isinstance(energy, Energy) else "",
        accuracy=_found(accuracy), accuracy_missing=_why(accuracy),
        items_count=len(answers.answered(result.samples)),
        mean_kl_nats=_found(kl), mean_kl_nats_missing=_why(kl),
        tokens_per_answer=tokens.value if isinstance(tokens, Interval) else None,
        tokens_per_answer_missing=_why(tokens),
        energy_j_per_output_token=_found(per_token), energy_j_per_output_token_missing=_why(per_token),
    )  # fmt: skip


def _metric(result: RunResult, name: str) -> Interval | str:
    if name not in result.metrics:
        return "does not apply to this load"
    return interval_of(result.metric(name))


def _divergence(result: RunResult) -> Interval | str:
    if result.quality is None:
        return str(result.quality_missing)
    if result.quality.fidelity is None:
        return str(result.quality.fidelity_missing)
    return interval_of(result.quality.fidelity.kl_divergence_nats.mean)


def _found(value: Interval | str) -> Interval | None:
    return value if isinstance(value, Interval) else None


def _why(value: Interval | str) -> str:
    return UNSET if isinstance(value, Interval) else value  # type: ignore[return-value]  # absent where there is one


def _told(found: Interval | None, *, percent: bool = False, signed: bool = False) -> str:
    if found is None:
        return "none that is known"

    def one(value: float | None) -> str:
        if value is None:
            return "no bound"
        return f"{value:{'+' if signed else ''}.0%}" if percent else f"{value:.3g}"

    return f"{one(found.value)} ({one(found.low)} to {one(found.high)})"
