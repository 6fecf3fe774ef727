"""One figure of a long report.

Levels: 3 figures, 8, 16, 32 with sentences between them, 48 of which the one asked for was corrected at the end.
No figure stands in a report twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.quality.generator import Generator, Plan, Question, Words
from perjoule.quality.item import Number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perjoule.quality.draw import Draw

_FIGURES = {1: 3, 2: 8, 3: 16, 4: 32, 5: 48}
_REGIONS, _QUARTERS, _METRICS, _REMARKS = 6, 4, 4, 6
_WITH_REMARKS, _CORRECTED = 4, 5  # from this level on
_EVERY = 6  # figures a remark


def _plan(draw: Draw, level: int, sizes: Mapping[str, int]) -> Plan:
    del sizes
    count = _FIGURES[level]
    places = sorted(draw.some(count, _REGIONS * _QUARTERS * _METRICS))
    values = [100 + v for v in draw.some(count + 1, 9_900)]
    asked = draw.below(count)
    return {
        "figures": [list(f) for f in zip(places, values, strict=False)],
        "asked": places[asked],
        "answer": values[count] if level == _CORRECTED else values[asked],
        "remarks": [draw.below(_REMARKS) for _ in range(count // _EVERY)] if level >= _WITH_REMARKS else [],
        "corrected": level == _CORRECTED,
        "old": values[asked],
    }


def _render(plan: Plan, words: Words) -> Question:
    def place(index: int) -> dict[str, str]:
        quarter, rest = divmod(index, _REGIONS * _METRICS)
        region, metric = divmod(rest, _METRICS)
        named = {"quarter": quarter, "region": region, "metric": metric}
        return {name: words.listed(f"{name}s")[i] for name, i in named.items()}

    lines = [words.phrase("figure", **place(index), value=value) for index, value in plan["figures"]]
    for at, remark in reversed(list(enumerate(plan["remarks"], 1))):
        lines.insert(at * _EVERY, words.listed("remarks")[remark])
    asked = place(plan["asked"])
    if plan["corrected"]:
        lines.append(words.phrase("correction", **asked, old=plan["old"], value=plan["answer"]))
    prompt = words.phrase("question", **asked, report="\n".join(lines))
    return Question(prompt, Number(value=str(plan["answer"])))


GENERATOR = Generator(
    1, ("figure", "correction", "question"),
    {"regions": _REGIONS, "quarters": _QUARTERS, "metrics": _METRICS, "remarks": _REMARKS},
    _plan, _render,
)  # fmt: skip
