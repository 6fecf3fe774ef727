"""Parts of an address as JSON.

Levels: name and city; street, number, city; a full line; with an apartment and a telephone number that is not asked
for; several lines with a note and an address that no longer holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.quality.generator import Generator, Plan, Question, Words
from perjoule.quality.item import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perjoule.quality.draw import Draw

_ASKED = {
    1: ("name", "city"),
    2: ("street", "number", "city"),
    3: ("name", "street", "number", "city", "postcode"),
    4: ("name", "street", "number", "apartment", "city", "postcode"),
    5: ("name", "street", "number", "apartment", "city", "postcode", "phone"),
}
_SAID = {**_ASKED, 4: _ASKED[5], 5: (*_ASKED[5], "neighbour", "old_street", "old_number", "old_city", "old_postcode")}
_NUMBERS = frozenset({"number", "apartment"})


def _plan(draw: Draw, level: int, sizes: Mapping[str, int]) -> Plan:
    street, old_street = draw.some(2, sizes["streets"])
    city, old_city = draw.some(2, sizes["cities"])
    number, old_number, neighbour = (n + 1 for n in draw.some(3, 98))
    parts = {
        "name": draw.below(sizes["names"]), "street": street, "number": number, "apartment": draw.between(100, 999),
        "city": city, "postcode": draw.between(10_000, 99_999), "phone": f"555-{draw.between(1000, 9999)}",
        "neighbour": neighbour, "old_street": old_street, "old_number": old_number, "old_city": old_city,
        "old_postcode": draw.between(10_000, 99_999),
    }  # fmt: skip
    return {"level": level, **{part: parts[part] for part in _SAID[level]}}


def _render(plan: Plan, words: Words) -> Question:
    level = plan["level"]
    said: dict[str, object] = {}
    for part in _SAID[level]:
        kind = part.removeprefix("old_")
        listed = {"name": "names", "street": "streets", "city": "cities"}.get(kind)
        if listed:
            said[part] = words.listed(listed)[plan[part]]
        elif kind == "postcode":
            said[part] = words.phrase("postcode", digits=plan[part])
        else:
            said[part] = plan[part]
    asked = _ASKED[level]
    prompt = words.phrase(
        "question",
        address=words.phrase(f"address_{level}", **said),
        keys="\n".join(words.phrase(f"key_{key}") for key in asked),
    )
    return Question(prompt, Fields(
        texts={key: str(said[key]) for key in asked if key not in _NUMBERS},
        numbers={key: str(said[key]) for key in asked if key in _NUMBERS},
    ))  # fmt: skip


GENERATOR = Generator(
    1,
    (*(f"address_{level}" for level in _ASKED), *(f"key_{key}" for key in _ASKED[5]), "postcode", "question"),
    {"names": 12, "streets": 8, "cities": 8},
    _plan, _render,
)  # fmt: skip
