"""Canonical JSON (RFC 8785), over which hashes are taken."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from perjoule.records import RunResult


def canonical_json(value: Any) -> bytes:
    """Return the RFC 8785 form. Raises ``ValueError`` for NaN, infinities and integers beyond 2^53."""
    import rfc8785  # noqa: PLC0415 - needed only when hashing

    return bytes(rfc8785.dumps(value))


def canonical_id(result: RunResult) -> str:
    """Return ``sha256:...`` over the canonical form of the result without its ``id``.

    It shows that a file is whole, not who wrote it.
    """
    content = msgspec.to_builtins(result)
    del content["id"]
    return f"sha256:{hashlib.sha256(canonical_json(content)).hexdigest()}"
