"""Four pictures as inline SVG: dots with a summary, lines, bars with error bars, points over x.

Nothing is scripted or fetched; colours come from the page's CSS (classes ``s0``, ``s1``, ...), so that light and
dark pages show the same picture. Text is escaped here. A phone shows a picture at three quarters of its size and the
page's CSS enlarges its text there, so that all room for text is for the larger size.
"""

from __future__ import annotations

import math
import textwrap
from html import escape
from typing import TYPE_CHECKING

from perjoule.records import Record
from perjoule.render.format import significant
from perjoule.render.plain import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDTH, LEFT, RIGHT, TOP = 440, 14, 18, 30
COLOURS = 8  # in the page's CSS
_LINE, _CHAR = 19, 9  # height of a line of text and width of a digit, at the size it has on a phone
_WRAP = 46  # characters of a name in a line
_AXIS, _MARKS = 46, 44  # height of an axis with its unit, and of what is drawn in a row
_SPREAD = 26.0  # height of the lanes of one row
_TICKS = 5  # at most
_PLOT_HEIGHT = 300  # of a picture over x
_MARK = 3.0  # width of the mark of a value, which hides a bar that is narrower
_DOT, _SMALL_DOT = 4.0, 2.5  # radius of a point with an interval, and of one request among many


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


class Points(Record, frozen=True, kw_only=True):
    """One named set of points over x; ``group`` gives the colour, ``joined`` draws a line through them.

    ``outer`` and ``inner`` are intervals of y, one a point where there are any: all uncertainty, its random part.
    """

    name: str
    group: int
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    outer: tuple[tuple[float, float], ...] = ()
    inner: tuple[tuple[float, float], ...] = ()
    joined: bool = False


