"""No field of a result or verdict can hold a text that the search for private names does not reach."""

from __future__ import annotations

from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from msgspec import UnsetType

from perjoule.claims.verdict import Verdict
from perjoule.publish.scrub import _may_hold_text, texts_of
from perjoule.records import Record, RunResult

TEXTLESS = {int, float, bool, NoneType, UnsetType}
# JSON reads ``Any`` as these; the search knows each of them by its exact type
REACHED = {str, Any}
CONTAINERS = {tuple, list, dict}


def inner(annotation: Any) -> list[Any]:
    """Return the annotations inside one; none for a plain type."""
    return [a for a in get_args(annotation) if a is not Ellipsis] if get_origin(annotation) is not Literal else []


def unknown(annotation: Any) -> list[Any]:
    """Return what an annotation lets in that is neither a record, nor textless, nor reached."""
    origin = get_origin(annotation)
    if origin is Literal:
        return [value for value in get_args(annotation) if type(value) not in (str, int, bool, NoneType)]
    if origin in CONTAINERS | {Union, UnionType}:
        return [wrong for part in inner(annotation) for wrong in unknown(part)]
    known = annotation in TEXTLESS | REACHED | CONTAINERS
    return [] if known or (isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)) else [annotation]


def holds_text(annotation: Any) -> bool:
    """Say whether a value of this annotation can hold a text, itself or inside."""
    if get_origin(annotation) is Literal:
        return any(isinstance(value, str) for value in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return True  # its own fields are looked at by themselves
    return annotation in REACHED | CONTAINERS or any(map(holds_text, inner(annotation)))


def records_in(annotation: Any, found: set[type[msgspec.Struct]]) -> set[type[msgspec.Struct]]:
    """Add every type of record that can be reached."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        if annotation not in found:
            found.add(annotation)
            for inside in get_type_hints(annotation).values():
                records_in(inside, found)
        return found
    for part in inner(annotation):
        records_in(part, found)
    return found


RECORDS = sorted(records_in(RunResult, set()) | records_in(Verdict, set()), key=lambda r: r.__qualname__)


def test_all_records_are_looked_at() -> None:
    names = {record.__name__ for record in RECORDS}
    assert {"RunResult", "HostFacts", "GpuFacts", "Window", "Reading", "Check", "Quality", "SideFacts"} <= names


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.__name__)
def test_every_field_is_of_a_kind_that_the_search_reaches(record: type[msgspec.Struct]) -> None:
    searched = {name for name, _ in _may_hold_text(record, "")}
    hints = get_type_hints(record)
    assert {name: wrong for name, hint in hints.items() if (wrong := unknown(hint))} == {}
    assert {name for name, hint in hints.items() if holds_text(hint)} <= searched


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    "kind", [Colour, set[str], frozenset[str], bytes, tuple[set[str], ...], dict[str, bytes] | None]
)
def test_a_kind_that_it_does_not_reach_is_found(kind: Any) -> None:
    assert unknown(kind) != []


class Nested(Record, frozen=True, kw_only=True):
    """One field of each kind that is let in."""

    text: str
    perhaps: str | None
    one_of: Literal["chosen"]
    many: tuple[str, ...]
    listed: list[str]
    named: dict[str, tuple[str, ...]]
    anything: Any
    below: Nested | None = None
    number: float = 0.0
    numbers: tuple[int | None, ...] = ()


def test_each_kind_that_is_let_in_is_reached() -> None:
    def made(mark: str, below: Nested | None) -> Nested:
        return Nested(
            text=f"a{mark}", perhaps=f"b{mark}", one_of="chosen", many=(f"c{mark}",), listed=[f"d{mark}"],
            named={f"e{mark}": (f"f{mark}",)}, anything=[{f"g{mark}": [None, 1, f"h{mark}"]}], below=below,
        )  # fmt: skip

    assert [wrong for hint in get_type_hints(Nested).values() for wrong in unknown(hint)] == []
    texts = {text for _, text in texts_of(made("1", made("2", None)))}
    assert texts == {f"{letter}{mark}" for letter in "abcdefgh" for mark in "12"} | {"chosen"}
