"""The index of a published folder: one entry a file, kept between calls so that only new files are read again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from perjoule import __version__
from perjoule.claims.verdict import Verdict
from perjoule.errors import InputError
from perjoule.publish.found import MACHINE, result_paths
from perjoule.records import Record
from perjoule.store.flat import Cell

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from perjoule.publish.gate import Judged

#  1  first release
INDEX_VERSION = 1


class Entry(Record, frozen=True, kw_only=True):
    """One published file. ``stamp`` is its size and time of change; ``against`` is why no page shows it."""

    path: str  # within the folder, with slashes
    stamp: str
    fingerprint: str = ""
    row: dict[str, Cell] = msgspec.field(default_factory=dict)
    against: tuple[str, ...] = ()


class VerdictEntry(Record, frozen=True, kw_only=True):
    """One published verdict, whole, since its page needs no more; ``against`` is why no page shows it."""

    path: str  # within the folder, with slashes
    stamp: str
    id: str = ""
    verdict: Verdict | None = None
    against: tuple[str, ...] = ()


class Index(Record, frozen=True, kw_only=True):
    """What ``site/index.json`` holds. ``judge`` is the version of perjoule that judged the files."""

    schema: Literal["perjoule.index"] = "perjoule.index"
    schema_version: int = INDEX_VERSION
    judge: str = ""
    entries: tuple[Entry, ...] = ()
    verdicts: tuple[VerdictEntry, ...] = ()


def read_index(path: Path) -> dict[str, Entry]:
    """Return the entries by path; none where there is no index, or it is another version's.

    Raises ``InputError`` for a file that is something else.
    """
    return {entry.path: entry for entry in _read(path).entries}


def read_verdicts(path: Path) -> dict[str, VerdictEntry]:
    """Return the entries of verdicts by path, as ``read_index`` does those of results."""
    return {entry.path: entry for entry in _read(path).verdicts}


def _read(path: Path) -> Index:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Index()
    try:
        index = msgspec.json.decode(data, type=Index)
    except msgspec.MsgspecError:
        raise InputError(
            f"{path} is not an index that perjoule wrote", hint="choose another --to, or move that folder away"
        ) from None
    return Index() if index.schema_version != INDEX_VERSION or index.judge != __version__ else index


def encode_index(entries: Sequence[Entry], verdicts: Sequence[VerdictEntry] = ()) -> bytes:
    """Return the index as JSON: entries in the order of their paths."""
    kept = tuple(sorted(entries, key=lambda e: e.path))
    judged = tuple(sorted(verdicts, key=lambda e: e.path))
    return msgspec.json.encode(Index(judge=__version__, entries=kept, verdicts=judged), order="sorted") + b"\n"


def entry_of(folder: Path, path: Path, judged: Judged) -> Entry:
    """Return the entry of a file in the folder that was judged."""
    why = (judged.unreadable,) if judged.unreadable else judged.against
    if judged.scrubbed:
        why = (*why, f"holds what should have been scrubbed: {', '.join(judged.scrubbed)}")
    if judged.machine_id and path.parent.name != judged.machine_id:
        why = (*why, "stands in the folder of another machine")
    return Entry(
        path=path.relative_to(folder).as_posix(),
        stamp=stamp(path),
        fingerprint=judged.fingerprint,
        row={} if why else judged.row,
        against=why,
    )


def stamp(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size}/{found.st_mtime_ns}"


def published_paths(folder: Path) -> list[Path]:
    """Return the results that stand in the folders of machines, sorted."""
    homes = sorted(p.parent for p in folder.glob(f"*/{MACHINE}") if not p.parent.is_symlink())
    return [p for home in homes for p in result_paths([home])[0] if p.parent == home and p.is_file()]
