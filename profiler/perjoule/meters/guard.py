"""A meter behind a guard: what it raises becomes a refusal, and what it never answers does not stop the run."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from perjoule.protocols import Probe
from perjoule.records import MeterRefusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perjoule.protocols import Count, Meter

PROBE_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 2.0
_MAX_REASON = 200


class GuardedMeter:
    """Calls one meter on a thread of its own. A call that does not return in time ends the meter, not the run."""

    def __init__(self, name: str, meter: Meter) -> None:
        self.name = name
        self.meter = meter
        self._lost: str | None = None
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=f"meter {name}", daemon=True)
        self._thread.start()

    def probe(self) -> Probe:
        found = self.call(self.meter.probe, PROBE_TIMEOUT_S, "probing it")
        return found if isinstance(found, Probe) else Probe(refusals=(self.refusal(found),))

    def open(self) -> MeterRefusal | None:
        why = self.call(self.meter.open, PROBE_TIMEOUT_S, "opening it")
        return None if why is None else self.refusal(why)

    def read(self) -> Sequence[Count | MeterRefusal]:
        found = self.call(self.meter.read, READ_TIMEOUT_S, "reading it")
        return [self.refusal(found)] if isinstance(found, str) or found is None else found

    def close(self) -> str | None:
        """Close the meter and its thread; return why not. A lost meter is closed should its call ever return."""
        if self._lost is not None:
            self._calls.put((self.meter.close, queue.SimpleQueue()))
        why = self.call(self.meter.close, READ_TIMEOUT_S, "closing it")
        self._calls.put(None)
        return None if why is None else str(why)

    def call(self, function: Callable[[], Any], timeout_s: float, doing: str) -> Any:
        """Return what the function returns, or a reason (text) where it raised or took too long."""
        if self._lost is not None:
            return self._lost
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._calls.put((function, answer))
        try:
            return answer.get(timeout=timeout_s)
        except queue.Empty:
            self._lost = f"{doing} took longer than {timeout_s:g} s"
            return self._lost

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            function, answer = call
            try:
                found = function()
                answer.put(list(found) if isinstance(found, Iterator) else found)  # a generator runs here, or nowhere
            except Exception as error:  # noqa: BLE001 - a driver or a plug-in may raise anything; it is reported
                answer.put(_why(error))

    def refusal(self, reason: object) -> MeterRefusal:
        return MeterRefusal(
            meter=self.name, reason=f"{self.name}: {reason or 'it gave nothing'}",
            fix=f"leave it out with --meter, or report it to the authors of {self.name}",
        )  # fmt: skip


def _why(error: Exception) -> str:
    """Say what was raised without what names this machine: refusals are published."""
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    words = ("..." if "/" in word or "\\" in word else word for word in str(error).split())
    return f"{type(error).__name__}: {' '.join(words)[:_MAX_REASON]}"


def within(function: Callable[[], Any], timeout_s: float, otherwise: Any) -> Any:
    """Return what the function returns; ``otherwise`` where it raises or takes longer than ``timeout_s``."""
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run() -> None:
        try:
            answer.put(function())
        except Exception:  # noqa: BLE001 - the caller has said what to take instead
            answer.put(otherwise)

    threading.Thread(target=run, daemon=True).start()
    try:
        return answer.get(timeout=timeout_s)
    except queue.Empty:
        return otherwise
