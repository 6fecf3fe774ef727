"""Two pictures of a comparison as inline SVG: ratios with their intervals around 1, and configurations over two axes.

Colours come from the page's CSS (classes ``s0``, ``s1``, ...). Text is escaped here; nothing is scripted or fetched.
"""

from __future__ import annotations

import math
import textwrap
from html import escape
from typing import TYPE_CHECKING

from perjoule.records import Record
from perjoule.render.format import significant
from perjoule.render.plain import printable
from perjoule.render.svg import COLOURS, LEFT, RIGHT, WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LINE, _MARKS, _AXIS, _WRAP, _CHAR = 19, 30, 46, 46, 9
_HEIGHT, _TOP, _SIDE = 300, 30, 60  # of the picture over two axes, and the room for numbers of y
_LEAST_SPAN = 0.02  # of a ratio: 2 % either way are drawn even where all is closer to 1
_MARGIN = 1.08
_WIDEST = 1e6  # a ratio beyond is drawn at the edge
_STEPS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002)


class RatioRow(Record, frozen=True, kw_only=True):
    """One ratio: ``low`` and ``high`` are None where no interval is known. ``group`` gives the colour."""

    name: str
    group: int
    ratio: float
    low: float | None
    high: float | None


class Cross(Record, frozen=True, kw_only=True):
    """One configuration over two axes with both intervals; ``front``: nobody surely beats it."""

    name: str
    group: int
    x: tuple[float, float, float]  # low, value, high
    y: tuple[float, float, float]
    front: bool


def ratios(items: Sequence[RatioRow], title: str) -> str:
    """Draw each ratio as a dot on its interval, on a logarithmic axis around 1: equal factors are equally far."""
    ends = [abs(_log(v)) for i in items for v in (i.ratio, i.low or i.ratio, i.high or i.ratio)]
    reach = max(_LEAST_SPAN, *ends) * _MARGIN
    labels = [textwrap.wrap(printable(i.name), _WRAP) or [""] for i in items]
    tops = [0.0]
    for label in labels:
        tops.append(tops[-1] + _LINE * len(label) + _MARKS)
    height = tops[-1] + _AXIS

    def x(ratio: float) -> float:
        return LEFT + (_log(ratio) + reach) / (2 * reach) * (WIDTH - LEFT - RIGHT)

    bottom, body = tops[-1] + 6, []
    for ratio in _round_ratios(reach):
        kind = "median" if ratio == 1 else "grid"
        body.append(f'<line class="{kind}" x1="{x(ratio):.1f}" x2="{x(ratio):.1f}" y1="4" y2="{bottom:.1f}"/>')
        told = f"{100 * (ratio - 1):+.3g} %" if ratio != 1 else "equal"
        body.append(f'<text x="{x(ratio):.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{told}</text>')
    for item, label, top in zip(items, labels, tops, strict=False):
        spans = (f'<tspan x="{LEFT}" y="{top + _LINE * (i + 1):.1f}">{escape(t)}</tspan>' for i, t in enumerate(label))
        body.append(f'<text class="name">{"".join(spans)}</text>')
        y = top + _LINE * len(label) + _MARKS / 2
        colour = f"s{item.group % COLOURS}"
        if item.low is not None and item.high is not None:
            body.append(f'<line class="{colour} outer" x1="{x(item.low):.1f}" x2="{x(item.high):.1f}" '
                        f'y1="{y:.1f}" y2="{y:.1f}"/>')  # fmt: skip
        body.append(f'<circle class="{colour}" cx="{x(item.ratio):.1f}" cy="{y:.1f}" r="5"/>')
    said = "; ".join(f"{i.name}: {_told(i)}" for i in items)
    return _picture(title, said, height, body)


def _told(item: RatioRow) -> str:
    if item.low is None or item.high is None:
        return f"ratio {item.ratio:.4g}, no interval"
    return f"ratio {item.ratio:.4g}, {item.low:.4g} to {item.high:.4g}"


def _log(ratio: float) -> float:
    return math.log(min(max(ratio, 1 / _WIDEST), _WIDEST))


