"""Canonical JSON (RFC 8785), over which hashes are taken."""

from __future__ import annotations

from typing import Any

_INT53 = 2**53


def canonical_json(value: Any) -> bytes:
    """Return the RFC 8785 form. Integers beyond 2^53 are written as strings, as the result format asks."""
    import rfc8785  # noqa: PLC0415 - needed only when hashing

    return bytes(rfc8785.dumps(stringify_large(value)))


def stringify_large(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: stringify_large(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [stringify_large(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _INT53:
        return str(value)
    return value
