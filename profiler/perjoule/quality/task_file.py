"""Tasks: what is asked in which languages, read from TOML; the questions are made from a seed.

Questions that are made cannot have been in anybody's training data, and are the same in every language but for words.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from perjoule.errors import InputError, UsageError
from perjoule.quality.draw import Draw
from perjoule.quality.generator import Words
from perjoule.quality.item import Item
from perjoule.quality.tasks import NAMES, generator
from perjoule.records import Record
from perjoule.store.canonical import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from perjoule.quality.generator import Generator, Plan

_PACKAGE = "perjoule_scenarios"  # reached by name: perjoule does not import it
_MAX_TOML_BYTES = 256 * 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")  # BCP 47
_LEVELS = (1, 2, 3, 4, 5)
_LEAST_ITEMS = 2  # one answer has no interval
_MOST_ITEMS = 10_000
_MOST_ATTEMPTS = 500  # a question in a row that were all asked before: there are hardly any left
_HINT = "`order-total` and the others in perjoule_scenarios/tasks show every key"

Text = dict[str, str | tuple[str, ...]]


class Task(Record, frozen=True, kw_only=True):
    """One task, complete. ``text`` holds phrases and lists by language; ``items`` are made per language and level.

    ``max_new_tokens`` is enough for the answer that is asked for, not for thinking aloud before it.
    """

    name: str
    version: int
    description: str
    generator: str
    languages: tuple[str, ...]
    levels: tuple[int, ...]
    items: int
    max_new_tokens: int
    seed: int
    text: dict[str, Text]

    def __post_init__(self) -> None:
        super().__post_init__()
        for wrong in _wrong(self):
            raise ValueError(wrong)


def _wrong(task: Task) -> Iterator[str]:
    """Yield what is wrong with a task, each naming the key."""
    if not _NAME.fullmatch(task.name):
        yield f"name {task.name!r} must be lower case letters, digits, dots, dashes"
    for field in ("version", "max_new_tokens"):
        if getattr(task, field) < 1:
            yield f"{field} must be at least 1, got {getattr(task, field)}"
    if not _LEAST_ITEMS <= task.items <= _MOST_ITEMS:
        yield f"items must be {_LEAST_ITEMS} to {_MOST_ITEMS} (one has no interval), got {task.items}"
    if task.generator not in NAMES:
        yield f"generator {task.generator!r} is unknown; known: {', '.join(NAMES)}"
    if not task.levels or len(set(task.levels)) < len(task.levels) or not set(task.levels) <= set(_LEVELS):
        yield f"levels must be some of 1 to 5, each once, got {list(task.levels)}"
    yield from _wrong_languages(task)
    yield from _wrong_text(task)


def _wrong_languages(task: Task) -> Iterator[str]:
    if not task.languages or len(set(task.languages)) < len(task.languages):
        yield "languages must be at least one, each once"
    for language in task.languages:
        if not _LANGUAGE.fullmatch(language):
            yield f"languages: {language!r} is no language tag such as en or zh"
        if language not in task.text:
            yield f"text.{language} is missing"
    if extra := set(task.text) - set(task.languages):
        yield f"text.{min(extra)}: not among languages"


def _wrong_text(task: Task) -> Iterator[str]:
    made = generator(task.generator)
    known = {*made.phrases, *made.lists}
    for language, text in task.text.items():
        if missing := known - text.keys():
            yield f"text.{language}.{min(missing)} is missing"
        if unknown := text.keys() - known:
            yield f"text.{language}.{min(unknown)} is not used by {task.generator}"
        for name in made.phrases:
            if not isinstance(text[name], str):
                yield f"text.{language}.{name}: a text needed, not a list"
        for name, least in made.lists.items():
            yield from _wrong_list(f"text.{language}.{name}", text[name], least, task.text[task.languages[0]][name])


def _wrong_list(key: str, words: str | tuple[str, ...], least: int, first: str | tuple[str, ...]) -> Iterator[str]:
    if isinstance(words, str):
        yield f"{key}: a list needed, not a text"
    elif len(words) < least:
        yield f"{key}: at least {least} needed, got {len(words)}"
    elif len(words) != len(first):
        yield f"{key}: as many needed in every language: {len(first)}, got {len(words)}"
    elif len({w.casefold() for w in words}) < len(words) or not all(w.strip() for w in words):
        yield f"{key}: all must be different, none empty"


def list_tasks() -> list[str]:
    """Return the names of the tasks that ship."""
    found = (entry.name for entry in files(_PACKAGE).joinpath("tasks").iterdir())
    return sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml"))


def load_task(name_or_path: str) -> Task:
    """Return a shipped task by name, or one from a ``.toml`` file.

    Raises ``UsageError`` for an unknown name (with the nearest), ``InputError`` for a file that cannot be read or
    says something wrong, naming the key.
    """
    if name_or_path.endswith(".toml"):
        return _parse(_read(Path(name_or_path)), name_or_path)
    known = list_tasks()
    if name_or_path not in known:
        near = difflib.get_close_matches(name_or_path, known, n=3) or known
        raise UsageError(
            f"unknown task {name_or_path!r}", hint=f"known: {', '.join(near)}; or a path ending in .toml or .jsonl"
        )
    return _parse(files(_PACKAGE).joinpath("tasks", f"{name_or_path}.toml").read_bytes(), name_or_path)


def items(
    task: Task, *, language: str, level: int, seed: int | None = None, count: int | None = None
) -> tuple[Item, ...]:
    """Return ``count`` different questions; the same for the same arguments, and with the same ids in all languages.

    ``seed`` and ``count`` are the task's own unless given. Fewer questions are the first of more. Raises
    ``UsageError`` for a language or level that the task has not, or more questions than there are different ones.
    """
    if language not in task.languages:
        raise UsageError(f"task {task.name} is not in {language!r}", hint=f"it is in {', '.join(task.languages)}")
    if level not in task.levels:
        raise UsageError(f"task {task.name} has no level {level}", hint=f"it has {', '.join(map(str, task.levels))}")
    count, seed = task.items if count is None else count, task.seed if seed is None else seed
    if not _LEAST_ITEMS <= count <= _MOST_ITEMS:
        raise UsageError(
            f"task {task.name}: {count} questions", hint=f"ask for {_LEAST_ITEMS} to {_MOST_ITEMS}: one has no interval"
        )
    made, words = generator(task.generator), Words(task.text[language])
    found = []
    for number, plan in enumerate(_plans(task, made, seed, level, count), 1):
        try:
            question = made.render(plan, words)
        except ValueError as error:
            raise InputError(f"task {task.name}: text.{language}.{error}", hint=_HINT) from None
        found.append(
            Item(
                id=f"{task.name}/{seed}/{level}/{number}",
                task=task.name,
                language=language,
                level=level,
                prompt=question.prompt,
                key=question.key,
            )
        )
    return tuple(found)


def items_sha256(questions: Sequence[Item]) -> str:
    """Return the digest of questions with their answers, in their order."""
    return hashlib.sha256(canonical_json(msgspec.to_builtins(questions))).hexdigest()


def task_sha256(task: Task) -> str:
    """Return the digest of the task's file, of the generator's version and of every question with its own seed."""
    sets = [items(task, language=language, level=level) for language in task.languages for level in task.levels]
    whole = {
        "task": msgspec.to_builtins(task),
        "generator_version": generator(task.generator).version,
        "items": [items_sha256(questions) for questions in sets],
    }
    return hashlib.sha256(canonical_json(whole)).hexdigest()


def _plans(task: Task, made: Generator, seed: int, level: int, count: int) -> list[Plan]:
    """Return different plans. They depend on no language, so that all languages ask the same."""
    sizes = {name: len(task.text[task.languages[0]][name]) for name in made.lists}
    seen: set[bytes] = set()
    plans: list[Plan] = []
    for number in range(1, count + 1):
        for attempt in range(_MOST_ATTEMPTS):
            draw = Draw(f"{task.generator}/{made.version}/{seed}/{level}/{number}/{attempt}")
            plan = made.plan(draw, level, sizes)
            shape = canonical_json(plan)
            if shape not in seen:
                seen.add(shape)
                plans.append(plan)
                break
        else:
            raise UsageError(
                f"task {task.name}: level {level} has hardly more than {len(plans)} different questions",
                hint=f"ask for at most {len(plans)}",
            )
    return plans


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_TOML_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint=_HINT) from None
    if len(data) > _MAX_TOML_BYTES:
        raise InputError(f"{path}: larger than {_MAX_TOML_BYTES} bytes", hint="a task is a short TOML file")
    return data


def _parse(data: bytes, source: str) -> Task:
    try:
        return msgspec.convert(tomllib.loads(data.decode("utf-8")), Task)
    except UnicodeDecodeError:
        raise InputError(f"{source}: not UTF-8 text", hint=_HINT) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{source}: not TOML: {error}", hint=_HINT) from None
    except msgspec.ValidationError as error:
        raise InputError(f"{source}: {error}", hint=_HINT) from None
