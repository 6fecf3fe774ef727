"""What a generator of questions is: it plans a question without words, and says it in a language.

One plan is said in every language, so that the same question is as hard in each.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from perjoule.quality.draw import Draw
    from perjoule.quality.item import Key

Plan = dict[str, Any]  # JSON
_PLACE = re.compile(r"\{(\w+)\}")


class Words:
    """The phrases and lists of one language, from the task's file."""

    def __init__(self, text: Mapping[str, str | tuple[str, ...]]) -> None:
        self._text = text

    def phrase(self, name: str, /, **values: object) -> str:
        """Return a phrase with its ``{places}`` filled. Raises ``ValueError`` for one left empty or without a place."""
        template = self._text[name]
        if not isinstance(template, str):
            raise ValueError(f"{name}: a text needed, not a list")  # noqa: TRY004 - a file that is wrong, not a type
        places = set(_PLACE.findall(template))
        if places != set(values):
            raise ValueError(f"{name}: places must be {_named(values)}, are {_named(places)}")
        return _PLACE.sub(lambda m: str(values[m[1]]), template)

    def listed(self, name: str) -> tuple[str, ...]:
        words = self._text[name]
        if isinstance(words, str):
            raise ValueError(f"{name}: a list needed, not a text")  # noqa: TRY004 - as above
        return words


class Question(NamedTuple):
    prompt: str
    key: Key


class Generator(NamedTuple):
    """``plan(draw, level, sizes)`` gets the lengths of the lists; ``render(plan, words)`` says the plan.

    ``lists`` are the least lengths of the lists that are used. ``version`` goes up when a question changes.
    """

    version: int
    phrases: tuple[str, ...]
    lists: Mapping[str, int]
    plan: Callable[[Draw, int, Mapping[str, int]], Plan]
    render: Callable[[Plan, Words], Question]


def _named(places: Any) -> str:
    return ", ".join(sorted(places)) or "none"
