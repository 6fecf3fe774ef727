"""Three pictures as inline SVG: dots with a summary, lines, and bars with error bars.

Nothing is scripted or fetched; colours come from the page's CSS (classes ``s0``, ``s1``, ...), so that light and
dark pages show the same picture. Text is escaped here.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from perjoule.records import Record
from perjoule.render.format import significant
from perjoule.render.plain import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Narrow, so that on a phone the text is hardly shrunk; labels stand above their row, not beside it.
WIDTH, LEFT, RIGHT, TOP = 440, 14, 18, 18
_ROW, _AXIS = 62, 44
_SPREAD = 26.0  # height of the lanes of one row
_TICKS = 5  # at most


class Series(Record, frozen=True, kw_only=True):
    """One named set of values; ``ys`` only for lines, ``lanes`` (the process of each value) only for dots."""

    name: str
    xs: tuple[float, ...]
    ys: tuple[float, ...] = ()
    lanes: tuple[int, ...] = ()


class Bar(Record, frozen=True, kw_only=True):
    """One bar: value, random interval (thick), full interval (thin), and ticks at what physics allows.

    ``group`` gives its colour; ``limits`` are lower and upper limit, where known.
    """

    name: str
    group: int
    value: float
    inner: tuple[float, float]
    outer: tuple[float, float]
    limits: tuple[float, ...] = ()


def dots(series: Sequence[Series], title: str, unit: str) -> str:
    """Draw one row of dots a series, each process in its own lane, a tick at the median."""
    top = max((x for s in series for x in s.xs), default=1.0) * 1.05
    x = _scale(0.0, top, LEFT, WIDTH - RIGHT)
    height = TOP + _ROW * len(series) + _AXIS
    body = [_axis(x, top, height - _AXIS, unit)]
    for row, one in enumerate(series):
        y = TOP + _ROW * row + _ROW * 0.6
        body.append(_label(one.name, TOP + _ROW * row))
        order = sorted(set(one.lanes))
        spread = [((order.index(lane) + 0.5) / len(order) - 0.5) * _SPREAD for lane in one.lanes]
        body += [
            f'<circle class="s{row}" cx="{x(v):.1f}" cy="{y + d:.1f}" r="3"/>'
            for v, d in zip(one.xs, spread, strict=True)
        ]
        middle = x(sorted(one.xs)[len(one.xs) // 2])
        body.append(f'<line class="median" x1="{middle:.1f}" x2="{middle:.1f}" y1="{y - 18:.1f}" y2="{y + 18:.1f}"/>')
    return _svg(title, _medians(series, unit), height, body)


def lines(series: Sequence[Series], groups: Sequence[int], title: str, x_unit: str, y_unit: str) -> str:
    """Draw lines over x; ``groups`` gives each series the colour of its configuration."""
    height = 280
    x_top = max((v for s in series for v in s.xs), default=1.0)
    y_top = max((v for s in series for v in s.ys), default=1.0) * 1.08
    left = 46
    x, y = _scale(0.0, x_top, left, WIDTH - RIGHT), _scale(0.0, y_top, height - _AXIS, TOP + 10)
    body = []
    for value in _ticks(y_top):
        body.append(f'<line class="grid" x1="{left}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        body.append(f'<text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{_number(value)}</text>')
    body += [
        f'<text x="{x(value):.1f}" y="{height - _AXIS + 16}" text-anchor="middle">{_number(value)}</text>'
        for value in _ticks(x_top)
    ]
    body.append(f'<text x="{WIDTH - RIGHT}" y="{height - 8}" text-anchor="end">{_safe(x_unit)}</text>')
    body.append(f'<text x="4" y="12">{_safe(y_unit)}</text>')
    for one, group in zip(series, groups, strict=True):
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(one.xs, one.ys, strict=True))
        body.append(f'<polyline class="s{group} line" points="{points}"><title>{_safe(one.name)}</title></polyline>')
    return _svg(title, f"{len(series)} lines, {x_unit} against {y_unit}", height, body)


def bars(items: Sequence[Bar], title: str, unit: str) -> str:
    """Draw values as points with two error bars: random inside, all uncertainty outside."""
    top = max((v for b in items for v in (*b.outer, *b.limits)), default=1.0) * 1.05
    x = _scale(0.0, top, LEFT, WIDTH - RIGHT)
    height = TOP + _ROW * len(items) + _AXIS
    body = [_axis(x, top, height - _AXIS, unit)]
    for row, bar in enumerate(items):
        y = TOP + _ROW * row + _ROW * 0.55
        body.append(_label(bar.name, TOP + _ROW * row))
        for bounds, kind in ((bar.outer, "outer"), (bar.inner, "inner")):
            ends = f'x1="{x(bounds[0]):.1f}" x2="{x(bounds[1]):.1f}" y1="{y:.1f}" y2="{y:.1f}"'
            body.append(f'<line class="s{bar.group} {kind}" {ends}/>')
        body.append(f'<circle class="s{bar.group}" cx="{x(bar.value):.1f}" cy="{y:.1f}" r="5"/>')
        for limit in bar.limits:
            at = f'x1="{x(limit):.1f}" x2="{x(limit):.1f}" y1="{y - 9:.1f}" y2="{y + 9:.1f}"'
            body.append(f'<line class="limit" {at}/>')
    said = "; ".join(
        f"{b.name}: {_number(b.value)} {unit}, {_number(b.outer[0])} to {_number(b.outer[1])}" for b in items
    )
    return _svg(title, said, height, body)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _axis(x: Callable[[float], float], top: float, y: float, unit: str) -> str:
    parts = []
    for value in _ticks(top):
        parts.append(f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP}" y2="{y}"/>')
        parts.append(f'<text x="{x(value):.1f}" y="{y + 16}" text-anchor="middle">{_number(value)}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{y + 34}" text-anchor="end">{_safe(unit)}</text>')
    return "".join(parts)


def _ticks(top: float) -> list[float]:
    """Return round numbers from 0 to ``top``: steps of 1, 2 or 5 times a power of ten."""
    least = top / _TICKS if top > 0 else 1.0
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))
    return [step * i for i in range(int(top / step + 1e-9) + 1)]


def _medians(series: Sequence[Series], unit: str) -> str:
    return "; ".join(f"{s.name}: median {_number(sorted(s.xs)[len(s.xs) // 2])} {unit}" for s in series)


def _label(name: str, y: float) -> str:
    return f'<text class="name" x="{LEFT}" y="{y + 10:.1f}">{_safe(name)}</text>'


def _number(value: float) -> str:
    """Format at most three significant digits, without zeros that say nothing."""
    text = significant(value, 3)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _safe(text: str) -> str:
    return escape(printable(text))


def _svg(title: str, said: str, height: float, body: Sequence[str]) -> str:
    """Return the picture; ``said`` is what a screen reader reads instead of it."""
    name = _safe(f"{title}. {said}")
    opening = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{name}">'
    return f"{opening}{''.join(body)}</svg>"
