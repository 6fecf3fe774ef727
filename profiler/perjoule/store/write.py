"""Writing a result file: all of it or nothing, and never over another."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from perjoule.errors import HostError, InputError
from perjoule.store.canonical import canonical_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from perjoule.records import RunResult

_NOT_SLUG = re.compile(r"[^a-z0-9.]+")
_SHORT_ID = 8
_MAX_PART = 48
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS})


def encode(result: RunResult) -> bytes:
    """Return the file's bytes: strict JSON, keys sorted, a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(result, order="sorted"), indent=1) + b"\n"


def file_name(result: RunResult) -> str:
    """Return ``<utc date>-<scenario>-<model>-<backend>-<short id>.json``, safe on every file system."""
    short = result.id.removeprefix("sha256:")[:_SHORT_ID]
    parts = (result.created_utc[:10], result.scenario.name, result.model.name, result.backend.name, short)
    return "-".join(_slug(part) for part in parts) + ".json"


def save(result: RunResult, folder: str | Path) -> Path:
    """Write the result into ``folder`` (made if it is not there) and return its path.

    Raises ``InputError`` if the id does not fit or a file of that name exists, ``HostError`` if the
    file system refuses.
    """
    if result.id != canonical_id(result):
        raise InputError("the result's id does not fit its content", hint="report this as a bug")
    return write_whole(Path(folder) / file_name(result), encode(result))


def write_whole(path: Path, data: bytes, *, sync_name: bool = True) -> Path:
    """Write a file that is whole or not there, in a folder that is made if need be; return its path.

    Whoever writes many files may leave it to one ``sync_folder`` after them that their names outlive a power cut.
    Raises ``InputError`` if it exists, ``HostError`` if the file system refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, data)
        if sync_name:
            sync_folder(path.parent)
    except FileExistsError:
        raise InputError(f"{path} exists already", hint="choose another --out; results are never overwritten") from None
    except OSError as error:
        raise HostError(
            f"cannot write {path}: {error.strerror}", hint="free space or choose a writable --out"
        ) from None
    return path


def _write(path: Path, data: bytes) -> None:
    """Write a file that is whole or not there; where Linux can, even a process that is killed leaves nothing."""
    if not _write_unnamed(path, data):
        _write_temporary(path, data)


def _write_unnamed(path: Path, data: bytes) -> bool:
    """Write a file that gets its name last (O_TMPFILE of open(2)); False where kernel or file system cannot."""
    try:
        handle = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    except (AttributeError, OSError):
        return False  # the other way says what is wrong, if anything is
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(handle)
        os.fchmod(handle, 0o644)
        try:
            # a folder's handle is given, or Python calls link(2), which would not follow the name in /proc
            os.link(f"/proc/self/fd/{handle}", path, src_dir_fd=handle, follow_symlinks=True)
        except FileExistsError:
            raise
        except OSError:
            return False
    return True


def replace_whole(path: Path, data: bytes) -> None:
    """Write a file over an older one, in a folder that is there; a reader sees the one or the other, never a part."""
    _through_temporary(path, data, lambda temporary: temporary.replace(path))


def _write_temporary(path: Path, data: bytes) -> None:
    def name_it(temporary: Path) -> None:
        temporary.chmod(0o644)
        _publish(temporary, path)

    _through_temporary(path, data, name_it)


def _through_temporary(path: Path, data: bytes, then: Callable[[Path], object]) -> None:
    handle, name = tempfile.mkstemp(prefix=".perjoule-", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        then(temporary)
    finally:
        temporary.unlink(missing_ok=True)


def _publish(temporary: Path, path: Path) -> None:
    """Give the file its name; a link fails where a rename would overwrite."""
    try:
        path.hardlink_to(temporary)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        path.open("xb").close()  # claims the name on file systems without links
        temporary.replace(path)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _slug(text: str) -> str:
    return _NOT_SLUG.sub("-", text.lower()).strip("-.")[:_MAX_PART] or "none"
