"""The shortest order of stops, from a table of distances: the driver starts at the warehouse and does not return.

Levels: two stops; three and three where going to the nearest first is right, then wrong; four and four likewise.
Distances are those of streets in a grid, so none is longer than a way around. No other order is as short.
"""

from __future__ import annotations

from itertools import combinations, pairwise, permutations
from typing import TYPE_CHECKING

from perjoule.quality.generator import Generator, Plan, Question, Words
from perjoule.quality.item import Order

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perjoule.quality.draw import Draw

_STOPS = {1: 2, 2: 3, 3: 3, 4: 4, 5: 4}
_NEAREST_MISLEADS = {3, 5}
_BLOCKS = {1: 9, 2: 9, 3: 15, 4: 15, 5: 25}  # along a side of the town; a block is a kilometre


def _plan(draw: Draw, level: int, sizes: Mapping[str, int]) -> Plan:
    while True:  # about one town in three will do
        side = _BLOCKS[level]
        places = [(draw.below(side), draw.below(side)) for _ in range(_STOPS[level] + 1)]
        km = [[abs(ax - bx) + abs(ay - by) for bx, by in places] for ax, ay in places]
        ways = sorted(
            (_length(km, order), order) for order in permutations(range(1, len(places)))
        )  # fmt: skip
        distinct = all(km[a][b] for a, b in combinations(range(len(places)), 2))
        if distinct and ways[0][0] < ways[1][0] and (ways[0][1] == _nearest_first(km)) != (level in _NEAREST_MISLEADS):
            rows = draw.shuffled(list(combinations(range(len(places)), 2)))
            return {
                "stops": draw.some(_STOPS[level], sizes["stops"]),
                "table": [[a, b, km[a][b]] for a, b in rows],
                "order": list(ways[0][1]),
            }


def _length(km: Sequence[Sequence[int]], order: Sequence[int]) -> int:
    return sum(km[a][b] for a, b in pairwise((0, *order)))


def _nearest_first(km: Sequence[Sequence[int]]) -> tuple[int, ...]:
    way, left = [0], set(range(1, len(km)))
    while left:
        way.append(min(sorted(left), key=lambda stop: km[way[-1]][stop]))
        left.remove(way[-1])
    return tuple(way[1:])


def _render(plan: Plan, words: Words) -> Question:
    start = words.phrase("start")
    names = [start, *(words.listed("stops")[i] for i in plan["stops"])]
    table = [words.phrase("distance", a=names[a], b=names[b], km=km) for a, b, km in plan["table"]]
    prompt = words.phrase(
        "question", start=start, stops=words.phrase("between").join(names[1:]), table="\n".join(table)
    )
    return Question(prompt, Order(names=tuple(names[i] for i in plan["order"]), start=start))


GENERATOR = Generator(1, ("start", "between", "distance", "question"), {"stops": 4}, _plan, _render)
