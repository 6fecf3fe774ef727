"""Publishing many files: each is judged on its own, and what is wrong with one does not keep back another."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING

import msgspec

from perjoule.errors import PerjouleError
from perjoule.publish.folder import place
from perjoule.publish.found import SITE, result_paths
from perjoule.publish.gate import examine, fingerprint
from perjoule.publish.index import Entry, entry_of, published_paths, read_index, row_of, stamp
from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from perjoule.publish.gate import Candidate
    from perjoule.publish.private import Identity

INDEX = "index.json"
_WORTH_PROCESSES = 64  # files; fewer are judged sooner than a process starts
_AT_ONCE = 256  # files whose results are held in memory


class Outcome(Record, frozen=True, kw_only=True):
    """What became of the files that were to be published, and what the folder then holds.

    ``refused`` and ``unreadable`` are a file and all reasons against it; ``twice`` a file and the one that holds the
    same; ``standing`` files that were in the folder before and do not hold.
    """

    written: tuple[str, ...]
    scrubbed: dict[str, tuple[str, ...]]
    twice: tuple[tuple[str, str], ...]
    refused: tuple[tuple[str, tuple[str, ...]], ...]
    unreadable: tuple[str, ...]
    standing: tuple[tuple[str, tuple[str, ...]], ...]
    entries: tuple[Entry, ...]


def publish(names: Sequence[str], folder: Path, who: Identity) -> Outcome:
    """Judge the files and write those that may be published into ``folder``; return the outcome with all entries.

    Raises ``InputError`` if ``folder`` holds another tool's ``site/index.json``.
    """
    before = read_index(folder / SITE / INDEX)
    entries = _standing(folder, before, who)
    paths, unreadable = result_paths(names)
    written: list[str] = []
    twice: list[tuple[str, str]] = []
    scrubbed: dict[str, tuple[str, ...]] = {}
    refused: list[tuple[str, tuple[str, ...]]] = []
    by_id = {str(e.row.get("id")): e.path for e in entries.values() if e.row}
    by_print = {e.fingerprint: e.path for e in entries.values() if e.fingerprint and e.row}
    for candidate in _examined(paths, who):
        result = candidate.result
        if result is None:
            unreadable.append(str(candidate.unreadable))
            continue
        if candidate.against:
            refused.append((candidate.path, candidate.against))
            continue
        there = by_id.get(result.id)
        if there is not None:
            twice.append((candidate.path, there))
            continue
        print_ = fingerprint(result)
        if print_ in by_print:
            same = f"was measured once and is published already as {by_print[print_]}, under another id"
            refused.append((candidate.path, (same,)))
            continue
        try:
            path = place(result, folder)
        except PerjouleError as error:
            refused.append((candidate.path, (f"{error.message} ({error.hint})",)))
            continue
        name = path.relative_to(folder).as_posix()
        entry = Entry(path=name, stamp=stamp(path), fingerprint=print_, row=row_of(result))
        entries[entry.path] = entry
        by_id[result.id] = by_print[print_] = entry.path
        written.append(entry.path)
        if candidate.scrubbed:
            scrubbed[entry.path] = candidate.scrubbed
    return Outcome(
        written=tuple(written), scrubbed=scrubbed, twice=tuple(twice), refused=tuple(refused),
        unreadable=tuple(unreadable), entries=tuple(entries[path] for path in sorted(entries)),
        standing=tuple((e.path, e.against) for e in entries.values() if e.against),
    )  # fmt: skip


def _standing(folder: Path, before: dict[str, Entry], who: Identity) -> dict[str, Entry]:
    """Return an entry for every file that stands in the folder; those that did not change are not read again."""
    entries: dict[str, Entry] = {}
    new: list[Path] = []
    for path in published_paths(folder):
        known = before.get(path.relative_to(folder).as_posix())
        if known is not None and known.stamp == stamp(path):
            entries[known.path] = known
        else:
            new.append(path)
    for path, candidate in zip(new, _examined(new, who), strict=True):
        entry = entry_of(folder, path, candidate)
        entries[entry.path] = entry
    seen: dict[str, str] = {}
    for key in sorted(entries):
        entry = entries[key]
        first = seen.setdefault(entry.fingerprint, key) if entry.row else key
        if first != key:  # two folders were merged that both hold it
            entries[key] = msgspec.structs.replace(entry, row={}, against=(f"holds the same measurement as {first}",))
    return entries


def _examined(paths: Sequence[Path], who: Identity) -> Iterator[Candidate]:
    """Yield a candidate for each file, in order; many are judged by one process a core."""
    if len(paths) < _WORTH_PROCESSES:
        yield from (examine(path, who) for path in paths)
        return
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("forkserver")) as pool:
        for first in range(0, len(paths), _AT_ONCE):
            yield from pool.map(partial(examine, who=who), paths[first : first + _AT_ONCE], chunksize=16)
