"""Results of one sweep as one table, and words for what is best, what can be told apart and what cannot."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from perjoule.records import Energy, Metric, Missing, Record, RunResult
from perjoule.render import format as fmt
from perjoule.render import rows
from perjoule.render.plain import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_HEADS = {
    "threads": "Threads", "batch": "Batch", "clients": "Clients", "prompt_tokens": "Prompt, tokens",
    "new_tokens": "Answer, tokens", "rate_per_s": "Offered, requests/s",
}  # fmt: skip
_WORDS = {
    "threads": "{} thread{s}", "batch": "batch {}", "clients": "{} client{s}", "prompt_tokens": "{} prompt tokens",
    "new_tokens": "{} new tokens", "rate_per_s": "{} requests/s",
}  # fmt: skip
_FOLLOWS = frozenset({"context_tokens", "batch", "threads"})  # options that a swept key brings along
_WIDEST_NAME = 26  # of a curve; its column holds short numbers otherwise
# differ between first points that do not have the same value; the load itself is one for all curves
_SWEPT_ASPECTS = frozenset({"batch", "rate", "prompt", "answer", "scenario"})
_TOGETHER = frozenset({"multi-stream", "offline", "server"})
_MODEL_RATIO = 1.25  # what does not cancel between two joules of one model on one host: docs/energy.md, "Intervals"


class Point(Record, frozen=True, kw_only=True):
    value: float
    result: RunResult


class Curve(Record, frozen=True, kw_only=True):
    """Points of one model, engine and set of options, in the order of their values."""

    name: str
    points: tuple[Point, ...]


class Swept(Record, frozen=True, kw_only=True):
    """Curves over the same ``key`` of the same scenario on the same machine."""

    scenario: str
    key: str
    shape: str
    curves: tuple[Curve, ...]

    @property
    def results(self) -> list[RunResult]:
        return [p.result for c in self.curves for p in c.points]


class Column(Record, frozen=True, kw_only=True):
    """A number of each point. ``drawn``: it is a picture too; ``said``: how a sentence names it."""

    head: str
    name: str
    said: str = ""
    drawn: bool = False


def split(results: Sequence[RunResult]) -> tuple[list[Swept], list[RunResult]]:
    """Return the sweeps among the results, and what belongs to none: a single point is no sweep."""
    groups: dict[str, dict[str, list[Point]]] = {}
    for result in results:
        value = swept_value(result)
        if value is not None:
            curves = groups.setdefault(_load_of(result), {})
            identity, repeat = _engine_of(result), 0
            while any(p.value == value for p in curves.get(f"{identity} {repeat}", ())):
                repeat += 1  # measured twice: a curve of its own
            curves.setdefault(f"{identity} {repeat}", []).append(Point(value=value, result=result))
    sweeps = [_swept(list(curves.values())) for curves in groups.values() if max(map(len, curves.values())) > 1]
    inside = {id(r) for s in sweeps for r in s.results}
    return sweeps, [r for r in results if id(r) not in inside]


def _swept(curves: Sequence[Sequence[Point]]) -> Swept:
    first = curves[0][0].result
    names = rows.names([points[0].result for points in curves], without=_SWEPT_ASPECTS | {_key(first)})
    return Swept(
        scenario=first.scenario.name, key=_key(first), shape=rows.shape(first),
        curves=tuple(
            Curve(name=name, points=tuple(sorted(points, key=lambda p: p.value)))
            for name, points in zip(names, curves, strict=True)
        ),
    )  # fmt: skip


def _key(result: RunResult) -> str:
    found = result.scenario.spec.get("sweep")
    return str(found.get("key", "")) if isinstance(found, dict) else ""


def swept_value(result: RunResult) -> float | None:
    """Return the value of the swept key that a result was measured at; None where nothing was swept."""
    key = _key(result)
    if key not in _HEADS:
        return None
    asked = result.backend.requested_options if key == "threads" else result.scenario.spec
    value = asked.get(key)
    return float(value) if isinstance(value, int | float) else None


def point_name(result: RunResult) -> str:
    """Return the point of a sweep in words, as ``4 threads``; empty where nothing was swept."""
    value = swept_value(result)
    return "" if value is None else _in_words(_key(result), value)


def _in_words(key: str, value: float) -> str:
    return _WORDS[key].format(_plain(value), s="" if value == 1 else "s")


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,g}"


def _load_of(result: RunResult) -> str:
    """Return what results of one sweep have in common: the load apart from the swept key, and the machine."""
    spec = {k: v for k, v in result.scenario.spec.items() if k != _key(result)}
    return _text([result.host.machine_id, spec])


def _engine_of(result: RunResult) -> str:
    options = {k: v for k, v in result.backend.requested_options.items() if k not in _left_out(result)}
    return _text([result.model.ref, result.model.file_sha256, result.backend.name, options, result.settings.control])


def _left_out(result: RunResult) -> frozenset[str]:
    return _FOLLOWS - ({"threads"} if _key(result) != "threads" else set())


def _text(parts: list[Any]) -> str:
    return json.dumps(parts, sort_keys=True, default=str)


def columns(swept: Swept) -> list[Column]:
    """Return the numbers of a sweep of this shape and key that at least one point has."""
    together = swept.shape in _TOGETHER
    by_length = swept.key == "prompt_tokens" and not together
    waits = swept.key in ("prompt_tokens", "rate_per_s", "clients")
    wanted = [
        Column(head="Output tokens/s", name="output_tokens_per_s", said="output tokens per second", drawn=True)
        if together
        else Column(head="Decode tokens/s", name="decode_tokens_per_s", said="decoding speed", drawn=True),
        *([Column(head="Prefill tokens/s", name="prefill_tokens_per_s", drawn=True)] if by_length else []),
        Column(head="TTFT", name="ttft_s", drawn=waits),
        Column(head="Met the SLO", name="slo_met_share"),
        Column(head="Goodput requests/s", name="goodput_requests_per_s"),
        Column(head="J/token", name="energy_j_per_output_token", said="J/token", drawn=True),
        Column(head="Peak memory", name="peak_memory_bytes", drawn=True),
    ]
    return [c for c in wanted if any(not isinstance(metric(r, c.name), Missing) for r in swept.results)]


def metric(result: RunResult, name: str) -> Metric:
    return result.metric(name) if name in result.metrics else Missing(reason="it does not apply to this load")


def head(swept: Swept) -> str:
    return _HEADS[swept.key]


def title(swept: Swept) -> str:
    first, values = swept.results[0], {p.value for c in swept.curves for p in c.points}
    of = f", {first.model.name} on {first.backend.name}" if len(swept.curves) == 1 else ""
    return f"{swept.scenario}: {len(values)} values of {swept.key}{of}"


def cells(swept: Swept) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Return, for each curve, its name and its rows: the swept value, and the text of each column."""
    shown = columns(swept)
    return [
        (curve.name, [(_first_cell(p), [fmt.bare(metric(p.result, c.name)) for c in shown]) for p in curve.points])
        for curve in swept.curves
    ]


