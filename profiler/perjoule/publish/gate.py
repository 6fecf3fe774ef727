"""Whether one result may be published: everything that speaks against it, at once."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from perjoule.errors import PerjouleError
from perjoule.plausibility import implausible
from perjoule.publish.machine import machine_file
from perjoule.publish.scrub import scan, scrub, texts_of
from perjoule.records import Record, RunResult
from perjoule.store.flat import Cell, flat
from perjoule.store.read import load_with_bytes
from perjoule.store.write import encode, file_name
from perjoule.upgrade import made_again
from perjoule.verify import statistics_note, verify

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule.publish.private import Identity

_MOST_LINES = 10  # of what `perjoule verify` says: one changed sample moves a hundred numbers


class Candidate(Record, frozen=True, kw_only=True):
    """A file that somebody wants published.

    ``result`` is None if it cannot even be read (``unreadable``); ``against`` are the reasons why it must not be
    published, ``scrubbed`` the keys whose text was changed, ``note`` what else to say. ``row`` is what tables show.
    ``data`` are the bytes of ``result`` where the file had them already.
    """

    path: str
    result: RunResult | None
    unreadable: str | None = None
    against: tuple[str, ...] = ()
    scrubbed: tuple[str, ...] = ()
    note: str | None = None
    row: dict[str, Cell] = msgspec.field(default_factory=dict)
    data: bytes | None = None


class Judged(Record, frozen=True, kw_only=True):
    """What is left of a candidate once it was judged: light enough to hold many, and to hand from process to process.

    ``data`` is the file as it would be published, under ``name`` in the folder of ``machine_id``, with ``machine`` as
    its ``machine.json``; all are empty where it is not to be written.
    """

    path: str
    unreadable: str | None
    against: tuple[str, ...]
    scrubbed: tuple[str, ...]
    note: str | None
    row: dict[str, Cell]
    id: str = ""
    fingerprint: str = ""
    machine_id: str = ""
    name: str = ""
    machine: bytes = b""
    data: bytes = b""


def judge(path: str | Path, who: Identity, *, to_write: bool) -> Judged:
    """Examine one file and return what became of it, with its bytes if it may be written and is ``to_write``."""
    found = examine(path, who)
    judged = Judged(
        path=found.path, unreadable=found.unreadable, against=found.against, scrubbed=found.scrubbed, note=found.note,
        row=found.row,
    )  # fmt: skip
    result = found.result
    if result is None:
        return judged
    judged = msgspec.structs.replace(
        judged, id=result.id, fingerprint=fingerprint(result), machine_id=result.host.machine_id
    )
    if found.against or not to_write:
        return judged
    return msgspec.structs.replace(
        judged, name=file_name(result), machine=machine_file(result.host), data=found.data or encode(result)
    )


def examine(path: str | Path, who: Identity) -> Candidate:
    """Read, verify and scrub one file; nothing is raised for what is wrong with it."""
    result = None
    try:
        result, data = load_with_bytes(path)
        found = _judged(str(path), result, who)
        return found if found.result is not result else msgspec.structs.replace(found, data=data)
    except PerjouleError as error:
        against = () if result is None else (f"cannot be judged: {error.message}",)
        return Candidate(path=str(path), result=result, unreadable=None if result else error.message, against=against)
    except Exception as error:  # noqa: BLE001 - anybody may have written the file, and it must keep back no other
        said = f"cannot be judged: {type(error).__name__}: {error}"
        return Candidate(path=str(path), result=result, unreadable=None if result else said, against=(said,))


def _judged(path: str, result: RunResult, who: Identity) -> Candidate:
    problems = verify(result)
    against = [f"does not hold: {problem}" for problem in problems[:_MOST_LINES]]
    if len(problems) > _MOST_LINES:
        against.append(f"does not hold: {len(problems) - _MOST_LINES} more lines, see `perjoule verify {path}`")
    against += [f"cannot be: {problem}" for problem in _implausible(result)]
    # what older statistics say is neither believed nor shown: checks and row are those of this perjoule
    older = statistics_note(result) is not None
    today = made_again(result) if older and not problems else result
    against += [f"{c.code}: {c.message} (hint: {c.hint})" for c in today.checks if c.severity == "invalid"]
    texts = texts_of(result)
    if against:  # what does not hold is not rewritten; what it gives away is told with the rest
        return Candidate(path=path, result=result, against=(*against, *scan(result, who, texts)))
    clean, scrubbed = scrub(result, who, texts)
    if scrubbed:
        texts, today, older = texts_of(clean), clean, False
        against += [f"after scrubbing it does not hold: {problem}" for problem in verify(clean)]
    against += scan(clean, who, texts)
    return Candidate(
        path=path, result=clean, against=tuple(against), scrubbed=tuple(scrubbed), row=row_of(clean, today),
        note=_note(clean) if older else None,
    )  # fmt: skip


def _note(result: RunResult) -> str:
    return f"its numbers are of statistics {result.tool.statistics}; its row on the pages was made by the newest"


def _implausible(result: RunResult) -> list[str]:
    try:
        return implausible(result)
    except (PerjouleError, ValueError, ArithmeticError, LookupError):
        return []  # a wrong scenario: ``verify`` says so


def row_of(result: RunResult, today: RunResult | None = None) -> dict[str, Cell]:
    """Return the row of a result without what is null, which a reader takes for missing anyway.

    ``today`` is the same derived again, where its own numbers were made by older statistics.
    """
    row = {key: value for key, value in flat(today or result).items() if value is not None}
    return {**row, "id": result.id, "statistics": result.tool.statistics}


def fingerprint(result: RunResult) -> str:
    """Return a hash of what was observed alone: the same measurement under another id has the same one."""
    observed = msgspec.json.encode([result.processes, result.samples, result.windows], order="sorted")
    return hashlib.sha256(observed).hexdigest()
