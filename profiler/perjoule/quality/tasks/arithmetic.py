"""Sums of whole numbers: the floor of what a model must be able to do.

Levels: one digit and one digit; two and one; two and two; three and three; a product of two digits and a sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.quality.generator import Generator, Plan, Question, Words
from perjoule.quality.item import Number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perjoule.quality.draw import Draw

_RANGES = {
    1: ((1, 9), (1, 9)),
    2: ((10, 99), (2, 9)),
    3: ((10, 99), (10, 99)),
    4: ((100, 999), (100, 999)),
    5: ((11, 39), (11, 39), (100, 999)),
}
_PRODUCT = 5


def _plan(draw: Draw, level: int, sizes: Mapping[str, int]) -> Plan:
    del sizes
    return {"numbers": [draw.between(*r) for r in _RANGES[level]], "product": level == _PRODUCT}


def _render(plan: Plan, words: Words) -> Question:
    first, second, *rest = plan["numbers"]
    result = first * second if plan["product"] else first + second
    sign = "×" if plan["product"] else "+"  # noqa: RUF001 - the sign of a product
    expression = f"{first} {sign} {second}" + "".join(f" + {n}" for n in rest)
    return Question(words.phrase("question", expression=expression), Number(value=str(result + sum(rest))))


GENERATOR = Generator(1, ("question",), {}, _plan, _render)
