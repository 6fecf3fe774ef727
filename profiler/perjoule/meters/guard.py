"""A meter behind a guard: what it raises becomes a refusal, and what it never answers does not stop the run."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

from perjoule.protocols import Probe
from perjoule.records import MeterRefusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perjoule.protocols import Count, Meter

PROBE_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 2.0


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
        found = self._call(self.meter.probe, PROBE_TIMEOUT_S, "probing it")
        return found if isinstance(found, Probe) else Probe(refusals=(self._refusal(found),))

    def open(self) -> MeterRefusal | None:
        why = self._call(self.meter.open, PROBE_TIMEOUT_S, "opening it")
        return None if why is None else self._refusal(why)

    def read(self) -> Sequence[Count | MeterRefusal]:
        found = self._call(self.meter.read, READ_TIMEOUT_S, "reading it")
        return [self._refusal(found)] if isinstance(found, str) or found is None else found

    def close(self) -> str | None:
        """Close the meter and its thread; return why it could not be closed."""
        why = self._call(self.meter.close, READ_TIMEOUT_S, "closing it")
        self._calls.put(None)
        return None if why is None else str(why)

    def _call(self, function: Callable[[], Any], timeout_s: float, doing: str) -> Any:
        """Return what the function returns, or a reason."""
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
                answer.put(function())
            except Exception as error:  # noqa: BLE001 - a driver or a plug-in may raise anything; it is reported
                answer.put(f"{type(error).__name__}: {error}")

    def _refusal(self, reason: object) -> MeterRefusal:
        return MeterRefusal(
            meter=self.name, reason=f"{self.name}: {reason or 'it gave nothing'}",
            fix=f"leave it out with --meter, or report it to the authors of {self.name}",
        )  # fmt: skip