def _first_cell(point: Point) -> str:
    marks = [*(["saturated"] if saturated(point.result) else []), *([] if point.result.publishable else ["INVALID"])]
    return _plain(point.value) + (f" {', '.join(marks)}" if marks else "")


def saturated(result: RunResult) -> bool:
    return any(s.saturated and s.phase == "measured" for s in result.spans)


def table(swept: Swept) -> Table:
    """Return the sweep as a table for a terminal: a row a point, a section a curve."""
    made = Table(
        title=printable(title(swept)), title_justify="left", title_style="bold", header_style="bold", pad_edge=False
    )
    made.add_column(head(swept), overflow="fold", max_width=_WIDEST_NAME)
    for column in columns(swept):
        made.add_column(column.head, overflow="fold")
    for name, points in cells(swept):
        if len(swept.curves) > 1:
            made.add_section()
            made.add_row(Text(printable(name), style="bold"))
        for first, rest in points:
            made.add_row(first, *(Text(cell) for cell in rest))
    return made


def remarks(swept: Swept) -> list[str]:
    """Say which point is best, which points cannot be told apart, what the joules are, and what is missing."""
    invalid, count = [r for r in swept.results if not r.publishable], len(swept.results)
    told = (
        [f"{len(invalid)} of {count} points are INVALID: what follows is no better than they are."] if invalid else []
    )
    for curve in swept.curves:
        name = f"{curve.name}: " if len(swept.curves) > 1 else ""
        found = [*_too_much(swept, curve), *_best(swept, curve), *_alike(swept, curve)]
        told += [f"{name}{line}" for line in found]
    return [*told, *_joules(swept), *_missing(swept)]


def _too_much(swept: Swept, curve: Curve) -> list[str]:
    full = [p for p in curve.points if saturated(p.result)]
    lines = []
    if full:
        lines.append(
            f"cannot keep up at {_list(swept, full)}: there the queue grows as long as the load lasts, so latencies "
            "are not given and tokens per second are the most it can do."
        )
    if swept.key == "rate_per_s" and curve.points[0].result.scenario.spec.get("slo"):
        met = [p for p in curve.points if not any(c.code in ("slo_missed", "saturated") for c in p.result.checks)]
        said = _in_words(swept.key, met[-1].value) if met else ""
        lines.append(f"highest rate that met the service level: {said}." if met else "no rate met the service level.")
    return lines


def _best(swept: Swept, curve: Curve) -> list[str]:
    return [
        line
        for name, verb, highest in (
            (columns(swept)[0].name, "fastest", True),
            ("energy_j_per_output_token", "least energy per token", False),
        )
        if (line := _best_of(swept, curve, name, verb, highest=highest))
    ]


