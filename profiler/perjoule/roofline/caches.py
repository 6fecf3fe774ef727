"""How much the last-level caches hold together: a buffer that shows memory must be several times as large."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule import host
from perjoule.meters import sysfs

if TYPE_CHECKING:
    from pathlib import Path

_TIMES = 4  # the caches together
_LEAST_BYTES, _MOST_BYTES = 1 << 27, 1 << 31
_MEMORY_PART = 8  # at most this part of the memory that is free
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def last_level_bytes() -> int | None:
    """Return the bytes of all last-level caches of the machine; None where the kernel shows none.

    A cache is shared by the CPUs of ``shared_cpu_list``: each list is one cache
    (Documentation/ABI/testing/sysfs-devices-system-cpu).
    """
    found: dict[tuple[int, str], int] = {}
    for folder in (host.sysfs_root() / "devices/system/cpu").glob("cpu[0-9]*/cache/index[0-9]*"):
        try:
            if sysfs.read_text(folder / "type") == "Instruction":
                continue
            size = sysfs.read_text(folder / "size")
            level = int(sysfs.read_text(folder / "level"))
            found[level, _sharers(folder)] = int(size[:-1]) * _UNITS[size[-1]]
        except (OSError, ValueError, KeyError, IndexError):
            continue  # a cache that the kernel does not describe is not counted
    last = max((level for level, _ in found), default=None)
    return sum(size for (level, _), size in found.items() if level == last) or None


def _sharers(folder: Path) -> str:
    try:
        return sysfs.read_text(folder / "shared_cpu_list")
    except OSError:
        return folder.parents[1].name  # unknown: taken as this CPU's own


def buffer_bytes(cache_bytes: int | None) -> int:
    """Return how large a buffer to stream: four times the caches, 128 MiB to 2 GiB, at most an eighth of what is free.

    Where that eighth is less than the caches, what is measured is not memory alone; ``Peaks.cache_bytes`` shows it.
    """
    import psutil  # noqa: PLC0415 - only where it is measured

    wanted = min(_MOST_BYTES, max(_LEAST_BYTES, _TIMES * (cache_bytes or 0)))
    return int(min(wanted, psutil.virtual_memory().available // _MEMORY_PART))
