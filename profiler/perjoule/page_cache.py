"""The system's page cache: letting go of a model's files, so that they are read from the disk again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SELF_IO = "/proc/self/io"


def drop(folder: Path) -> str:
    """Ask the kernel to let go of every file under ``folder`` (posix_fadvise(2), no privilege needed).

    Returns why that was not possible; empty where it was asked. Pages that another process has mapped stay, so what
    was read from the disk afterwards is the evidence (``read_bytes``).
    """
    if not hasattr(os, "posix_fadvise"):
        return "this system has no posix_fadvise"
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            return f"{path.name}: {error.strerror}"
        try:
            os.fsync(handle)  # pages that are not on the disk yet are kept
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            return f"{path.name}: {error.strerror}"
        finally:
            os.close(handle)
    return ""


def read_bytes() -> int | str:
    """Return the bytes that this process has had read from storage so far (proc_pid_io(5)), or why it is not known."""
    try:
        with open(_SELF_IO, encoding="ascii") as file:  # noqa: PTH123 - the kernel's own file
            fields = dict(line.split(": ", 1) for line in file)
        return int(fields["read_bytes"])
    except OSError as error:
        return f"{_SELF_IO}: {error.strerror}"
    except (KeyError, ValueError):
        return f"{_SELF_IO} is not what the kernel writes"