def dots(series: Sequence[Series], title: str, unit: str, groups: Sequence[int] = ()) -> str:
    """Draw one row of dots a series, each process in its own lane, a tick at the median; ``groups`` give colours."""
    top = max((x for s in series for x in s.xs), default=1.0) * 1.05
    x = _scale(0.0, top, LEFT, WIDTH - RIGHT)
    labels = [_wrapped(s.name) for s in series]
    height, row_of = _rows(labels)
    body = [_axis(x, top, height - _AXIS, unit)]
    for row, (one, label) in enumerate(zip(series, labels, strict=True)):
        y, middle = row_of(row), x(sorted(one.xs)[len(one.xs) // 2])
        body.append(_label(label, y))
        y += _LINE * len(label) + _MARKS / 2
        order = sorted(set(one.lanes))
        spread = [((order.index(lane) + 0.5) / len(order) - 0.5) * _SPREAD for lane in one.lanes]
        body += [
            f'<circle class="{_colour(groups[row] if groups else row)}" cx="{x(v):.1f}" cy="{y + d:.1f}" r="3"/>'
            for v, d in zip(one.xs, spread, strict=True)
        ]
        body.append(f'<line class="median" x1="{middle:.1f}" x2="{middle:.1f}" y1="{y - 18:.1f}" y2="{y + 18:.1f}"/>')
    return _svg(title, _medians(series, unit), height, body)


def lines(
    series: Sequence[Series], groups: Sequence[int], title: str, x_unit: str, y_unit: str,
    limit: tuple[float, str] | None = None, y_least: float = 0.0,
) -> str:  # fmt: skip
    """Draw lines over x; ``groups`` gives each series the colour of its configuration, ``limit`` is a named x.

    The axis of y goes up to ``y_least`` at least.
    """
    x_top = max((v for s in series for v in s.xs), default=1.0)
    x_top = max(x_top, limit[0] * 1.05) if limit else x_top
    y_top = max(y_least, *(v for s in series for v in s.ys)) * 1.08
    height, x, y, body = _plane(x_top, y_top, x_unit, y_unit)
    for one, group in zip(series, groups, strict=True):
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(one.xs, one.ys, strict=True))
        line = f'<polyline class="{_colour(group)} line" points="{points}">'
        body.append(f"{line}<title>{_safe(one.name)}</title></polyline>")
    if limit:
        at, side = x(limit[0]), "end" if x(limit[0]) > WIDTH / 2 else "start"
        body.append(f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{height - _AXIS}"/>')
        near = at - 6 if side == "end" else at + 6
        body.append(f'<text x="{near:.1f}" y="{height - _AXIS - 8}" text-anchor="{side}">{_safe(limit[1])}</text>')
    said = f"{len(series)} line{'s' * (len(series) != 1)}, {x_unit} against {y_unit}"
    return _svg(title, f"{said}; {limit[1]}" if limit else said, height, body)


def bars(items: Sequence[Bar], title: str, unit: str) -> str:
    """Draw values as marks with two error bars: random inside, all uncertainty outside; the numbers above them."""
    x, top = _bar_scale(items)
    labels = [_wrapped(f"{b.name}: {_bounds(b.value, b.outer, unit)}") for b in items]
    height, row_of = _rows(labels)
    body = [_axis(x, top, height - _AXIS, unit)]
    for row, (bar, label) in enumerate(zip(items, labels, strict=True)):
        y = row_of(row)
        body.append(_label(label, y))
        y += _LINE * len(label) + _MARKS / 2
        for bounds, kind in ((bar.outer, "outer"), (bar.inner, "inner")):
            ends = f'x1="{x(bounds[0]):.1f}" x2="{x(bounds[1]):.1f}" y1="{y:.1f}" y2="{y:.1f}"'
            body.append(f'<line class="{_colour(bar.group)} {kind}" {ends}/>')
        at = f'x="{x(bar.value) - _MARK / 2:.1f}" y="{y - 10:.1f}" width="{_MARK}" height="20"'
        body.append(f'<rect class="{_colour(bar.group)} mark" {at}/>')
        for limit in bar.limits:
            at = f'x1="{x(limit):.1f}" x2="{x(limit):.1f}" y1="{y - 9:.1f}" y2="{y + 9:.1f}"'
            body.append(f'<line class="limit" {at}/>')
    said = "; ".join(f"{b.name}: {_bounds(b.value, b.outer, unit)}" for b in items)
    return _svg(title, said, height, body)


def hidden_bars(items: Sequence[Bar]) -> int:
    """Return how many rows of ``bars`` have an inner bar that their mark hides."""
    x, _ = _bar_scale(items)
    return sum(x(b.inner[1]) - x(b.inner[0]) <= _MARK for b in items)


def plot(
    curves: Sequence[Points], title: str, x_unit: str, y_unit: str, *, log2: bool = False,
    limit: tuple[float, str] | None = None,
) -> str:  # fmt: skip
    """Draw points over x with their intervals; ``log2``: each doubling of x is as far, ``limit`` is a named y."""
    x_top = max((v for c in curves for v in c.xs), default=1.0)
    y_top = _highest(curves, limit) * 1.08
    marks = sorted({v for c in curves for v in c.xs}) if log2 else None
    height, x, y, body = _plane(x_top, y_top, x_unit, y_unit, marks)
    joined = [c for c in curves if c.joined]
    for curve in curves:
        aside = 5.0 * (joined.index(curve) - (len(joined) - 1) / 2) if curve.joined else 0.0  # bars do not coincide
        body += _curve(curve, _beside(x, aside), y)
    if limit:
        at = y(limit[0])
        body.append(f'<line class="limit" x1="{x(0 if marks is None else marks[0]):.1f}" x2="{WIDTH - RIGHT}" '
                    f'y1="{at:.1f}" y2="{at:.1f}"/>')  # fmt: skip
        body.append(f'<text x="{WIDTH - RIGHT}" y="{at - 5:.1f}" text-anchor="end">{_safe(limit[1])}</text>')
    return _svg(title, _said(curves, x_unit, y_unit), height, body)


def hidden_intervals(curves: Sequence[Points], limit: tuple[float, str] | None = None) -> int:
    """Return how many points of ``plot`` have an interval that their dot hides."""
    top = _highest(curves, limit) * 1.08
    scale = (_PLOT_HEIGHT - _AXIS - TOP) / (top or 1.0)
    return sum((high - low) * scale <= 2 * _DOT for c in curves for low, high in c.outer)


def _beside(x: Callable[[float], float], aside: float) -> Callable[[float], float]:
    return lambda value: x(value) + aside


def _highest(curves: Sequence[Points], limit: tuple[float, str] | None) -> float:
    values = [v for c in curves for v in (*c.ys, *(high for _, high in c.outer))]
    return max([*values, *([limit[0]] if limit else [])], default=1.0)


def _curve(curve: Points, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    colour, body = _colour(curve.group), []
    name = f"<title>{_safe(curve.name)}</title>"
    if curve.joined:
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(curve.xs, curve.ys, strict=True))
        body.append(f'<polyline class="{colour} line" points="{points}">{name}</polyline>')
    for bounds, kind in ((curve.outer, "outer"), (curve.inner, "inner")):
        for a, (low, high) in zip(curve.xs, bounds, strict=False):
            ends = f'x1="{x(a):.1f}" x2="{x(a):.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}"'
            body.append(f'<line class="{colour} {kind}" {ends}/>')
    radius = _DOT if curve.joined else _SMALL_DOT
    body += [
        f'<circle class="{colour}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="{radius}"/>'
        for a, b in zip(curve.xs, curve.ys, strict=True)
    ]
    return body


def _said(curves: Sequence[Points], x_unit: str, y_unit: str) -> str:
    """Return what a screen reader says: every point with its interval, or of a cloud how many and how far."""
    told = []
    for curve in curves:
        if curve.joined:
            outer = curve.outer or ((0.0, 0.0),) * len(curve.xs)
            points = (
                f"at {_number(a)} {_bounds(b, o, y_unit) if curve.outer else f'{_number(b)} {y_unit}'}"
                for a, b, o in zip(curve.xs, curve.ys, outer, strict=True)
            )
            told.append(f"{curve.name}: {', '.join(points)}")
        elif curve.ys:
            ends = f"{_number(curve.ys[0])} at first, {_number(curve.ys[-1])} at last"
            told.append(f"{curve.name}: {len(curve.ys)} points, {ends}, at most {_number(max(curve.ys))} {y_unit}")
    return f"{'; '.join(told)}; over {x_unit}"


def _plane(
    x_top: float, y_top: float, x_unit: str, y_unit: str, marks: Sequence[float] | None = None
) -> tuple[float, Callable[[float], float], Callable[[float], float], list[str]]:
    """Return height, both scales and the grid of a picture over x; ``marks``: ticks on a scale of doublings."""
    height, ticks = float(_PLOT_HEIGHT), [(v, _number(v)) for v in _ticks(y_top)]
    left = 14 + _CHAR * max(len(text) for _, text in ticks)
    y = _scale(0.0, y_top, height - _AXIS, TOP)
    if marks is None:
        x, along = _scale(0.0, x_top, left, WIDTH - RIGHT), tuple(_ticks(x_top))
    else:
        room = _scale(math.log2(marks[0]), math.log2(marks[-1]), left + 24, WIDTH - RIGHT - 24)
        x, along = (lambda value: room(math.log2(value))), tuple(marks)
    body = []
    for value, text in ticks:
        body.append(f'<line class="grid" x1="{left}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        body.append(f'<text x="{left - 6}" y="{y(value) + 5:.1f}" text-anchor="end">{text}</text>')
    free = 0.0
    for value in along:
        text = _number(value)
        if x(value) - _CHAR * len(text) / 2 >= free:  # the next would be written over this one
            free = x(value) + _CHAR * (len(text) / 2 + 0.5)
            body.append(f'<text x="{x(value):.1f}" y="{height - _AXIS + 18}" text-anchor="middle">{text}</text>')
    body.append(f'<text x="{WIDTH - RIGHT}" y="{height - 6}" text-anchor="end">{_safe(x_unit)}</text>')
    body.append(f'<text x="4" y="14">{_safe(y_unit)}</text>')
    return height, x, y, body


def _bar_scale(items: Sequence[Bar]) -> tuple[Callable[[float], float], float]:
    top = max((v for b in items for v in (*b.outer, *b.limits)), default=1.0) * 1.05
    return _scale(0.0, top, LEFT, WIDTH - RIGHT), top


def _rows(labels: Sequence[Sequence[str]]) -> tuple[float, Callable[[int], float]]:
    """Return the height of a picture of rows, and where each begins."""
    begins = [0.0]
    for label in labels:
        begins.append(begins[-1] + _LINE * len(label) + _MARKS)
    return begins[-1] + _AXIS + 8, begins.__getitem__


def _wrapped(name: str) -> list[str]:
    return textwrap.wrap(printable(name), _WRAP) or [""]


def _colour(group: int) -> str:
    return f"s{group % COLOURS}"


def _bounds(value: float, bounds: tuple[float, float], unit: str) -> str:
    shown, low, high = (_number(v) for v in (value, *bounds))
    return f"{shown} {unit}" if low == shown == high else f"{shown} {unit}, {low} to {high}"


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _axis(x: Callable[[float], float], top: float, y: float, unit: str) -> str:
    parts = []
    for value in _ticks(top):
        parts.append(f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="4" y2="{y}"/>')
        anchor = "start" if value == 0 else "middle"
        parts.append(f'<text x="{x(value):.1f}" y="{y + 18}" text-anchor="{anchor}">{_number(value)}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{y + 40}" text-anchor="end">{_safe(unit)}</text>')
    return "".join(parts)


def _ticks(top: float) -> list[float]:
    """Return round numbers from 0 to ``top``: steps of 1, 2 or 5 times a power of ten."""
    least = top / _TICKS if top > 0 else 1.0
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))
    return [step * i for i in range(int(top / step + 1e-9) + 1)]


def _medians(series: Sequence[Series], unit: str) -> str:
    return "; ".join(f"{s.name}: median {_number(sorted(s.xs)[len(s.xs) // 2])} {unit}" for s in series)


def _label(parts: Sequence[str], y: float) -> str:
    at = (f'<tspan x="{LEFT}" y="{y + _LINE * (i + 1):.1f}">{escape(part)}</tspan>' for i, part in enumerate(parts))
    return f'<text class="name">{"".join(at)}</text>'


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
