"""Three pictures as inline SVG: dots with a summary, lines, and bars with error bars.

Nothing is scripted or fetched; colours come from the page's CSS (classes ``s0``, ``s1``, ...), so that light and
dark pages show the same picture. Text is escaped here.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from perjoule.records import Record
from perjoule.render.format import significant
from perjoule.render.plain import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Narrow, so that on a phone the text is hardly shrunk; labels stand above their row, not beside it.
WIDTH, LEFT, RIGHT, TOP = 440, 14, 18, 18
_ROW, _AXIS = 58, 44
_TICKS = 4


class Series(Record, frozen=True, kw_only=True):
    """One named set of values; ``ys`` only for lines."""

    name: str
    xs: tuple[float, ...]
    ys: tuple[float, ...] = ()


class Bar(Record, frozen=True, kw_only=True):
    """One bar: value, random interval (thick), full interval (thin); ``group`` gives its colour."""

    name: str
    group: int
    value: float
    inner: tuple[float, float]
    outer: tuple[float, float]


def dots(series: Sequence[Series], title: str, unit: str) -> str:
    """Draw one row of dots a series, a tick at the median."""
    top = max((x for s in series for x in s.xs), default=1.0) * 1.05
    x = _scale(0.0, top, LEFT, WIDTH - RIGHT)
    height = TOP + _ROW * len(series) + _AXIS
    body = [_axis(x, top, height - _AXIS, unit)]
    for row, one in enumerate(series):
        y = TOP + _ROW * row + _ROW * 0.6
        body.append(_label(one.name, TOP + _ROW * row))
        spread = [((i * 7) % 11 - 5) * 1.8 for i in range(len(one.xs))]
        body += [
            f'<circle class="s{row}" cx="{x(v):.1f}" cy="{y + d:.1f}" r="4"/>'
            for v, d in zip(one.xs, spread, strict=True)
        ]
        middle = x(sorted(one.xs)[len(one.xs) // 2])
        body.append(f'<line class="median" x1="{middle:.1f}" x2="{middle:.1f}" y1="{y - 18:.1f}" y2="{y + 18:.1f}"/>')
    return _svg(title, height, body)


def lines(series: Sequence[Series], groups: Sequence[int], title: str, x_unit: str, y_unit: str) -> str:
    """Draw lines over x; ``groups`` gives each series the colour of its configuration."""
    height = 280
    x_top = max((v for s in series for v in s.xs), default=1.0)
    y_top = max((v for s in series for v in s.ys), default=1.0) * 1.08
    left = 46
    x, y = _scale(0.0, x_top, left, WIDTH - RIGHT), _scale(0.0, y_top, height - _AXIS, TOP)
    body = []
    for tick in range(_TICKS + 1):
        value = y_top * tick / _TICKS
        body.append(f'<line class="grid" x1="{left}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        body.append(f'<text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{_number(value)}</text>')
    body.append(f'<text x="{WIDTH - RIGHT}" y="{height - 8}" text-anchor="end">{_safe(x_unit)}</text>')
    body.append(f'<text x="4" y="{TOP - 2}">{_safe(y_unit)}</text>')
    for one, group in zip(series, groups, strict=True):
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(one.xs, one.ys, strict=True))
        body.append(f'<polyline class="s{group} line" points="{points}"><title>{_safe(one.name)}</title></polyline>')
    return _svg(title, height, body)


def bars(items: Sequence[Bar], title: str, unit: str) -> str:
    """Draw values as points with two error bars: random inside, all uncertainty outside."""
    top = max((b.outer[1] for b in items), default=1.0) * 1.05
    x = _scale(0.0, top, LEFT, WIDTH - RIGHT)
    height = TOP + _ROW * len(items) + _AXIS
    body = [_axis(x, top, height - _AXIS, unit)]
    for row, bar in enumerate(items):
        y = TOP + _ROW * row + _ROW * 0.55
        body.append(_label(bar.name, TOP + _ROW * row))
        for bounds, kind in ((bar.outer, "outer"), (bar.inner, "inner")):
            ends = f'x1="{x(bounds[0]):.1f}" x2="{x(bounds[1]):.1f}" y1="{y:.1f}" y2="{y:.1f}"'
            body.append(f'<line class="s{bar.group} {kind}" {ends}/>')
        body.append(f'<circle class="s{bar.group}" cx="{x(bar.value):.1f}" cy="{y:.1f}" r="6"/>')
    return _svg(title, height, body)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _axis(x: Callable[[float], float], top: float, y: float, unit: str) -> str:
    parts = []
    for tick in range(_TICKS + 1):
        value = top * tick / _TICKS
        parts.append(f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP}" y2="{y}"/>')
        parts.append(f'<text x="{x(value):.1f}" y="{y + 16}" text-anchor="middle">{_number(value)}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{y + 34}" text-anchor="end">{_safe(unit)}</text>')
    return "".join(parts)


def _label(name: str, y: float) -> str:
    return f'<text class="name" x="{LEFT}" y="{y + 10:.1f}">{_safe(name)}</text>'


def _number(value: float) -> str:
    return significant(value, 2) if value else "0"


def _safe(text: str) -> str:
    return escape(printable(text))


def _svg(title: str, height: float, body: Sequence[str]) -> str:
    name = _safe(title)
    opening = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{name}"><title>{name}</title>'
    return f"{opening}{''.join(body)}</svg>"
