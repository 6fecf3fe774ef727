"""What a scenario asks: questions of tasks, or a passage to be read in several languages; and who is asked which.

A question's id is ``task/seed/level/number/language``: all but the language is the same for its translations.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from perjoule.quality.languages import own_passage, passage
from perjoule.quality.own_task import load_items
from perjoule.quality.scoring import score
from perjoule.quality.task_file import items, items_sha256, load_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.quality.item import Item

PASSAGE = "passage/"


def asked(tasks: Sequence[str], languages: Sequence[str], levels: Sequence[int], count: int) -> dict[str, Item]:
    """Return ``count`` questions of each task, language and level by id; all languages and levels of a task if empty.

    Raises ``UsageError`` and ``InputError`` for a task that is not there, or has not what is asked for.
    """
    found: dict[str, Item] = {}
    for name in tasks:
        if name.endswith(".jsonl"):
            found |= {_own_id(item): item for item in load_items(name)}
            continue
        task = load_task(name)
        for level in levels or task.levels:
            for language in languages or task.languages:
                for item in items(task, language=language, level=level, count=count):
                    found[f"{item.id}/{language}"] = item
    return found


def _own_id(item: Item) -> str:
    return f"{item.task.replace('/', '-')}/0/{item.level}/{item.id.replace('/', '-')}/{item.language}"


def max_new_tokens(tasks: Sequence[str], most: int, *, thinking: bool = False) -> dict[str, int]:
    """Return how many tokens an answer of each task may have, by its name; one that takes more is cut off.

    ``most`` is the scenario's bound, and all there is for a file of the user's own, or where thoughts come before the
    answer: how long those are no task knows.
    """
    found = {}
    for name in tasks:
        if name.endswith(".jsonl"):
            found[Path(name).stem] = most
        elif thinking:
            found[load_task(name).name] = most
        else:
            task = load_task(name)
            found[task.name] = min(most, task.max_new_tokens)
    return found


def share_of(ids: Sequence[str], process: int, processes: int) -> list[str]:
    """Return the questions of one process: dealt in turn, so that each process has some of every kind.

    Processes beyond the first ``processes`` are asked again what those were asked, for more of time and energy.
    """
    return list(ids[process % processes :: processes])


def questions_sha256(found: dict[str, Item]) -> str:
    """Return the digest of all questions with their answers, in their order."""
    return items_sha256(tuple(found.values()))


def passages(languages: Sequence[str]) -> dict[str, str]:
    """Return the passage in each language, or the text of a path in place of a language's tag.

    Raises ``UsageError`` for a language that has none, ``InputError`` for a text that is not the pinned one.
    """
    return {tag: own_passage(tag, tag).text if is_path(tag) else passage(tag).text for tag in languages}


def characters_of(languages: Sequence[str]) -> dict[str, int]:
    """Return the code points of each pinned passage; a text by path is known where it was read only."""
    return {tag: passage(tag).characters for tag in languages if not is_path(tag)}


def is_path(name: str) -> bool:
    return name.endswith((".txt", ".jsonl", ".toml"))


def passages_sha256(texts: dict[str, str]) -> str:
    whole = "\0".join(f"{language}\0{text}" for language, text in sorted(texts.items()))
    return hashlib.sha256(whole.encode()).hexdigest()


def is_right(item: Item, answer: str, *, finished: bool) -> bool:
    """Say whether an answer is right, strictly as docs/quality.md states it."""
    return score(item, answer, finished=finished).correct


def cluster_of(question: str) -> str:
    """Return what translations of one question have in common."""
    return question.rpartition("/")[0]


def task_of(question: str) -> tuple[str, int, str]:
    """Return task, level and language of a question's id."""
    task, _, level, _, language = question.split("/")
    return task, int(level), language
