"""Fields of an order or product page as JSON.

Levels: one field of three lines; two of five; four of seven lines in any order; four among lines of something else;
six, beside an order that was cancelled and a quantity that was changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.quality.generator import Generator, Plan, Question, Words
from perjoule.quality.item import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perjoule.quality.draw import Draw

_PAGE = ("order", "date", "customer", "product", "color", "quantity", "price")
_BESIDE = ("old_price", "also", "stock", "reviews")
_LINES = {1: ("order", "product", "quantity"), 2: ("order", "product", "color", "quantity", "price")}
_ASKED = {
    1: ("order",),
    2: ("product", "quantity"),
    3: ("order", "customer", "quantity", "price"),
    4: ("order", "product", "quantity", "price"),
    5: ("order", "customer", "product", "color", "quantity", "price"),
}
_BESIDE_FROM, _CHANGED = 4, 5
_NUMBERS = frozenset({"quantity", "price"})


def _plan(draw: Draw, level: int, sizes: Mapping[str, int]) -> Plan:
    lines = list(_LINES.get(level, _PAGE))
    if level >= _BESIDE_FROM:
        lines += _BESIDE
    if level == _CHANGED:
        lines.append("history")
    if level not in _LINES:
        lines = draw.shuffled(lines)
    product, other = draw.some(2, sizes["products"])
    price = draw.between(100, 999) * 5
    quantity = draw.between(2, 9)
    return {
        "lines": [*lines, *(["change"] if level == _CHANGED else [])],
        "asked": list(_ASKED[level]),
        "order": f"HX-{draw.between(10_000, 99_999)}",
        "date": f"2031-{draw.between(1, 12):02d}-{draw.between(1, 28):02d}",
        "customer": draw.below(sizes["names"]),
        "product": product,
        "color": draw.below(sizes["colors"]),
        "quantity": quantity,
        "price": price,
        "old_price": price + draw.between(10, 200) * 5,
        "other": other,
        "other_price": draw.between(100, 999) * 5,
        "stock": draw.between(10, 99),
        "reviews": draw.between(100, 999),
        "cancelled": f"HX-{draw.between(1_000, 9_999)}",
        "new_quantity": quantity + draw.between(1, 5),
    }


def _render(plan: Plan, words: Words) -> Question:
    said = {
        "order": plan["order"], "date": plan["date"], "quantity": plan["quantity"], "stock": plan["stock"],
        "reviews": plan["reviews"], "price": _money(plan["price"]), "old_price": _money(plan["old_price"]),
        "customer": words.listed("names")[plan["customer"]], "product": words.listed("products")[plan["product"]],
        "color": words.listed("colors")[plan["color"]],
    }  # fmt: skip
    other = words.listed("products")[plan["other"]]
    lines: dict[str, str] = {}
    for kind in plan["lines"]:
        if kind == "also":
            lines[kind] = words.phrase("line_also", value=other, price=_money(plan["other_price"]))
        elif kind == "history":
            lines[kind] = words.phrase("line_history", value=plan["cancelled"], product=other)
        elif kind == "change":
            lines[kind] = words.phrase("line_change", old=plan["quantity"], value=plan["new_quantity"])
        else:
            lines[kind] = words.phrase(f"line_{kind}", value=said[kind])
    changed = "change" in lines
    answer = {**said, "quantity": plan["new_quantity"] if changed else plan["quantity"]}
    asked = [words.phrase("key_final_quantity" if key == "quantity" and changed else f"key_{key}")
             for key in plan["asked"]]  # fmt: skip
    prompt = words.phrase("question", page="\n".join(lines.values()), keys="\n".join(asked))
    return Question(prompt, Fields(
        texts={key: str(answer[key]) for key in plan["asked"] if key not in _NUMBERS},
        numbers={key: str(answer[key]) for key in plan["asked"] if key in _NUMBERS},
    ))  # fmt: skip


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


GENERATOR = Generator(
    1,
    (
        *(f"line_{kind}" for kind in (*_PAGE, *_BESIDE, "history", "change")),
        *(f"key_{key}" for key in _ASKED[_CHANGED]), "key_final_quantity", "question",
    ),
    {"names": 8, "products": 8, "colors": 4},
    _plan, _render,
)  # fmt: skip
