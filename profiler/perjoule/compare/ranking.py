"""Three and more configurations: who is surely better than whom, with ties where they are ties."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.records import UNSET, Reason, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.compare.verdicts import Pair


class Place(Record, frozen=True, kw_only=True):
    """``rank`` is 1 and one more for each configuration that is surely better; null: it has no value to rank.

    ``tied_with``: results that it cannot be told apart from. Ties are not transitive: of three in a row the outer two
    may be told apart.
    """

    result: int
    rank: int | None
    rank_missing: Reason = UNSET
    tied_with: tuple[int, ...] = ()


class Ranking(Record, frozen=True, kw_only=True):
    """The places of one metric, best first; of equal rank in the order in which they were given."""

    metric: str
    places: tuple[Place, ...]


def rank(metric: str, pairs: Sequence[Pair], results: Sequence[int]) -> Ranking:
    """Rank results by one metric, from the verdicts of every pair of them."""
    beaten_by: dict[int, set[int]] = {r: set() for r in results}
    tied: dict[int, set[int]] = {r: set() for r in results}
    why: dict[int, str] = {}
    judged: set[int] = set()
    for pair in pairs:
        found = pair.of(metric)
        a, b = pair.baseline, pair.candidate
        if found.verdict == "not distinguishable":
            tied[a].add(b)
            tied[b].add(a)
        elif found.verdict == "better":
            beaten_by[a].add(b)
        elif found.verdict == "worse":
            beaten_by[b].add(a)
        else:
            why.setdefault(a, found.why)
            why.setdefault(b, found.why)
            continue
        judged |= {a, b}
    places = [
        Place(
            result=r, rank=1 + len(beaten_by[r]) if r in judged else None,
            rank_missing=UNSET if r in judged else why.get(r, "nothing to rank it against"),
            tied_with=tuple(sorted(tied[r])),
        )
        for r in results
    ]  # fmt: skip
    return Ranking(metric=metric, places=tuple(sorted(places, key=_order)))


def _order(place: Place) -> tuple[bool, int]:
    return place.rank is None, place.rank or 0
