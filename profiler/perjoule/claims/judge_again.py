"""Whether a verdict that somebody states follows from the results that it rests on: it is judged again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.claims.choose import choose
from perjoule.claims.claim import list_claims, load_claim
from perjoule.claims.judge import judge
from perjoule.claims.verdict_file import content_of
from perjoule.errors import PerjouleError
from perjoule.records.facts import STATISTICS_VERSION
from perjoule.verify import differences, statistics_note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.claims.verdict import Verdict
    from perjoule.records import RunResult

_LONGEST = 120  # characters of what the two say
_MOST_LINES = 10


def rests_on(verdict: Verdict) -> tuple[str, ...]:
    """Return the ids of the results that it rests on, each once."""
    return tuple(dict.fromkeys(id_ for side in verdict.sides for id_ in side.results))


def foreign(verdict: Verdict) -> str:
    """Return why its claim is none that ships with this perjoule, with what to do; empty where it is one."""
    if verdict.claim not in list_claims():
        return (
            f"claim {verdict.claim!r} does not ship with perjoule, so that nobody else could judge it again "
            "(hint: `perjoule claim` lists those that do)"
        )
    if load_claim(verdict.claim).sha256 != verdict.claim_sha256:
        return (
            f"claim_sha256: is not that of the claim {verdict.claim} that ships, so that something else was judged "
            f"(hint: `perjoule claim {verdict.claim} RESULT... --json FILE` judges the one that ships)"
        )
    return ""


def unlike(verdict: Verdict, results: Sequence[RunResult]) -> list[str]:
    """Return in what it differs from the verdict on its claim and these results, one line each; empty where it holds.

    The claim has to be one that ships (``foreign``), the results those that it names. Who judged does not matter, but
    for the statistics: numbers made by older rules are not those that this perjoule makes.
    """
    claim = load_claim(verdict.claim)
    if verdict.tool.name != "perjoule":
        return [f"tool.name: {verdict.tool.name!r} is not perjoule"]
    older = [r.id for r in results if statistics_note(r) is not None]
    if older or verdict.tool.statistics != STATISTICS_VERSION:
        return [
            f"rests on numbers of other statistics than this perjoule's ({STATISTICS_VERSION}): "
            f"upgrade the results, and judge with `perjoule claim {claim.name}`"
        ]
    try:
        again = judge(claim, choose(claim, results, exploratory=verdict.exploratory))
    except PerjouleError as error:
        return [f"its results give no verdict: {error.message}"]
    lines = [
        f"{at.removeprefix('.')}: the file says {_short(told)}, its results give {_short(found)}"
        for at, told, found in differences("", content_of(verdict), content_of(again))
    ]
    more = len(lines) - _MOST_LINES
    return lines if more <= 0 else [*lines[:_MOST_LINES], f"{more} more differ"]


def _short(value: object) -> str:
    told = repr(value)
    return told if len(told) <= _LONGEST else f"{told[:_LONGEST]}..."
