"""Turning what a scenario asks into requests of one process, and what was answered into right and wrong."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from msgspec.structs import replace

from perjoule.messages import Question
from perjoule.records import UNSET

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perjoule.quality.item import Item
    from perjoule.records import Sample
    from perjoule.scenario import Scenario


def questions_of(scenario: Scenario, process: int) -> tuple[Question, ...]:
    """Return what one process is asked: its share of the questions, or each passage once in an order of its own."""
    if scenario.tasks:
        from perjoule.quality.questions import max_new_tokens, share_of  # noqa: PLC0415 - only where something is asked

        found = _asked(scenario)
        thinking = None if scenario.thinking is UNSET else scenario.thinking == "on"
        longest = max_new_tokens(scenario.tasks, scenario.new_tokens, thinking=bool(thinking))
        return tuple(
            Question(
                id=name, prompt=found[name].prompt, system=found[name].system, chat=True,
                max_new_tokens=longest[found[name].task], thinking=thinking,
            )
            for name in share_of(tuple(found), process, scenario.min_processes)
        )  # fmt: skip
    if not scenario.passages:
        return ()
    from perjoule.quality.questions import PASSAGE, passages  # noqa: PLC0415

    texts = list(passages(scenario.languages).items())
    first = process % len(texts)
    return tuple(
        Question(id=f"{PASSAGE}{language}", prompt=text, chat=False, max_new_tokens=1)
        for language, text in (*texts[first:], *texts[:first])
    )


def judged(samples: Iterable[Sample], scenario: Scenario) -> tuple[Sample, ...]:
    """Return the samples with whether each answer is right; those without a question as they are."""
    samples = tuple(samples)
    if not scenario.tasks:
        return samples
    from perjoule.quality.questions import is_right  # noqa: PLC0415

    found = _asked(scenario)
    return tuple(
        replace(s, correct=is_right(found[s.question], s.answer, finished=s.finish_reason == "stop"))
        if isinstance(s.question, str) and isinstance(s.answer, str)
        else s
        for s in samples
    )


def same_questions(scenario: Scenario) -> bool:
    """Say whether this perjoule makes the questions that the scenario was measured with, so that it can judge them."""
    from perjoule.errors import PerjouleError  # noqa: PLC0415
    from perjoule.quality.questions import questions_sha256  # noqa: PLC0415

    try:
        return questions_sha256(_asked(scenario)) == scenario.questions_sha256
    except PerjouleError:  # a user's own file that is not here
        return False


def _asked(scenario: Scenario) -> dict[str, Item]:
    return _made(scenario.tasks, scenario.languages, scenario.levels, scenario.items)


@lru_cache(maxsize=8)
def _made(tasks: tuple[str, ...], languages: tuple[str, ...], levels: tuple[int, ...], count: int) -> dict[str, Item]:
    from perjoule.quality.questions import asked  # noqa: PLC0415

    return asked(tasks, languages, levels, count)
