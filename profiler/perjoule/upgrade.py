"""A result of an older version as one of the newest: its raw parts kept, its numbers derived again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from perjoule.assemble import derive
from perjoule.errors import InputError
from perjoule.records import SCHEMA_VERSION, RunResult
from perjoule.records.facts import STATISTICS_VERSION
from perjoule.store import load
from perjoule.store.canonical import canonical_json
from perjoule.store.read import raw

if TYPE_CHECKING:
    from pathlib import Path


def upgraded(path: Path) -> tuple[RunResult, str]:
    """Return the result in the newest version, its numbers by the newest statistics, and from what to what that is.

    Raises ``InputError`` for a file that cannot be read, whose content was changed after it was written, or that is of
    the newest versions already; and what ``derive`` raises.
    """
    content = raw(path)
    version, result = int(content["schema_version"]), load(path)
    made_by = result.tool.statistics
    if version == SCHEMA_VERSION and made_by >= STATISTICS_VERSION:
        raise InputError(f"{path}: is of the newest version already ({version})", hint="nothing is to be done")
    without = {key: value for key, value in content.items() if key != "id"}
    if content.get("id") != f"sha256:{hashlib.sha256(canonical_json(without)).hexdigest()}":
        raise InputError(f"{path}: its content was changed after it was written", hint="find the file as it was")
    steps = [f"version {version} to {SCHEMA_VERSION}"] if version != SCHEMA_VERSION else []
    steps += [f"statistics {made_by} to {STATISTICS_VERSION}"] if made_by != STATISTICS_VERSION else []
    return made_again(result), ", ".join(steps)


def made_again(result: RunResult) -> RunResult:
    """Return the result with its numbers, checks and id derived by the newest statistics. Raises as ``derive`` does."""
    tool = msgspec.structs.replace(result.tool, statistics=STATISTICS_VERSION)
    return derive(msgspec.structs.replace(result, id="", tool=tool))
