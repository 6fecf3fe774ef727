"""The journal of a run: what is finished is on disk while it goes on, so that a crash costs one process at most.

``OUT/.unfinished/<run>/`` holds ``plan.json`` (the whole plan, what was prepared, the sensors), ``<k>-<n>.json``
(process n of configuration k), ``idle-<when>.json``, ``resumed-<i>.json`` and ``saving-<k>.json`` (the name of a
result, noted before it is written). Every file is whole or not there. The folder goes when all results are written. It
is private: unlike a result it names files of this machine.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import msgspec

from perjoule.errors import InputError, UsageError
from perjoule.measure import ProcessRun
from perjoule.meters.idle import IdleReading
from perjoule.plan import RunPlan
from perjoule.protocols import Prepared
from perjoule.records import MeterFact, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# History of the journal's format; a run is resumed by the release that began it, so there are no migrations.
#   1  first release
VERSION = 1
FOLDER = ".unfinished"
_PLAN, _LOCK = "plan.json", ".lock"
_NEW, _GONE = ".new-", ".gone-"  # folders that are being made or removed; scrap, once nobody holds their lock
_MOST_DIGITS = 10
_DAMAGED = (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

T = TypeVar("T")


class Begun(Record, frozen=True, kw_only=True):
    """``plan.json``: all that the run was begun with. ``epoch_ns`` is second 0 by the monotonic clock of ``boot``."""

    schema: Literal["perjoule.journal"] = "perjoule.journal"
    version: int = VERSION
    tool_version: str
    machine_id: str
    created: datetime
    epoch_ns: int
    boot: str | None
    working_folder: str  # what relative names in the plan start from
    plan: RunPlan
    prepared: tuple[Prepared, ...]
    meters: tuple[MeterFact, ...]


class Measured(Record, frozen=True, kw_only=True):
    """One finished process of a configuration, and what it cost of the time budget."""

    run: ProcessRun
    measuring_s: float


class _Head(msgspec.Struct):
    schema: str
    version: int


class _Saving(Record, frozen=True, kw_only=True):
    file: str


class _Resumed(Record, frozen=True, kw_only=True):
    at_s: float


class Story(Record, frozen=True, kw_only=True):
    """What a journal tells. ``saving``: result files by configuration; ``damaged``: files that cannot be used."""

    begun: Begun
    measured: dict[int, list[Measured]]
    idle: dict[str, IdleReading]
    saving: dict[int, str]
    resumed_at_s: tuple[float, ...]
    damaged: tuple[str, ...]

    @property
    def last_s(self) -> float:
        """The latest stamp of all, seconds since the run's start: what comes now is later."""
        runs = [m.run for each in self.measured.values() for m in each]
        idle = [r.window.end_s for r in self.idle.values() if r.window is not None]
        stamps = [w.end_s for run in runs for w in run.windows] + [s.end_s for run in runs for s in run.samples]
        return max([0.0, *stamps, *idle, *self.resumed_at_s])