def _best_of(swept: Swept, curve: Curve, name: str, verb: str, *, highest: bool) -> str:
    """Say which point is best, and which ones its interval does not exclude."""
    known = [(p, m) for p in curve.points if not isinstance(m := metric(p.result, name), Missing)]
    if len(known) < 2:  # noqa: PLR2004 - one point is not the best of anything
        return ""
    best, value = (max if highest else min)(known, key=lambda pair: pair[1].value)
    line = f"{verb}: {_in_words(swept.key, best.value)}, {_number(value)}"
    rivals = [p for p, other in known if p is not best and not apart(value, other)]
    if value.low is None or value.high is None:
        return f"{line}, if one process a point can be trusted: without an interval nothing can be told apart."
    if len(rivals) == len(known) - 1:
        return f"{line}, but no other point can be told apart from it: {_why(value)}."
    if not rivals:
        return f"{line}; every other point can be told apart from it."
    return f"{line}, but {_list(swept, rivals)} cannot be told apart from it: {_why(value)}."


def _alike(swept: Swept, curve: Curve) -> list[str]:
    """Say which neighbours cannot be told apart."""
    told = []
    for column in columns(swept):
        if not column.said:
            continue
        pairs = [
            f"{_plain(a.value)} and {_plain(b.value)}"
            for a, b in itertools.pairwise(curve.points)
            if not isinstance(x := metric(a.result, column.name), Missing)
            and not isinstance(y := metric(b.result, column.name), Missing)
            and not apart(x, y)
        ]
        every = len(pairs) == len(curve.points) - 1
        if pairs:
            told.append(f"{'all of them' if every and len(pairs) > 1 else ', '.join(pairs)} in {column.said}")
    return [f"neighbours that cannot be told apart: {'; '.join(told)}."] if told else []


def apart(a: Metric, b: Metric) -> bool:
    """Say whether two points differ by more than their intervals: those that are disjoint do.

    Joules of one label and scope on one host share the systematic part, so only the random parts count, widened for a
    model by what does not cancel (x/÷ 1.25). A value without an interval can be told apart from nothing.
    """
    if isinstance(a, Missing) or isinstance(b, Missing):
        return False
    if isinstance(a, Energy) and isinstance(b, Energy) and (a.label, a.grade, a.scope) == (b.label, b.grade, b.scope):
        factor = 1.0 if a.label == "measured" else _MODEL_RATIO
        return a.random[1] * factor < b.random[0] or b.random[1] * factor < a.random[0]
    if None in (a.low, a.high, b.low, b.high):
        return False
    return (a.high or 0.0) < (b.low or 0.0) or (b.high or 0.0) < (a.low or 0.0)


def _why(value: Metric) -> str:
    if isinstance(value, Energy):
        extra = "" if value.label == "measured" else " (with x/÷ 1.25 for what a model of power misses)"
        return f"the random parts of their intervals overlap{extra}"
    return "their intervals overlap"


def _number(value: Metric) -> str:
    return fmt.energy(value, "J/token") if isinstance(value, Energy) else fmt.metric(value)


def _list(swept: Swept, points: Sequence[Point]) -> str:
    if len(points) == 1:
        return _in_words(swept.key, points[0].value)
    values = [_plain(p.value) for p in points]
    return _WORDS[swept.key].format(f"{', '.join(values[:-1])} and {values[-1]}", s="s")


def _joules(swept: Swept) -> list[str]:
    """Say once how the joules of the table were had, or of which points if that differs."""
    kinds: dict[str, list[str]] = {}
    for curve in swept.curves:
        for point in curve.points:
            found = metric(point.result, "energy_j_per_output_token")
            if isinstance(found, Energy):
                kinds.setdefault(fmt.kind(found), []).append(_in_words(swept.key, point.value))
    several = len(kinds) > 1
    return [
        f"J/token {'at ' + ', '.join(dict.fromkeys(where)) + ' ' if several else ''}with its whole interval: {kind}."
        for kind, where in kinds.items()
    ]


def _missing(swept: Swept) -> list[str]:
    """Say why a cell of the table is a dash, once a reason; a saturated point has said it already."""
    found: dict[str, list[str]] = {}
    for column in columns(swept):
        for result in swept.results:
            value = metric(result, column.name)
            if isinstance(value, Missing) and not saturated(result):
                found.setdefault(value.reason, []).append(f"{column.head} at {point_name(result)}")
    return [f"no {', '.join(dict.fromkeys(where))}: {reason}" for reason, where in found.items()]


def over_points(curve: Curve, of: Callable[[RunResult], Metric]) -> Iterable[tuple[float, Metric]]:
    """Yield swept value and metric of the points that have it."""
    for point in curve.points:
        found = of(point.result)
        if not isinstance(found, Missing):
            yield point.value, found
