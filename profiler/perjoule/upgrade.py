"""A result of an older version as one of the newest: its raw parts kept, its numbers derived again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from perjoule.assemble import derive
from perjoule.errors import InputError
from perjoule.records import SCHEMA_VERSION, RunResult
from perjoule.store import load
from perjoule.store.canonical import canonical_json
from perjoule.store.read import raw

if TYPE_CHECKING:
    from pathlib import Path


def upgraded(path: Path) -> tuple[RunResult, int]:
    """Return the result in the newest version, and the version that the file is of.

    Raises ``InputError`` for a file that cannot be read, whose content was changed after it was written, or that is of
    the newest version already; and what ``derive`` raises.
    """
    content = raw(path)
    version = int(content["schema_version"])
    if version == SCHEMA_VERSION:
        raise InputError(f"{path}: is of the newest version already ({version})", hint="nothing is to be done")
    without = {key: value for key, value in content.items() if key != "id"}
    if content.get("id") != f"sha256:{hashlib.sha256(canonical_json(without)).hexdigest()}":
        raise InputError(f"{path}: its content was changed after it was written", hint="find the file as it was")
    return derive(msgspec.structs.replace(load(path), id="")), version
