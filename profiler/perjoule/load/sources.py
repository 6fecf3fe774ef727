"""Where requests come from: clients that wait for their answer, a schedule that does not, or all at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Source(Protocol):
    """Says when requests are due. Times are monotonic ns; ``begin`` fixes the start of the load.

    The load lasts until ``lasts_until_ns`` even if nothing comes any more, and else until its last answer.
    """

    lasts_until_ns: int

    def begin(self, now_ns: int) -> None: ...
    def take(self, now_ns: int) -> Sequence[int]:
        """Return when each request that came since the last call was due, in order; they are handed out once."""

    def answered(self, now_ns: int) -> None:
        """Hear that a request was answered."""

    @property
    def next_due_ns(self) -> int | None:
        """When the next one comes; None if that waits for an answer, or if there are no more."""


class ClosedLoop:
    """``clients`` that each send their next request when the last was answered.

    They stop once ``requests`` were sent and ``duration_s`` is over, or at once after ``most`` requests.
    """

    def __init__(self, clients: int, requests: int, duration_s: float | None = None, most: int | None = None) -> None:
        self._requests, self._duration_ns = requests, int((duration_s or 0.0) * 1e9)
        self._ready, self._clients, self._most = 0, clients, most
        self._sent, self._end_ns = 0, 0
        self.lasts_until_ns = 0
        self.next_due_ns: int | None = None

    def begin(self, now_ns: int) -> None:
        self._end_ns = now_ns + self._duration_ns
        self._ready, self.next_due_ns = self._clients, now_ns

    def take(self, now_ns: int) -> list[int]:
        taken: list[int] = []
        while self._ready and (self._sent < self._requests or now_ns < self._end_ns) and self._sent != self._most:
            taken.append(now_ns)
            self._sent += 1
            self._ready -= 1
        self.next_due_ns = None
        return taken

    def answered(self, now_ns: int) -> None:
        self._ready += 1
        self.next_due_ns = now_ns


class AllAtOnce:
    """Every request is due when the load begins: MLPerf's offline scenario."""

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self.lasts_until_ns = 0
        self.next_due_ns: int | None = None

    def begin(self, now_ns: int) -> None:
        self.next_due_ns = now_ns

    def take(self, now_ns: int) -> list[int]:
        del now_ns
        due_ns, self.next_due_ns = self.next_due_ns, None
        return [] if due_ns is None else [due_ns] * self._requests

    def answered(self, now_ns: int) -> None:
        """Nobody waits for an answer."""


class OpenLoop:
    """A schedule: a late engine does not slow the arrivals, and latency counts from the scheduled instant.

    The time after the last arrival is part of the load, as are the gaps before it: ended with the last answer, a load
    of n requests would seem to carry more than was offered.
    """

    def __init__(self, times_s: Sequence[float], duration_s: float = 0.0) -> None:
        self._offsets_ns, self._duration_ns = [int(t * 1e9) for t in times_s], int(duration_s * 1e9)
        self.lasts_until_ns = 0
        self._due_ns: list[int] = []
        self._next = 0
        self.next_due_ns: int | None = None

    def begin(self, now_ns: int) -> None:
        self._due_ns, self._next = [now_ns + offset for offset in self._offsets_ns], 0
        self.lasts_until_ns = now_ns + self._duration_ns
        self.next_due_ns = self._due_ns[0] if self._due_ns else None

    def take(self, now_ns: int) -> list[int]:
        begin, end, due = self._next, self._next, self._due_ns
        while end < len(due) and due[end] <= now_ns:
            end += 1
        self._next = end
        self.next_due_ns = due[end] if end < len(due) else None
        return due[begin:end]

    def answered(self, now_ns: int) -> None:
        """The schedule does not listen."""
