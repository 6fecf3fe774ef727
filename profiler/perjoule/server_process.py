"""The processes of a server on this machine: the one that was named, and whatever it has started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.clock import process_cpu_ns
from perjoule.errors import EngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NOT_NAMED = "the server's process is not known: name it with --server-pid PID"
ELSEWHERE = "the server runs on another machine"


def process_tree(pid: int) -> list[tuple[int, float]]:
    """Return the process and all below it, each with when it was started. Milliseconds: not for windows."""
    import psutil  # noqa: PLC0415 - only where a server is measured

    try:
        process = psutil.Process(pid)
        found = [process, *process.children(recursive=True)]
        return [(p.pid, p.create_time()) for p in found]
    except psutil.Error:
        return []


class ServerProcesses:
    """CPU time of a server's processes. ``look`` finds them, outside of windows; one that is started later is missed.

    Raises ``UsageError`` where there is no such process to begin with.
    """

    def __init__(
        self,
        pid: int,
        tree: Callable[[int], Sequence[tuple[int, float]]] = process_tree,
        cpu_ns: Callable[[int], int] = process_cpu_ns,
    ) -> None:
        self._pid, self._tree, self._cpu_ns = pid, tree, cpu_ns
        found = tree(pid)
        if not found:
            raise UsageError(f"--server-pid {pid}: there is no such process", hint="give the process id of the server")
        self._started = found[0][1]
        self.pids = [number for number, _started in found]

    def look(self) -> None:
        """Find its processes again. Raises ``EngineError`` where the server has ended, or another has its number."""
        found = self._tree(self._pid)
        if not found or found[0][1] != self._started:
            raise EngineError(f"the server (process {self._pid}) has ended", hint="see the server's own log")
        self.pids = [number for number, _started in found]

    def cpu_ns(self) -> dict[int, int] | str:
        """Return the CPU time of each of them so far, or why one could not be read. Microseconds each."""
        try:
            return {pid: self._cpu_ns(pid) for pid in self.pids}
        except OSError as error:
            return f"the CPU time of one of the server's processes could not be read: {error.strerror}"


def spent_ns(before: dict[int, int] | str, after: dict[int, int] | str) -> int | str:
    """Return the CPU time between two looks at the same processes, or why it is not known."""
    if isinstance(before, str) or isinstance(after, str):
        return before if isinstance(before, str) else str(after)
    if before.keys() != after.keys():
        return "the server's processes changed meanwhile"
    return sum(after[pid] - before[pid] for pid in after)