def _round_ratios(reach: float) -> list[float]:
    """Return 1, and a round change each way that fits; doublings where changes are that large."""
    largest = math.exp(reach) - 1
    if largest > 2:  # noqa: PLR2004 - per cent mean little there
        return [1 / _power_of_two(reach), 1.0, _power_of_two(reach)]
    step = next(s for s in _STEPS if s <= 1 - math.exp(-reach))
    return [1 - step, 1.0, 1 + step]


def _power_of_two(reach: float) -> float:
    return float(2 ** math.floor(reach / math.log(2)))


def scatter(items: Sequence[Cross], title: str, x_unit: str, y_unit: str) -> str:
    """Draw each configuration as a dot with its interval along both axes, which begin at 0; rings are the front."""
    x_top, y_top = (max(v for i in items for v in axis(i)) * _MARGIN or 1.0 for axis in (_of_x, _of_y))
    floor = _HEIGHT - _AXIS

    def x(value: float) -> float:
        return _SIDE + value / x_top * (WIDTH - RIGHT - _SIDE)

    def y(value: float) -> float:
        return floor - value / y_top * (floor - _TOP)

    body = _axes(x, y, x_top, y_top)
    for item in items:
        colour = f"s{item.group % COLOURS}"
        (x_low, x_mid, x_high), (y_low, y_mid, y_high) = item.x, item.y
        body.append(f'<line class="{colour} outer" x1="{x(x_low):.1f}" x2="{x(x_high):.1f}" y1="{y(y_mid):.1f}" '
                    f'y2="{y(y_mid):.1f}"/>')  # fmt: skip
        body.append(f'<line class="{colour} outer" x1="{x(x_mid):.1f}" x2="{x(x_mid):.1f}" y1="{y(y_low):.1f}" '
                    f'y2="{y(y_high):.1f}"/>')  # fmt: skip
        name = f"<title>{_safe(item.name)}</title>"
        if item.front:
            body.append(f'<circle class="ring" cx="{x(x_mid):.1f}" cy="{y(y_mid):.1f}" r="10"/>')
        body.append(f'<circle class="{colour}" cx="{x(x_mid):.1f}" cy="{y(y_mid):.1f}" r="5">{name}</circle>')
    body.append(f'<text x="{WIDTH - RIGHT}" y="{_HEIGHT - 6}" text-anchor="end">{_safe(x_unit)}</text>')
    body.append(f'<text x="4" y="14">{_safe(y_unit)}</text>')
    said = "; ".join(
        f"{i.name}: {significant(i.x[1], 3)} {x_unit}, {significant(i.y[1], 3)} {y_unit}"
        + (", on the front" if i.front else ", surely beaten")
        for i in items
    )
    return _picture(title, said, _HEIGHT, body)


def _of_x(item: Cross) -> tuple[float, float, float]:
    return item.x


def _of_y(item: Cross) -> tuple[float, float, float]:
    return item.y


def _axes(x: Callable[[float], float], y: Callable[[float], float], x_top: float, y_top: float) -> list[str]:
    body = []
    for value in _ticks(y_top):
        body.append(f'<line class="grid" x1="{_SIDE}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        body.append(f'<text x="{_SIDE - 6}" y="{y(value) + 5:.1f}" text-anchor="end">{_number(value)}</text>')
    below = f'y="{_HEIGHT - _AXIS + 18}" text-anchor="middle"'
    return [*body, *(f'<text x="{x(v):.1f}" {below}>{_number(v)}</text>' for v in _ticks(x_top))]


def _ticks(top: float) -> list[float]:
    """Return three or four round numbers from 0 to ``top``."""
    power = 10.0 ** math.floor(math.log10(top / 3))
    step = next(power * f for f in (1, 2, 5, 10) if power * f * 4 >= top)
    return [step * i for i in range(int(top / step + 1e-9) + 1)]


def _number(value: float) -> str:
    text = significant(value, 3)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _safe(text: str) -> str:
    return escape(printable(text))


def _picture(title: str, said: str, height: float, body: Sequence[str]) -> str:
    opening = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{_safe(f"{title}. {said}")}">'
    return f"{opening}{''.join(body)}</svg>"
