"""Who disturbs: the processes outside our own tree that use most CPU time, by name.

Names are for the terminal of the person who owns the machine. A result is published: it holds how many there were and
their share, nothing that names them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from perjoule import host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from perjoule.protocols import Clock
    from perjoule.records import ProcessRecord, Window

LOOK_S = 0.2
MOST = 3
MIN_SHARE = 0.005  # of all cores: on two cores a fifth of a tick in LOOK_S, so any process that shows at all
_STAT_BYTES = 4096
_NAME = 15  # TASK_COMM_LEN of Linux, without its end
_UTIME, _STIME, _START = 11, 12, 19  # fields 14, 15 and 22 of proc(5), behind the name and counted from the third


class _Spent(NamedTuple):
    name: str
    parent: int
    cpu_s: float


def who(own_pids: Iterable[int], clock: Clock, look_s: float = LOOK_S) -> list[tuple[str, float]]:
    """Sleep for ``look_s`` and return others' names with their share of all cores, the busiest first, at most three.

    ``own_pids`` and all their descendants are left out. A process that ended or began meanwhile is not seen; of a
    container's host, only what the container sees.
    """
    before, start_ns = _processes(), clock.now_ns()
    clock.sleep(look_s)
    after, span_s = _processes(), (clock.now_ns() - start_ns) / 1e9
    own = _family(set(own_pids), {pid: seen.parent for (pid, _), seen in after.items()})
    capacity_s = (os.cpu_count() or 1) * span_s
    shares = [
        (seen.name, (seen.cpu_s - before[key].cpu_s) / capacity_s)
        for key, seen in after.items()
        if key in before and key[0] not in own and capacity_s
    ]
    return sorted((s for s in shares if s[1] >= MIN_SHARE), key=lambda s: -s[1])[:MOST]


class Lookout:
    """Looks who disturbs, once a run, after the first process whose requests were disturbed by others."""

    def __init__(self, clock: Clock, note: Callable[[str], None]) -> None:
        self._clock, self._note = clock, note
        self._looked = False

    def after(self, record: ProcessRecord, windows: Sequence[Window]) -> ProcessRecord:
        """Return the record, with number and share of those who were seen if this was the time to look."""
        if self._looked or not any((w.rejected or "").startswith("other processes") for w in windows):
            return record
        self._looked = True
        found = who([os.getpid()], self._clock)
        self._note(told(found))
        return replace(record, others_count=len(found), others_cpu_share=sum(share for _, share in found))


def told(found: Sequence[tuple[str, float]]) -> str:
    """Return a line for the terminal."""
    if not found:
        return "other work disturbs this run, but no process that is seen from here is busy now"
    return "disturbed by " + ", ".join(f"{name} ({share:.0%} of all cores)" for name, share in found)


def _family(own: set[int], parents: dict[int, int]) -> set[int]:
    """Return pids and all their descendants."""
    while more := {pid for pid, parent in parents.items() if parent in own and pid not in own}:
        own = own | more
    return own


def _processes() -> dict[tuple[int, str], _Spent]:
    """Return CPU time so far by pid and start time, since a pid may be used again."""
    root = host.procfs_root()
    if root.is_dir():
        return {(pid, start): spent for pid, start, spent in _from_procfs(root)}
    import psutil  # noqa: PLC0415 - only where there is no procfs

    found = {}
    for process in psutil.process_iter(["pid", "ppid", "name", "cpu_times", "create_time"]):
        seen = process.info
        if seen["cpu_times"] is not None:
            spent = _Spent(_printable(seen["name"] or "?"), seen["ppid"], sum(seen["cpu_times"][:2]))
            found[seen["pid"], str(seen["create_time"])] = spent
    return found


def _from_procfs(root: Path) -> Iterator[tuple[int, str, _Spent]]:
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    for folder in root.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            with (folder / "stat").open("rb") as file:
                text = file.read(_STAT_BYTES).decode(errors="replace")
            head, _, rest = text.rpartition(")")  # a name may hold any character
            words = rest.split()
            cpu_s = (int(words[_UTIME]) + int(words[_STIME])) * tick_s
            yield int(folder.name), words[_START], _Spent(_printable(head.partition("(")[2]), int(words[1]), cpu_s)
        except (OSError, ValueError, IndexError):
            continue  # it ended meanwhile


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)[:_NAME] or "?"
