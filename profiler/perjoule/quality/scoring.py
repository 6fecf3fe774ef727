"""Whether an answer is right. Strict, and the same for every model; the rules are in docs/quality.md."""

# ruff: noqa: RUF001 - signs of full width are what is meant

from __future__ import annotations

import json
import re
import unicodedata
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, NoReturn

from perjoule.quality.answer_text import answer_part, comparable, first_line, plain_digits
from perjoule.quality.item import Choice, Exact, Fields, Number, Order
from perjoule.quality.number_text import as_number, first_number
from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perjoule.quality.item import Item, Key

UNFINISHED = "the limit of tokens was reached before the answer was complete"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s|(?<=[。！？])")
_CUT_OFF = frozenset({"", ".", ",", "*"})
_NO_LETTER = r"(?![^\W_])"
_BEGUN = re.compile(r"\{\s*[\"']")  # an object, and no braces of prose or of LaTeX


class Score(Record, frozen=True, kw_only=True):
    """``parsed`` is the answer that was found, None if there is none; ``reason`` is empty for a right answer."""

    correct: bool
    parsed: str | None
    reason: str


def score(item: Item, output: str, *, finished: bool = True) -> Score:
    """Judge a model's output; ``finished`` is False if the limit of tokens ended it.

    The first well-formed answer counts, never a later one. An answer that the limit may have cut short is wrong.
    """
    said = answer_part(output)
    if said is None:
        return _none("thinking did not end")
    if not said.strip():
        return _none("no answer" if finished else UNFINISHED)
    return _judge(item.key, said, finished=finished)


def _judge(key: Key, said: str, *, finished: bool) -> Score:
    match key:
        case Number():
            return _number(key, said, finished=finished)
        case Choice():
            return _choice(key, said, finished=finished)
        case Order():
            return _order(key, said, finished=finished)
        case Fields():
            return _fields(key, said, finished=finished)
        case Exact():
            return _exact(key, said, finished=finished)


def _number(key: Number, said: str, *, finished: bool) -> Score:
    found = first_number(said)
    if found.value is None:
        return _none(found.reason if finished else f"{found.reason}, and {UNFINISHED}")
    if not finished and said[found.end :] in _CUT_OFF:
        return _none(UNFINISHED)
    return _compared(found.value == Decimal(key.value), str(found.value), key.value)


def _exact(key: Exact, said: str, *, finished: bool) -> Score:
    lines = said.strip().splitlines()
    first = lines[0]
    if not _SENTENCE_END.search(key.text):  # else the answer itself goes on after a full stop
        first = _SENTENCE_END.split(first, maxsplit=1)[0]
    if not finished and len(first) >= len(said.strip()) and not said.endswith("\n"):
        return _none(UNFINISHED)
    found = first_line(first)
    return (
        _compared(comparable(found) == comparable(first_line(key.text)), found, key.text)
        if found
        else _none("no answer")
    )


def _choice(key: Choice, said: str, *, finished: bool) -> Score:
    named = _names(said, key.choices)
    if not named:
        return _none("none of the choices")
    at, end, choice = named[0]
    del at
    if not finished and not said[end:]:
        return _none(UNFINISHED)
    return _compared(choice == key.text, choice, key.text)


def _order(key: Order, said: str, *, finished: bool) -> Score:
    named = _names(said, (*key.names, key.start))
    if named and named[0][2] == key.start:
        named = named[1:]
    first = named[: len(key.names)]
    if len(first) < len(key.names):
        return _none(f"{len(first)} of {len(key.names)} names" if finished else UNFINISHED)
    if not finished and not said[first[-1][1] :]:
        return _none(UNFINISHED)
    found = tuple(name for _, _, name in first)
    return _compared(found == key.names, " > ".join(found), " > ".join(key.names))


