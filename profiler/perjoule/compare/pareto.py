"""The Pareto front: configurations that no other surely beats in joules and in something else at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.compare.verdicts import Judgement, surely_not_better, surely_not_worse
from perjoule.records import UNSET, Energy, Quantity, Reason, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.compare.verdicts import Pair
    from perjoule.records import RunResult


class Point(Record, frozen=True, kw_only=True):
    """One configuration. ``dominated_by``: those that surely are no worse on both axes and better on one."""

    result: int
    x: Energy | Quantity
    y: Energy | Quantity
    dominated_by: tuple[int, ...] = ()


class Front(Record, frozen=True, kw_only=True):
    """Points over two metrics. ``without`` are the results that lack one of them; no point: ``missing`` says why."""

    x_metric: str
    y_metric: str
    points: tuple[Point, ...]
    without: tuple[int, ...] = ()
    missing: Reason = UNSET

    @property
    def best(self) -> list[int]:
        return [p.result for p in self.points if not p.dominated_by]


def front(
    x_metric: str, y_metric: str, pairs: Sequence[Pair], results: Sequence[RunResult], places: Sequence[int]
) -> Front:
    """Return which results are on the front. Where it is not sure that one is dominated, it stays."""
    found, without = [], []
    for place in places:
        x, y = (_value(results[place], metric) for metric in (x_metric, y_metric))
        if x is None or y is None:
            without.append(place)
            continue
        above = tuple(o for o in places if o != place and _dominates(o, place, x_metric, y_metric, pairs))
        found.append(Point(result=place, x=x, y=y, dominated_by=above))
    reason = "" if len(found) > 1 else f"fewer than two results have both {x_metric} and {y_metric}"
    return Front(
        x_metric=x_metric, y_metric=y_metric, points=tuple(found), without=tuple(without), missing=reason or UNSET
    )


def _value(result: RunResult, metric: str) -> Energy | Quantity | None:
    value = result.metrics.get(metric)
    return value if isinstance(value, Energy | Quantity) else None


def _dominates(one: int, other: int, x_metric: str, y_metric: str, pairs: Sequence[Pair]) -> bool:
    """Say whether ``one`` surely dominates ``other``."""
    pair = next((p for p in pairs if {p.baseline, p.candidate} == {one, other}), None)
    if pair is None:
        return False
    axes = [pair.of(metric) for metric in (x_metric, y_metric)]
    forward = pair.candidate == one
    not_worse = surely_not_worse if forward else surely_not_better
    return all(map(not_worse, axes)) and any(_better(found, forward=forward) for found in axes)


def _better(found: Judgement, *, forward: bool) -> bool:
    return found.verdict == ("better" if forward else "worse")
