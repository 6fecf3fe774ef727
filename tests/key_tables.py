"""The part of docs/results-format.md that is generated from the records: every key with type, unit and meaning."""

from __future__ import annotations

import inspect
import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal

import msgspec

from perjoule.records import Record, RunResult

BEGIN, END = "<!-- generated from the records: begin -->", "<!-- generated from the records: end -->"
UNITS = {
    "_per_s": "1/s", "_bytes": "bytes", "_j": "J", "_w": "W", "_hz": "Hz", "_s": "s", "_tokens": "tokens",
    "_share": "1", "_count": "counts", "_pages": "pages", "_sha256": "SHA-256", "_utc": "RFC 3339",
    "_bytes_per_s": "bytes/s", "_j_per_byte": "J/byte", "_streamed": "bytes",
}  # fmt: skip
NAMES = {
    str: "text", int: "integer", float: "number", bool: "boolean", Any: "any", type(None): "null",
    msgspec.UnsetType: "absent",
}  # fmt: skip
MEANINGS = tomllib.loads((Path(__file__).parent / "key_meanings.toml").read_text(encoding="utf-8"))


def with_key_tables(page: str) -> str:
    """Return the page with its generated part written anew, at its end if it has none."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2] or "\n"
    return f"{before.rstrip()}\n\n{BEGIN}\n{tables()}{END}{after}"


def tables() -> str:
    lines = ["", "## Every key", "", "Made from `perjoule.records` by `tests/regenerate.py`. `<key>_missing` stands "
             "beside a key exactly when it is null, and says why; it is not listed.", ""]  # fmt: skip
    for record, path in reached(RunResult):
        lines += [f"### {path or 'The file'}", "", *about(record), "| key | type | unit | meaning |"]
        lines += ["| --- | --- | --- | --- |", *(row(f, comments(record)) for f in shown(record)), ""]
    return "\n".join(lines)


def reached(top: type[Record]) -> list[tuple[type[Record], str]]:
    """Return every record that a result holds, with the key under which it is first met."""
    found: dict[type[Record], str] = {top: ""}
    queue = [top]
    for record in queue:
        for field in msgspec.structs.fields(record):
            for inside, suffix in records_in(field.type):
                if inside not in found:
                    at = f"{found[record]}.{field.encode_name}" if found[record] else field.encode_name
                    found[inside] = f"`{at.strip('`')}{suffix}`".replace("`", "")
                    queue.append(inside)
    return [(record, f"`{path}`" if path else "") for record, path in found.items()]


def records_in(kind: Any, suffix: str = "") -> list[tuple[type[Record], str]]:
    if isinstance(kind, type) and issubclass(kind, Record):
        return [(kind, suffix)]
    ends = {tuple: "[]", list: "[]", dict: ".<name>"}
    end = ends.get(typing.get_origin(kind), "")
    return [found for a in typing.get_args(kind) for found in records_in(a, suffix + end)]


def shown(record: type[Record]) -> list[msgspec.structs.FieldInfo]:
    return [f for f in msgspec.structs.fields(record) if not f.encode_name.endswith("_missing")]


def about(record: type[Record]) -> list[str]:
    text = inspect.getdoc(record) or ""
    own = "" if record.__doc__ is None or text == inspect.getdoc(Record) else text
    kept = [p.replace("\n", " ").replace("``", "`").split(" Raises ")[0] for p in own.split("\n\n") if p]
    return [line for p in kept if "docs/results-format.md" not in p for line in (p, "")]


def comments(record: type[Record]) -> dict[str, str]:
    """Return what each key means: what the source says behind the field, or `key_meanings.toml`."""
    return MEANINGS.get(record.__name__, {}) | dict(
        re.findall(r"^    (\w+): .*?  # (.+)$", inspect.getsource(record), re.MULTILINE)
    )


def row(field: msgspec.structs.FieldInfo, said: dict[str, str]) -> str:
    name = field.encode_name
    return f"| `{name}` | {type_name(field.type)} | {unit(name)} | {said.get(field.name, '').replace('|', '/')} |"


def unit(name: str) -> str:
    return next((u for end, u in sorted(UNITS.items(), key=lambda i: -len(i[0])) if name.endswith(end)), "")


def type_name(kind: Any) -> str:
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{word}`" for word in inside)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_name(a) for a in inside))
    if origin in (tuple, list, dict):
        return f"{'object' if origin is dict else 'list'} of {type_name(inside[origin is dict])}"
    return NAMES[kind] if kind in NAMES else str(kind.__name__)
