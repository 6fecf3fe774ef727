"""A task of the user's own: a JSONL file, a question and its answer a line.

    {"prompt": "What is 2 + 2? Reply with the number only.", "answer": 4, "match": "number"}

``match`` is exact, number, json (``answer`` is an object of texts and numbers) or choice (``choices`` are listed, or
else are the answers of all lines without a list). Optional: ``id``, ``system``, ``language``, ``level``.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from perjoule.errors import InputError
from perjoule.quality.answer_text import first_line
from perjoule.quality.item import Choice, Exact, Fields, Item, Number
from perjoule.quality.number_text import as_number
from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.quality.item import Key

_MAX_BYTES = 64 * 2**20
_LEAST_ITEMS = 2  # one answer has no interval
_HINT = 'a line is {"prompt": ..., "answer": ..., "match": "exact", "number", "json" or "choice"}'


class Line(Record, frozen=True, kw_only=True):
    """One line of the file, as it stands."""

    prompt: str
    answer: msgspec.Raw
    match: Literal["exact", "number", "json", "choice"]
    choices: tuple[str, ...] = ()
    id: str | None = None
    system: str | None = None
    language: str = "und"  # BCP 47: undetermined
    level: int = 1


def load_items(path: str) -> tuple[Item, ...]:
    """Return the questions of a JSONL file, in its order. Empty lines are passed over.

    Raises ``InputError`` for a file that cannot be read, a bad line (with its number), two lines with the same id or
    the same prompt, and fewer than two questions.
    """
    lines = _lines(path)
    if len(lines) < _LEAST_ITEMS:
        count = "no question" if not lines else "one question"
        raise InputError(f"{path}: {count}", hint=f"at least {_LEAST_ITEMS} are needed: one has no interval")
    open_choices = [answer for _, line, answer in lines if line.match == "choice" and not line.choices]
    answers = tuple(dict.fromkeys(str(answer).strip() for answer in open_choices))
    name = Path(path).stem
    found: list[Item] = []
    seen: dict[tuple[str, ...], int] = {}
    for number, line, answer in lines:
        item_id = line.id if line.id is not None else f"{name}/{number}"
        for what in (("id", item_id, line.language), ("prompt", line.prompt, line.system or "")):
            if what in seen:
                raise InputError(f"{path}:{number}: the same {what[0]} as line {seen[what]}", hint="remove one of them")
            seen[what] = number
        try:
            key = _key(line, answer, answers)
            found.append(
                Item(id=item_id, task=name, language=line.language, level=line.level, prompt=line.prompt,
                     system=line.system, key=key)
            )  # fmt: skip
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}", hint=_HINT) from None
    return tuple(found)


def _lines(path: str) -> list[tuple[int, Line, Any]]:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint=_HINT) from None
    if len(data) > _MAX_BYTES:
        raise InputError(f"{path}: larger than {_MAX_BYTES} bytes", hint="split the task")
    decoder = msgspec.json.Decoder(Line)
    found = []
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            line = decoder.decode(raw)
            # decimals as they are written: 0.1 is no binary fraction
            answer = json.loads(bytes(line.answer), parse_float=Decimal, parse_int=Decimal)
        except (ValueError, ArithmeticError, RecursionError) as error:
            raise InputError(f"{path}:{number}: {error or type(error).__name__}", hint=_HINT) from None
        found.append((number, line, answer))
    return found


def _key(line: Line, answer: Any, answers: Sequence[str]) -> Key:
    """Return the answer key. Raises ``ValueError`` for an answer that does not go with ``match``."""
    if not line.prompt.strip():
        raise ValueError("prompt is empty")
    if line.choices and line.match != "choice":
        raise ValueError(f"choices belong to match choice, not to {line.match}")
    if line.match == "json":
        return _fields(answer)
    if not isinstance(answer, str | Decimal):
        raise ValueError(f"answer must be a text or a number for match {line.match}")  # noqa: TRY004 - a file is wrong
    if line.match == "number":
        value = answer if isinstance(answer, Decimal) else as_number(answer)
        if value is None:
            raise ValueError(f"answer {answer!r} is not a number")
        return Number(value=str(value))
    text = str(answer).strip()
    if line.match == "choice":
        return Choice(text=text, choices=line.choices or tuple(answers))
    if not first_line(text) or len(text.splitlines()) > 1:
        raise ValueError("answer must be one line that is not empty for match exact")
    return Exact(text=text)


def _fields(answer: Any) -> Fields:
    if not isinstance(answer, dict):
        raise ValueError("answer must be an object for match json")  # noqa: TRY004 - a file is wrong
    if wrong := [name for name, value in answer.items() if not isinstance(value, str | Decimal)]:
        raise ValueError(f"answer.{wrong[0]} must be a text or a number")
    return Fields(
        texts={name: value for name, value in answer.items() if isinstance(value, str)},
        numbers={name: str(value) for name, value in answer.items() if isinstance(value, Decimal)},
    )
