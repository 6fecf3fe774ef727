"""What an order costs: prices times quantities, shipping, a discount.

Levels: one product; with shipping; two products with shipping and a discount; the same with cents; three products
with a discount in percent, on the products alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.quality.generator import Generator, Plan, Question, Words
from perjoule.quality.item import Number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perjoule.quality.draw import Draw

_LINES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 3}
_PERCENTS = (10, 20, 30)
_SHIPPING, _DISCOUNT, _CENTS, _PERCENT = 2, 3, 4, 5  # from this level on


def _plan(draw: Draw, level: int, sizes: Mapping[str, int]) -> Plan:
    products = draw.some(_LINES[level], sizes["products"])
    most = 9 if level == 1 else 30
    step = 10 if level >= _CENTS else 100  # prices of tenths: ten per cent of them are whole cents
    lines = [[p, draw.between(200 // step, most * 100 // step) * step, draw.between(2, 9)] for p in products]
    return {
        "lines": lines,  # product, price in cents, quantity
        "shipping": draw.between(3, 9) * 100 + (draw.between(0, 9) * 10 if level >= _CENTS else 0)
        if level >= _SHIPPING else 0,
        "discount": draw.between(2, 5) * 100 if _DISCOUNT <= level < _PERCENT else 0,
        "percent": draw.pick(_PERCENTS) if level >= _PERCENT else 0,
        "cents": level >= _CENTS,
    }  # fmt: skip


def _render(plan: Plan, words: Words) -> Question:
    def money(cents: int) -> str:
        return f"{cents // 100}.{cents % 100:02d}" if plan["cents"] else str(cents // 100)

    products = words.listed("products")
    lines = [
        words.phrase("line", product=products[p], price=money(price), quantity=quantity)
        for p, price, quantity in plan["lines"]
    ]
    goods = sum(price * quantity for _, price, quantity in plan["lines"])
    discount = plan["discount"] + goods * plan["percent"] // 100
    if plan["shipping"]:
        lines.append(words.phrase("shipping", amount=money(plan["shipping"])))
    if plan["discount"]:
        lines.append(words.phrase("discount", amount=money(plan["discount"])))
    if plan["percent"]:
        lines.append(words.phrase("percent", percent=plan["percent"]))
    total = goods + plan["shipping"] - discount
    return Question(words.phrase("question", order="\n".join(lines)), Number(value=money(total)))


GENERATOR = Generator(
    1, ("line", "shipping", "discount", "percent", "question"), {"products": 3}, _plan, _render
)  # fmt: skip
