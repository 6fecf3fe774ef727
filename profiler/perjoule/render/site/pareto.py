"""Joules per token against tokens per second, with the interval of both: one picture a load."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from perjoule.records import Record
from perjoule.render import format as fmt
from perjoule.render.format import significant
from perjoule.render.site.cells import ENERGY, RATE, anchor, as_energy, label_of, name, number, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.publish.index import Entry

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 400, 300, 58, 14, 12, 50
_MOST_POINTS = 400  # more hide each other and weigh a page down
_MARKS = {"measured": "circle", "counter-modelled": "square", "utilisation-modelled": "diamond"}
_R = 4.0
_MOST_TICKS = 5
_STEPS, _FINE_STEPS = (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)
LEGEND = (
    "Lower and further right is better. Bars are intervals; those of energy hold all uncertainty. Circle: measured; "
    "square: modelled from counters; diamond: modelled from CPU time. Joules of different marks do not compare."
)
FRONT_LEGEND = f"{LEGEND} A dashed line joins what nothing else beats in both, among joules of one label and scope."


class Picture(Record, frozen=True, kw_only=True):
    title: str
    svg: str
    note: str


def pictures(entries: Sequence[Entry], most: int, *, front: bool) -> list[Picture]:
    """Return a picture for each of the ``most`` loads with the most results; other loads cost other joules.

    ``front`` draws what nothing else beats in both, among joules of one label and scope alone: only
    on one kind of machine does that mean something.
    """
    by_load: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        value, rate = number(entry.row, ENERGY), number(entry.row, RATE)
        if value and rate and value > 0 and rate > 0:
            by_load.setdefault((text(entry.row, "scenario"), text(entry.row, "scenario_sha256")), []).append(entry)
    largest = sorted(by_load.items(), key=lambda item: (-len(item[1]), item[0]))[:most]
    return [_picture(found, front=front) for _, found in largest]


def _picture(entries: list[Entry], *, front: bool) -> Picture:
    shown = sorted(entries, key=lambda e: text(e.row, "created_utc"), reverse=True)[:_MOST_POINTS]
    bars = [(_span(e, RATE), _span(e, ENERGY)) for e in shown]
    x = _Log(min(b[0][0] for b in bars), max(b[0][2] for b in bars), _LEFT, _WIDTH - _RIGHT)
    y = _Log(min(b[1][0] for b in bars), max(b[1][2] for b in bars), _HEIGHT - _BOTTOM, _TOP)
    body = [*_axes(x, y), *(_front(shown, x, y) if front else [])]
    for entry, (rate, joules) in zip(shown, bars, strict=True):
        body.append(_point(entry, rate, joules, x, y))
    load = name(entries[0].row, "scenario")
    title = f"Energy against decode speed: {load}"
    lead = f"{len(shown)} results of the load {load}"
    svg = (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="group" aria-label="{escape(title)}: {escape(lead)}; '
        f'the table below holds the numbers">{"".join(body)}</svg>'
    )
    note = f"The newest {_MOST_POINTS} of {len(entries)} are drawn." if len(entries) > _MOST_POINTS else ""
    return Picture(title=title, svg=svg, note=note)


class _Log:
    """A scale of powers: at least one octave is shown, so that a single point lies in the middle."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        middle, half = math.log(low * high) / 2, max(math.log(high / low) / 2, math.log(2) / 2) * 1.08
        self._low, self._high, self._start, self._end = middle - half, middle + half, start, end

    def __call__(self, value: float) -> float:
        share = (math.log(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        first, last = math.floor(self._low / math.log(10)), math.ceil(self._high / math.log(10))
        inside: list[float] = []
        for steps in (_STEPS, _FINE_STEPS):
            every = [step * 10.0**power for power in range(first, last + 1) for step in steps]
            inside = [v for v in every if self._low <= math.log(v) <= self._high]
            if len(inside) > 2:  # noqa: PLR2004 - fewer show no scale
                break
        return inside[:: max(1, math.ceil(len(inside) / _MOST_TICKS))]


def _span(entry: Entry, metric: str) -> tuple[float, float, float]:
    """Return low, value and high; a bound that is missing, or not above 0, is the value itself."""
    value, low, high = (number(entry.row, f"{metric}{end}") for end in ("", "_low", "_high"))
    middle = value or 1.0
    return (low if low and low > 0 else middle), middle, (high or middle)


def _axes(x: _Log, y: _Log) -> list[str]:
    base = _HEIGHT - _BOTTOM
    body = []
    for v in x.ticks():
        body.append(f'<line class="grid" x1="{x(v):.0f}" x2="{x(v):.0f}" y1="{_TOP}" y2="{base}"/>')
        body.append(f'<text x="{x(v):.0f}" y="{base + 18}" text-anchor="middle">{v:g}</text>')
    for v in y.ticks():
        body.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(v):.0f}" y2="{y(v):.0f}"/>')
        body.append(f'<text x="{_LEFT - 6}" y="{y(v) + 4:.0f}" text-anchor="end">{fmt.si(v, "J", 2)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    body.append(f'<text class="name" x="{middle:.0f}" y="{_HEIGHT - 10}" text-anchor="middle">'
                "tokens/s; up: J per output token</text>")  # fmt: skip
    return body


def _point(entry: Entry, rate: tuple[float, float, float], joules: tuple[float, float, float], x: _Log, y: _Log) -> str:
    cx, cy = x(rate[1]), y(joules[1])
    row = entry.row
    said = (
        f"{name(row, 'model')}, {name(row, 'backend')}, {name(row, 'gpus') or name(row, 'cpu')}: "
        f"{significant(rate[1], 3)} tokens/s, {fmt.energy(as_energy(row, ENERGY))} per token"
    )
    across, up = f"M{x(rate[0]):.1f} {cy:.1f}H{x(rate[2]):.1f}", f"M{cx:.1f} {y(joules[0]):.1f}V{y(joules[2]):.1f}"
    return (
        f'<a href="#{anchor(entry)}"><title>{escape(said)}</title>'
        f'<path class="bar" d="{across}{up}"/>'
        f"{_mark(label_of(row), cx, cy)}</a>"
    )


def _mark(label: str, cx: float, cy: float) -> str:
    shape = _MARKS.get(label, "diamond")
    if shape == "circle":
        return f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{_R}"/>'
    if shape == "square":
        return f'<rect class="dot" x="{cx - _R:.1f}" y="{cy - _R:.1f}" width="{2 * _R}" height="{2 * _R}"/>'
    return (
        f'<path class="dot" d="M{cx:.1f} {cy - _R - 1:.1f}l{_R + 1} {_R + 1}l-{_R + 1} {_R + 1}l-{_R + 1}-{_R + 1}z"/>'
    )


def _front(entries: Sequence[Entry], x: _Log, y: _Log) -> list[str]:
    kinds: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for entry in entries:
        kind = (label_of(entry.row), text(entry.row, f"{ENERGY}_scope"))
        kinds.setdefault(kind, []).append((number(entry.row, RATE) or 0.0, number(entry.row, ENERGY) or 0.0))
    drawn = []
    for points in kinds.values():
        best = pareto_front(points)
        if len(best) > 1:
            way = " ".join(f"{x(rate):.1f},{y(joules):.1f}" for rate, joules in best)
            drawn.append(f'<polyline class="front" points="{way}"/>')
    return drawn


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (rate, joules) that no other is at least as good as in both; the fastest last."""
    best: list[tuple[float, float]] = []
    for rate, joules in sorted(set(points), key=lambda p: (-p[0], p[1])):
        if not best or joules < best[-1][1]:
            best.append((rate, joules))
    return best[::-1]
