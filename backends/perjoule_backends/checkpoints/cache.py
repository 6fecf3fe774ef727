"""Where models and converted graphs are kept (``PERJOULE_CACHE``, else the platform's cache folder), and their lock."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from perjoule.clock import MonotonicClock
from perjoule.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perjoule.protocols import Progress

_POLL_S = 0.2
ANOTHER_DISK = "free disk space, or set PERJOULE_CACHE to a folder on another disk"
_FULL = (errno.ENOSPC, errno.EDQUOT)


def cache_root() -> Path:
    chosen = os.environ.get("PERJOULE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "perjoule"


@contextmanager
def locked(folder: Path, progress: Progress) -> Iterator[None]:
    """Hold the folder's lock; while another process has it, say so, lest a silent wait be taken for a hang.

    The kernel drops the lock with the process, so scrap found under it is nobody's.
    """
    with (folder / ".lock").open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress("waiting for another process", None)
                MonotonicClock.sleep(_POLL_S)
        yield


def remove_scrap(folder: Path, prefix: str) -> None:
    """Remove what processes that were killed have left. Call it under the lock."""
    for left in folder.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)  # best effort: the name says it is scrap


def need_space(folder: Path, need: int, what: str) -> None:
    """Raise ``HostError`` if the folder's disk has fewer than ``need`` bytes left for ``what``."""
    free = shutil.disk_usage(folder).free
    if free < need:
        raise HostError(
            f"no space for {what}: {need / 1e6:,.0f} MB are needed, the cache's disk has {free / 1e6:,.0f} MB left",
            hint=ANOTHER_DISK,
        )


def refused_by_disk(what: str, error: OSError) -> HostError:
    """Return the error to raise where the file system said no while doing ``what``."""
    hint = ANOTHER_DISK if error.errno in _FULL else "set PERJOULE_CACHE to a folder that can be written"
    return HostError(f"{what}: {error.strerror or error}", hint=hint)
