"""Which of many results test a claim: those that were measured as it says, two sides in turn where there are such."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from perjoule.compare.runs import interleaved
from perjoule.errors import InputError, NotComparableError
from perjoule.records import Record, RunResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.claims.claim import Claim, Side


_RIGORS = ("quick", "standard", "strict")


class Chosen(Record, frozen=True, kw_only=True):
    """The results of each side, in the claim's order, and why they explore rather than test (empty: they test)."""

    results: tuple[RunResult, ...]
    exploratory_why: str


def choose(claim: Claim, results: Sequence[RunResult], *, exploratory: bool) -> Chosen:
    """Return one result for each side: of one run where sides were measured in turn, and the newest.

    Raises ``InputError`` where a side has none, ``NotComparableError`` for results that were made before the claim was
    registered or with its quick scenario, unless they are to be only explored.
    """
    of_sides = [[r for r in results if _is_of(side, claim, r)] for side in claim.sides]
    for side, found in zip(claim.sides, of_sides, strict=True):
        if not found:
            raise InputError(
                f"claim {claim.name}: no result of {side.said} ({_configuration(side)}, scenario {claim.scenario})",
                hint=f"`perjoule claim {claim.name}` measures what is missing",
            )
    chosen = _best(of_sides)
    why = _exploring(claim, chosen)
    if why and not exploratory:
        raise NotComparableError(
            f"claim {claim.name}: {why}", hint="measure again with `perjoule claim`, or give --exploratory"
        )
    return Chosen(results=tuple(chosen), exploratory_why=why)


def missing_sides(claim: Claim, results: Sequence[RunResult], *, quick: bool) -> list[Side]:
    """Return the sides that no result covers which was made after the claim was registered, and as surely as it asks.

    ``quick``: by the quick scenario, as surely as may be.
    """
    fresh = [r for r in results if not _is_older(claim, r) and is_wanted(claim, r, quick=quick)]
    return [side for side in claim.sides if not any(_is_of(side, claim, r) for r in fresh)]


def is_wanted(claim: Claim, result: RunResult, *, quick: bool) -> bool:
    """Say whether a result was measured as the claim, or its quick form, asks for."""
    if quick:
        return result.scenario.name == claim.quick_scenario
    return result.scenario.name == claim.scenario and not _is_looser(claim, result)


def _is_looser(claim: Claim, result: RunResult) -> bool:
    return result.scenario.spec.get("rigor") not in _RIGORS[_RIGORS.index(claim.stopping.rigor) :]


def _is_of(side: Side, claim: Claim, result: RunResult) -> bool:
    asked = result.backend.requested_options
    return (
        result.scenario.name in (claim.scenario, claim.quick_scenario)
        and result.model.ref.lower() == side.model.lower().rpartition("/" if side.model.endswith(".gguf") else "\0")[2]
        and result.backend.name == side.backend
        and asked.get("quant") == side.quant
        and (side.threads is None or asked.get("threads") == side.threads)
        and result.settings.control != "A'"
    )


def _best(of_sides: Sequence[Sequence[RunResult]]) -> list[RunResult]:
    if len(of_sides) == 1:
        return [max(of_sides[0], key=lambda r: r.created_utc)]
    together = [(a, b) for a in of_sides[0] for b in of_sides[1] if interleaved(a, b)]
    if together:
        newest = max(together, key=lambda pair: pair[0].created_utc)
        return [*newest]
    return [max(found, key=lambda r: r.created_utc) for found in of_sides]


def _exploring(claim: Claim, results: Sequence[RunResult]) -> str:
    older = [r for r in results if _is_older(claim, r)]
    if older:
        return f"a result of {older[0].created_utc} is older than the claim, registered {claim.registered_utc}"
    if claim.quick_scenario != claim.scenario and any(r.scenario.name == claim.quick_scenario for r in results):
        return f"measured with the quick scenario {claim.quick_scenario}, not with {claim.scenario}"
    looser = [r for r in results if _is_looser(claim, r)]
    if looser:
        rigor = looser[0].scenario.spec.get("rigor")
        return f"measured with rigor {rigor}, where the claim's stopping rule is {claim.stopping.rigor}"
    return ""


def _is_older(claim: Claim, result: RunResult) -> bool:
    return datetime.fromisoformat(result.created_utc) < claim.registered


def _configuration(side: Side) -> str:
    return f"{side.model} on {side.backend}, {side.quant}"