class Journal:
    """Writes the journal of one run and holds its lock. What cannot be written is said once; the run goes on."""

    def __init__(self, folder: Path | None, lock: int | None, note: Callable[[str], None]) -> None:
        self.folder = folder
        self._lock = lock
        self._note = note
        self._said = False

    @classmethod
    def create(cls, out_dir: str | Path, begun: Begun, note: Callable[[str], None]) -> Self:
        """Begin a journal; without one that can be written the run goes on, and a note says what that means."""
        parent = Path(out_dir) / FOLDER
        journal = cls(None, None, note)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            _sweep(parent)
            token = secrets.token_hex(3)
            folder = parent / f"{_NEW}{token}"
            folder.mkdir(mode=0o700)
            journal._lock = _locked(folder)
            _write(folder / _PLAN, begun)
            named = parent / f"{begun.created:%Y%m%d-%H%M%S}-{token}"
            folder.rename(named)
            journal.folder = named
        except OSError as error:
            journal._lost(error)
        return journal

    @classmethod
    def open(cls, folder: Path, note: Callable[[str], None]) -> tuple[Self, Story]:
        """Take up the journal of a run that ended early.

        Raises ``InputError`` where it cannot be read or another perjoule is at work on it.
        """
        lock = _locked(folder)
        if lock is None:
            raise InputError(f"{folder}: that run is still going on", hint="wait for it to end, or stop it first")
        try:
            return cls(folder, lock, note), _read(folder)
        except BaseException:
            os.close(lock)
            raise

    def measured(self, configuration: int, measured: Measured) -> None:
        self._keep(f"{configuration}-{measured.run.record.process}.json", measured)

    def idle(self, when: str, reading: IdleReading) -> None:
        self._keep(f"idle-{when}.json", reading)

    def saving(self, configuration: int, file: str) -> None:
        """Note the name of a result before it is written: a run that is taken up again then knows whether it was."""
        self._keep(f"saving-{configuration}.json", _Saving(file=file))

    def resumed(self, index: int, at_s: float) -> None:
        self._keep(f"resumed-{index}.json", _Resumed(at_s=at_s))

    def remove(self) -> None:
        """Remove the journal of a run whose results are written, and the folder of journals if it was the last."""
        if self.folder is not None:
            gone = self.folder.with_name(f"{_GONE}{self.folder.name}")
            try:
                self.folder.rename(gone)  # at once: half a journal would look like a run that can be resumed
            except OSError as error:
                self._note(f"{self.folder} could not be removed: {error.strerror}")
            else:
                shutil.rmtree(gone, ignore_errors=True)  # the name says that it is scrap
                with suppress(OSError):
                    gone.parent.rmdir()  # others are unfinished too
            self.folder = None
        self.close()

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _keep(self, name: str, record: Record) -> None:
        if self.folder is None:
            return
        try:
            _write(self.folder / name, record)
        except OSError as error:
            self._lost(error)

    def _lost(self, error: OSError) -> None:
        if not self._said:
            self._said = True
            self._note(
                f"the journal cannot be written ({error.strerror}): the run goes on, a crash would cost more of it"
            )


def unfinished(out_dir: str | Path) -> list[Path]:
    """Return the folders of the runs there that ended early, oldest first; one that still goes on is left out."""
    return [folder for folder in _journals(Path(out_dir) / FOLDER) if not _is_held(folder)]


def find(place: str | Path) -> Path:
    """Return the folder of the one run to take up again; ``place`` is that folder, or the one results go to.

    Raises ``UsageError`` where there is none, or several.
    """
    given = Path(place)
    if (given / _PLAN).is_file():
        return given
    found = _journals(given / FOLDER)
    if not found:
        what = "no unfinished run there" if given.is_dir() else "no such folder"
        raise UsageError(
            f"{given}: {what}", hint="give the folder that --out named; a finished run leaves nothing to do"
        )
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        raise UsageError(
            f"{given}: {len(found)} unfinished runs: {names}", hint=f"name one, e.g. --resume {found[-1]} (the newest)"
        )
    return found[0]


def places(folder: Path) -> tuple[Path, Path]:
    """Return where the results of a journal's run go, and the folder that relative names of its plan start from.

    Results go beside ``.unfinished``, which may have been moved. Raises ``InputError`` for a plan that cannot be read.
    """
    begun, parent = _begun(folder / _PLAN), folder.absolute().parent
    begun_in = Path(begun.working_folder)
    return (parent.parent if parent.name == FOLDER else begun_in / begun.plan.out_dir), begun_in


def _journals(parent: Path) -> list[Path]:
    try:
        return sorted(f for f in parent.iterdir() if not f.name.startswith(".") and (f / _PLAN).is_file())
    except OSError:
        return []  # there is no such folder, or it cannot be read: nothing can be taken up there


