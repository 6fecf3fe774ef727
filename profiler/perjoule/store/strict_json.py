"""Strict JSON from anywhere: refused is what two readers could take for different things, and what is bottomless."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from perjoule.errors import InputError

MAX_DEPTH = 32
_SHOWN = 64  # characters of a key


def strict_json(data: bytes | str, source: str, hint: str) -> Any:
    """Return what JSON says: no NaN, no key twice, no number that is infinite, at most ``MAX_DEPTH`` levels.

    ``source`` names it in errors. Raises ``InputError`` with ``hint``.
    """
    try:
        content = json.loads(data, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise InputError(f"{source}: nested deeper than {MAX_DEPTH} levels", hint=hint) from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are kinds of it
        raise InputError(f"{source}: not strict JSON: {error}", hint=hint) from None
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return content
    raise InputError(f"{source}: nested deeper than {MAX_DEPTH} levels", hint=hint)


def _children(node: object) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:_SHOWN]!r} is given twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not allowed")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:32]} is too large")
    return value
