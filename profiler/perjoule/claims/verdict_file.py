"""A verdict as a file: how it is told from a result, read, written and named after its content."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING, Any

import msgspec

from perjoule.claims.verdict import CLAIM_VERSION, Verdict
from perjoule.errors import InputError
from perjoule.store.canonical import canonical_json
from perjoule.store.strict_json import strict_json

if TYPE_CHECKING:
    from pathlib import Path

ENDING = ".verdict.json"
_SCHEMA = "perjoule.verdict"
_MOST_BYTES = 256 * 1024
_MOST_LOOKED_INTO = 32 * 1024  # a verdict has 5 kB, nearly all results more than 100: those are not read twice
_SHORT_ID = 8
_HINT = "give a file that `perjoule claim NAME RESULT... --json FILE` wrote"


def is_verdict(path: Path) -> bool:
    """Say whether a file is a verdict, by its name or, under any other name, by the schema that it states."""
    if path.name.endswith(ENDING):
        return True
    try:
        if not 0 < path.stat().st_size <= _MOST_LOOKED_INTO:
            return False
        data = _read(path)
    except (OSError, ValueError, InputError):
        return False  # whoever reads it says why it cannot be
    if _SCHEMA.encode() not in data:
        return False
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("schema") == _SCHEMA


def load_verdict(path: Path) -> Verdict:
    """Return the verdict in a file that anybody may have written: its form is checked, not what it says.

    Raises ``InputError`` for what is too large, not strict JSON, of a newer version or no verdict.
    """
    content = strict_json(_read(path), str(path), _HINT)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > CLAIM_VERSION:
        raise InputError(
            f"{path}: verdict version {version} is newer than this perjoule reads ({CLAIM_VERSION})",
            hint="update perjoule",
        )
    try:
        verdict = msgspec.convert(content, Verdict)
        verdict_id(verdict)  # raises for numbers and texts that have no canonical form
    except ValueError as error:  # msgspec's errors are kinds of it
        raise InputError(f"{path}: not a verdict of perjoule: {error}", hint=_HINT) from None
    return verdict


def encode_verdict(verdict: Verdict) -> bytes:
    """Return the file's bytes: strict JSON, keys sorted, a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(verdict, order="sorted"), indent=2) + b"\n"


def content_of(verdict: Verdict) -> dict[str, Any]:
    """Return what a verdict says, without the version of perjoule that said it."""
    said: dict[str, Any] = msgspec.to_builtins(verdict)
    del said["tool"]
    return said


def verdict_id(verdict: Verdict) -> str:
    """Return ``sha256:...`` over the RFC 8785 form of what it says: the same verdict of two versions has the same."""
    return f"sha256:{hashlib.sha256(canonical_json(content_of(verdict))).hexdigest()}"


def verdict_name(verdict: Verdict) -> str:
    """Return ``<claim>-<short id>.verdict.json``; a claim's name is safe on every file system."""
    return f"{verdict.claim}-{short_id(verdict_id(verdict))}{ENDING}"


def short_id(of: str) -> str:
    return of.removeprefix("sha256:")[:_SHORT_ID]


def _read(path: Path) -> bytes:
    try:
        # a pipe that nobody writes to must not hold up the files after it
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"{path}: is no file", hint=_HINT)
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint=_HINT) from None
    except ValueError as error:  # a NUL in the name
        raise InputError(f"{path}: {error}", hint=_HINT) from None
    if len(data) > _MOST_BYTES:
        raise InputError(f"{path}: larger than {_MOST_BYTES // 1024} KiB", hint=_HINT)
    return data
