"""Copying a line: another floor, and what long answers of a known text cost.

Levels: one word; three; six; eight words with numbers between them; six codes of letters and digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.quality.generator import Generator, Plan, Question, Words
from perjoule.quality.item import Exact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perjoule.quality.draw import Draw

_WORDS = {1: 1, 2: 3, 3: 6, 4: 8}
_WITH_NUMBERS = 4
_CODES = 6
_SIGNS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # none that look like another
_CODE_LENGTH = 5


def _plan(draw: Draw, level: int, sizes: Mapping[str, int]) -> Plan:
    if level not in _WORDS:
        return {"codes": ["".join(draw.pick(_SIGNS) for _ in range(_CODE_LENGTH)) for _ in range(_CODES)]}
    numbers = [draw.between(10, 999) for _ in range(_WORDS[level])] if level == _WITH_NUMBERS else []
    return {"words": draw.some(_WORDS[level], sizes["words"]), "numbers": numbers}


def _render(plan: Plan, words: Words) -> Question:
    if "codes" in plan:
        parts = plan["codes"]
    else:
        parts = [words.listed("words")[i] for i in plan["words"]]
        for place, number in enumerate(plan["numbers"]):
            parts.insert(2 * place + 1, str(number))
    line = " ".join(parts)
    return Question(words.phrase("question", line=line), Exact(text=line))


GENERATOR = Generator(1, ("question",), {"words": 8}, _plan, _render)
