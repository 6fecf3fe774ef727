"""Publishing many files: each is judged on its own, and what is wrong with one does not keep back another."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from perjoule.errors import PerjouleError
from perjoule.publish.folder import Writer, make_home
from perjoule.publish.found import SITE, result_paths
from perjoule.publish.gate import judge
from perjoule.publish.index import Entry, VerdictEntry, entry_of, published_paths, read_index, stamp
from perjoule.publish.many import each
from perjoule.publish.verdicts import apart, publish_verdicts
from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from perjoule.publish.gate import Judged
    from perjoule.publish.private import Identity

INDEX = "index.json"
_WAITING = 64  # files that may wait to be written, with their bytes


class Outcome(Record, frozen=True, kw_only=True):
    """What became of the files that were to be published, and what the folder then holds.

    ``refused`` and ``unreadable`` are a file and all reasons against it; ``twice`` a file and the one that holds the
    same; ``notes`` a written file and what to say of it; ``standing`` files that were in the folder before and do not
    hold.
    """

    written: tuple[str, ...]
    notes: tuple[tuple[str, str], ...] = ()
    scrubbed: dict[str, tuple[str, ...]]
    twice: tuple[tuple[str, str], ...]
    refused: tuple[tuple[str, tuple[str, ...]], ...]
    unreadable: tuple[str, ...]
    standing: tuple[tuple[str, tuple[str, ...]], ...]
    entries: tuple[Entry, ...]
    verdicts: tuple[VerdictEntry, ...] = ()


def publish(names: Sequence[str], folder: Path, who: Identity) -> Outcome:
    """Judge the files and write those that may be published into ``folder``; return the outcome with all entries.

    Raises ``InputError`` if ``folder`` holds another tool's ``site/index.json``.
    """
    before = read_index(folder / SITE / INDEX)
    entries = _standing(folder, before, who)
    found, unreadable = result_paths(names, verdicts=True)
    paths, verdicts = apart(found)
    batch = _Batch(folder, entries, unreadable)
    with Writer() as writer:
        for judged in _judged(paths, who, to_write=True):
            batch.take(judged, writer)
        batch.finish(0)
    # after all results, whatever the order in which files were named: verdicts rest on them
    told = publish_verdicts(verdicts, folder, entries.values(), who)
    return Outcome(
        written=(*batch.written, *told.written), scrubbed=batch.scrubbed, notes=tuple(batch.notes),
        twice=(*batch.twice, *told.twice), refused=(*batch.refused, *told.refused),
        unreadable=(*batch.unreadable, *told.unreadable),
        entries=tuple(entries[path] for path in sorted(entries)), verdicts=told.entries,
        standing=(
            *((e.path, e.against) for e in entries.values() if e.against),
            *((e.path, e.against) for e in told.entries if e.against),
        ),
    )  # fmt: skip


class _Batch:
    """What became of the files so far; ``entries`` grows by those that are written."""

    def __init__(self, folder: Path, entries: dict[str, Entry], unreadable: list[str]) -> None:
        self.written: list[str] = []
        self.twice: list[tuple[str, str]] = []
        self.notes: list[tuple[str, str]] = []
        self.scrubbed: dict[str, tuple[str, ...]] = {}
        self.refused: list[tuple[str, tuple[str, ...]]] = []
        self.unreadable = unreadable
        self._folder, self._entries = folder, entries
        self._homes: dict[tuple[str, bytes], Path] = {}
        self._by_id = {str(e.row.get("id")): e.path for e in entries.values() if e.row}
        self._by_print = {e.fingerprint: e.path for e in entries.values() if e.fingerprint and e.row}
        self._being_written: deque[tuple[Judged, Future[Path]]] = deque()

    def take(self, judged: Judged, writer: Writer) -> None:
        """Decide on one file, and begin to write it if it may be."""
        if judged.unreadable:
            self.unreadable.append(judged.unreadable)
            return
        there, same = self._by_id.get(judged.id), self._by_print.get(judged.fingerprint)
        if judged.against:
            self.refused.append((judged.path, judged.against))
        elif there is not None:
            self.twice.append((judged.path, there))
        elif same is not None:
            reason = f"was measured once and is published already as {same}, under another id"
            self.refused.append((judged.path, (reason,)))
        else:
            try:
                home = self._home(judged)
            except PerjouleError as error:
                self.refused.append((judged.path, (f"{error.message} ({error.hint})",)))
                return
            self._by_id[judged.id] = self._by_print[judged.fingerprint] = f"{home.name}/{judged.name}"
            self._being_written.append((judged, writer.place(judged, home)))
            self.finish(_WAITING)

    def _home(self, judged: Judged) -> Path:
        """Return the folder of the result's machine, looked at once for each. Raises as ``make_home``."""
        key = judged.machine_id, judged.machine
        if key not in self._homes:
            self._homes[key] = make_home(judged, self._folder)
        return self._homes[key]

    def finish(self, left: int) -> None:
        """Wait until no more than so many files are still being written."""
        while len(self._being_written) > left:
            judged, future = self._being_written.popleft()
            try:
                path = future.result()
            except PerjouleError as error:
                self.refused.append((judged.path, (f"{error.message} ({error.hint})",)))
                del self._by_id[judged.id], self._by_print[judged.fingerprint]
                continue
            name = path.relative_to(self._folder).as_posix()
            self._entries[name] = Entry(path=name, stamp=stamp(path), fingerprint=judged.fingerprint, row=judged.row)
            self.written.append(name)
            if judged.scrubbed:
                self.scrubbed[name] = judged.scrubbed
            if judged.note:
                self.notes.append((name, judged.note))


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
    for path, judged in zip(new, _judged(new, who, to_write=False), strict=True):
        entry = entry_of(folder, path, judged)
        entries[entry.path] = entry
    seen: dict[str, str] = {}
    for key in sorted(entries):
        entry = entries[key]
        first = seen.setdefault(entry.fingerprint, key) if entry.row else key
        if first != key:  # two folders were merged that both hold it
            entries[key] = msgspec.structs.replace(entry, row={}, against=(f"holds the same measurement as {first}",))
    return entries


def _judged(paths: Sequence[Path], who: Identity, *, to_write: bool) -> Iterator[Judged]:
    """Yield what became of each file, in order; many are judged by one process a core."""
    return each(partial(judge, who=who, to_write=to_write), paths)
