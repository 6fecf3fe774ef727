"""Reading a result file that anybody may have written."""

from __future__ import annotations

import os
import stat
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from perjoule.errors import InputError
from perjoule.records import SCHEMA_VERSION, RunResult
from perjoule.store import migrate
from perjoule.store.strict_json import MAX_DEPTH, strict_json
from perjoule.store.write import encode

MAX_BYTES = 64 * 1024 * 1024
_TOO_DEEP = b"\n" + b" " * MAX_DEPTH  # lines are indented by one space a level
_HINT = "give a result file that `perjoule run` wrote"


class ImportedError(InputError):
    """The file holds what another tool measured (docs/interchange.md): it is no result, and never read as one."""


def load(path: str | Path) -> RunResult:
    """Return the result in a file. It is checked for form, not for truth: that is ``perjoule verify``.

    Raises ``InputError`` for what is too large, too deep, not strict JSON, of a newer version, or not a
    result; ``InputError`` too where the file cannot be read.
    """
    return load_with_bytes(path)[0]


def load_with_bytes(path: str | Path) -> tuple[RunResult, bytes | None]:
    """Return the result in a file as ``load`` does, and the file's bytes if they are what ``encode`` gives of it."""
    data = _read(Path(path))
    result = _as_written(data)
    return (_slowly(data, str(path)), None) if result is None else (result, data)


def _read(path: Path) -> bytes:
    try:
        # a pipe that nobody writes to must not hold up the files after it
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"{path}: is no file", hint=_HINT)
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint=_HINT) from None
    except ValueError as error:  # a NUL in the name
        raise InputError(f"{path}: {error}", hint=_HINT) from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES // 2**20} MiB", hint=_HINT)
    return data


def decode(data: bytes, source: str) -> RunResult:
    """Return the result in ``data``; ``source`` names it in errors. Raises ``InputError``."""
    result = _as_written(data)
    return _slowly(data, source) if result is None else result


def _slowly(data: bytes, source: str) -> RunResult:
    return _converted(strict_json(data, source, _HINT), source)


def _as_written(data: bytes) -> RunResult | None:
    """Return the result of a file that is byte for byte what perjoule writes; None for any other.

    Such a file holds no key twice, no NaN and no number that is lost in reading; the slow way, which says what is
    wrong, is for the others.
    """
    if _TOO_DEEP in data:
        return None
    try:
        result: RunResult = _decoder().decode(data)
    except (ValueError, RecursionError):  # msgspec's errors are kinds of ValueError
        return None
    return result if result.schema_version == SCHEMA_VERSION and encode(result) == data else None


@cache
def _decoder() -> msgspec.json.Decoder[RunResult]:
    return msgspec.json.Decoder(RunResult)


def raw(path: str | Path) -> dict[str, Any]:
    """Return a result file as it is written, of whatever version this perjoule reads. Raises ``InputError``."""
    content: dict[str, Any] = strict_json(_read(Path(path)), str(path), _HINT)
    _refuse_version(content, str(path))
    return content


def _converted(content: Any, source: str) -> RunResult:
    _refuse_version(content, source)
    try:
        return msgspec.convert(migrate.newest(content), RunResult)
    except (msgspec.ValidationError, migrate.MigrationError) as error:
        raise InputError(f"{source}: not a perjoule result: {error}", hint=_HINT) from None


def _refuse_version(content: object, source: str) -> None:
    if isinstance(content, dict) and content.get("schema") == "perjoule.imported":
        raise ImportedError(
            f"{source}: a record imported from another tool, which perjoule did not measure",
            hint="`perjoule show` prints it; results alone are compared, verified, published and exported",
        )
    if not isinstance(content, dict) or content.get("schema") != "perjoule.run":
        raise InputError(f"{source}: not a perjoule result: no schema perjoule.run", hint=_HINT)
    version = content.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < migrate.oldest():
        raise InputError(f"{source}: schema_version {version!r} is not a version", hint=_HINT)
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{source}: schema version {version} is newer than this perjoule reads ({SCHEMA_VERSION})",
            hint="update perjoule",
        )