def _names(said: str, names: Iterable[str]) -> list[tuple[int, int, str]]:
    """Return (start, end, name) of every name that stands in the text, in its order; the longest of those that overlap.

    Latin names must stand alone; others may touch what follows, as words do in Chinese and Korean. A single letter
    must be a capital with a mark or nothing after it: "A." and "(B)", but not "A driver".
    """
    by_form = {_form(name): name for name in names}
    forms = sorted(by_form, key=len, reverse=True)
    letters = [by_form[f] for f in forms if len(f) == 1 and f.isascii() and f.isalpha()]
    words = [f for f in forms if by_form[f] not in letters]
    found: list[tuple[int, int, str]] = []
    if words:
        pattern = "|".join(_alone(form) for form in words)
        found += [(m.start(), m.end(), by_form[_form(m[0])]) for m in re.finditer(pattern, _lower(said))]
    if letters:
        pattern = rf"(?<![^\W_])(?:{'|'.join(letters)})(?=\s*(?:$|[.):,;*\]\"'}}\n。，、：）]))"
        found += [(m.start(), m.end(), m[0]) for m in re.finditer(pattern, said)]
    return sorted(found)


def _alone(form: str) -> str:
    body = r"\s+".join(re.escape(part) for part in form.split(" "))
    before = r"(?<![^\W_])" if form[0].isascii() and form[0].isalnum() else ""
    after = _NO_LETTER if form[-1].isascii() and form[-1].isalnum() else ""
    return f"{before}{body}{after}"


def _form(name: str) -> str:
    return " ".join(_lower(unicodedata.normalize("NFC", plain_digits(name))).split())


def _lower(text: str) -> str:
    """Return the text in lower case, letter by letter, so that places in it stay what they are."""
    return "".join(low if len(low := c.lower()) == 1 else c for c in text)


def _fields(key: Fields, said: str, *, finished: bool) -> Score:
    found = _first_object(said)
    if found is None:
        return _none("no JSON object" if finished else UNFINISHED)
    shown = json.dumps(found, ensure_ascii=False, default=str)
    expected = {**key.texts, **key.numbers}
    if missing := sorted(expected.keys() - found.keys()):
        return Score(correct=False, parsed=shown, reason=f"key {missing[0]!r} is missing")
    if extra := sorted(found.keys() - expected.keys()):
        return Score(correct=False, parsed=shown, reason=f"key {extra[0]!r} was not asked for")
    for name, text in key.texts.items():
        value = found[name]
        if not isinstance(value, str) or comparable(value) != comparable(text):
            return Score(correct=False, parsed=shown, reason=f"{name} is not {text!r}")
    for name, number in key.numbers.items():
        if _as_decimal(found[name]) != Decimal(number):
            return Score(correct=False, parsed=shown, reason=f"{name} is not {number}")
    return Score(correct=True, parsed=shown, reason="")


def _as_decimal(value: Any) -> Decimal | None:
    if isinstance(value, Decimal):
        return value
    return as_number(value) if isinstance(value, str) else None


def _first_object(said: str) -> dict[str, Any] | None:
    """Return the first JSON object. If it is broken there is none: neither one inside it nor a later one counts."""
    decoder = json.JSONDecoder(
        parse_float=_decimal, parse_int=_decimal, parse_constant=_refuse_constant, object_pairs_hook=_refuse_twice
    )
    at = said.find("{")
    while at >= 0:
        try:
            value, _ = decoder.raw_decode(said, at)
        except json.JSONDecodeError:
            if _BEGUN.match(said, at):
                return None
            at = said.find("{", at + 1)
        except (ValueError, RecursionError):  # a key twice, NaN, a number beyond decimals, a thousand brackets
            return None
        else:
            return value if isinstance(value, dict) else None
    return None


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"no number: {text[:40]}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found


def _compared(correct: bool, found: str, expected: str) -> Score:
    return Score(correct=correct, parsed=found, reason="" if correct else f"not {expected!r}")


def _none(reason: str) -> Score:
    return Score(correct=False, parsed=None, reason=reason)
