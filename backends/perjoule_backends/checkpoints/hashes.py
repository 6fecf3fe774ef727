"""SHA-256 of files, and the notes beside cached ones that spare hashing them again."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from perjoule.records import Record

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule.protocols import Progress

_BLOCK_BYTES = 1 << 20


class _Verified(Record, frozen=True, kw_only=True):
    """Kept beside a cached file: the hash holds while size and modification time do."""

    sha256: str
    file_bytes: int
    mtime_ns: int


def sha256_of(path: Path, progress: Progress) -> str:
    digest = hashlib.sha256()
    size = max(1, path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            progress("checking the file", min(1.0, file.tell() / size))
    return digest.hexdigest()


def git_sha1_of(path: Path) -> str:
    """Return the name that git gives a file's content: what the hub states of files that are not in Git LFS."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def remembered_sha256(path: Path, progress: Progress) -> str:
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
    remember(path, found)
    return found


def remember(path: Path, sha256: str) -> None:
    status = path.stat()
    note = _Verified(sha256=sha256, file_bytes=status.st_size, mtime_ns=status.st_mtime_ns)
    with suppress(OSError):  # in a cache that can only be read the file is hashed each time
        write_whole(path.with_suffix(".verified.json"), msgspec.json.encode(note))


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file in one step, so that a reader never sees half of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(content)
    part.replace(path)
