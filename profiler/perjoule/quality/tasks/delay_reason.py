"""Why a shipment is late, from a log: one of a few reasons.

Levels: the reason stands in the note, three choices; a plain description, three choices; another, four choices; six
choices and remarks on what was not the reason; six choices and earlier troubles that were solved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.quality.generator import Generator, Plan, Question, Words
from perjoule.quality.item import Choice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perjoule.quality.draw import Draw

_REASONS = 6
_CLUES = 3  # descriptions of each reason, one after another in the list
_CHOICES = {1: 3, 2: 3, 3: 4, 4: 6, 5: 6}
_EARLIER = {1: (0, 0), 2: (0, 0), 3: (0, 0), 4: (2, 0), 5: (1, 2)}  # remarks of what is well, solved troubles
_HOURS = 24


def _plan(draw: Draw, level: int, sizes: Mapping[str, int]) -> Plan:
    choices = draw.some(_CHOICES[level], _REASONS)
    reason = draw.pick(choices)
    others = draw.shuffled([i for i in range(_REASONS) if i != reason])
    well, solved = _EARLIER[level]
    notes = draw.shuffled([["well", i] for i in others[:well]] + [["solved", i] for i in others[well : well + solved]])
    last = ["named", reason] if level == 1 else ["clues", _CLUES * reason + draw.below(_CLUES)]
    minutes = sorted(draw.some(len(notes) + 1, 60))
    return {
        "choices": choices,
        "reason": reason,
        "notes": [*notes, last],
        "shipment": draw.between(10_000, 99_999),
        "day": f"2031-{draw.between(1, 12):02d}-{draw.between(1, 28):02d}",
        "times": [f"{hour:02d}:{m:02d}" for hour in [draw.below(_HOURS)] for m in minutes],
        "city": draw.below(sizes["cities"]),
    }


def _render(plan: Plan, words: Words) -> Question:
    reasons = words.listed("reasons")
    city = words.listed("cities")[plan["city"]]
    log = [
        words.phrase("entry", day=plan["day"], time=time, shipment=plan["shipment"], city=city,
                     note=words.listed(kind)[i])
        for time, (kind, i) in zip(plan["times"], plan["notes"], strict=True)
    ]  # fmt: skip
    choices = tuple(reasons[i] for i in plan["choices"])
    prompt = words.phrase("question", log="\n".join(log), choices=words.phrase("between").join(choices))
    return Question(prompt, Choice(text=reasons[plan["reason"]], choices=choices))


GENERATOR = Generator(
    1, ("entry", "question", "between"),
    {"reasons": _REASONS, "named": _REASONS, "clues": _REASONS * _CLUES, "well": _REASONS, "solved": _REASONS,
     "cities": 4},
    _plan, _render,
)  # fmt: skip