def _sweep(parent: Path) -> None:
    """Remove what runs left that were killed while they made or removed their journal."""
    for left in parent.iterdir():
        if left.name.startswith((_NEW, _GONE)) and not _is_held(left):
            shutil.rmtree(left, ignore_errors=True)  # the name says that it is scrap


def _locked(folder: Path) -> int | None:
    """Lock a journal and return the handle; None while another process holds it. Workers do not inherit it."""
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        return handle  # a file system without locks: nobody can be told apart there
    return handle


def _is_held(folder: Path) -> bool:
    try:
        handle = _locked(folder)
    except OSError:
        return False  # it cannot be written to, so nobody is
    if handle is None:
        return True
    os.close(handle)
    return False


def _read(folder: Path) -> Story:
    begun = _begun(folder / _PLAN)
    damaged: list[str] = []
    files = sorted(f for f in folder.iterdir() if f.suffix == ".json" and f.name != _PLAN)
    measured = {k: list[Measured]() for k in range(len(begun.plan.configurations))}
    for file, (k, n) in _numbered(files, "-"):
        found = _decoded(file, Measured, damaged)
        if found is None:
            continue
        if k in measured and found.run.record.process == n:
            measured[k].append(found)
        else:
            damaged.append(file.name)
    for each in measured.values():
        each.sort(key=lambda m: m.run.record.start_s)  # as they were measured
    idle = {
        f.stem.removeprefix("idle-"): _decoded(f, IdleReading, damaged) for f in files if f.stem.startswith("idle-")
    }
    saving = {n: _decoded(f, _Saving, damaged) for f, (n,) in _numbered(files, "saving-")}
    resumed = [_decoded(f, _Resumed, damaged) for f in files if f.stem.startswith("resumed-")]
    return Story(
        begun=begun,
        measured=measured,
        idle={when: reading for when, reading in idle.items() if reading is not None},
        saving={k: Path(s.file).name for k, s in saving.items() if s is not None},
        resumed_at_s=tuple(sorted(r.at_s for r in resumed if r is not None)),
        damaged=tuple(damaged),
    )


def _begun(file: Path) -> Begun:
    """Read ``plan.json``. Raises ``InputError`` if it is damaged or of another version."""
    again = f"remove {file.parent} and run again"
    try:
        data = file.read_bytes()
        head = msgspec.json.decode(data, type=_Head)
    except _DAMAGED as error:
        raise InputError(f"{file}: damaged: {error}", hint=again) from error
    if head.schema != "perjoule.journal":
        raise InputError(f"{file}: not the plan of a run", hint="give the folder that --out named")
    if head.version > VERSION:
        raise InputError(
            f"{file}: version {head.version}; this perjoule knows up to {VERSION}", hint="update perjoule to resume it"
        )
    try:
        begun = msgspec.json.decode(data, type=Begun)
    except _DAMAGED as error:
        raise InputError(f"{file}: damaged: {error}", hint=again) from error
    if len(begun.prepared) != len(begun.plan.configurations):
        raise InputError(f"{file}: damaged: models and configurations do not match", hint=again)
    return begun


def _numbered(files: list[Path], prefix: str) -> Iterator[tuple[Path, tuple[int, ...]]]:
    """Yield files named by numbers: ``<k>-<n>`` for the prefix ``-``, ``<prefix><n>`` for others."""
    for file in files:
        parts = file.stem.split("-") if prefix == "-" else [file.stem.removeprefix(prefix)]
        wanted = 2 if prefix == "-" else 1
        if len(parts) == wanted and all(p.isascii() and p.isdigit() and len(p) < _MOST_DIGITS for p in parts):
            yield file, tuple(int(p) for p in parts)


def _decoded(file: Path, kind: type[T], damaged: list[str]) -> T | None:
    """Return what a file holds, or None for one that cannot be read, whose name is kept."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except _DAMAGED:
        damaged.append(file.name)
        return None


def _write(path: Path, record: Any) -> None:
    """Write a file that is whole or not there, even if the power fails."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(record))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
