"""SIGTERM and a closed terminal end a command as Ctrl-C does: what is finished is saved first."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE = b"\nperjoule: stopping; what is finished is being saved. Once more gives it up.\n"


class _Stop:
    """Raises ``KeyboardInterrupt`` at the first signal. The second is answered with a line: it would cost results."""

    def __init__(self) -> None:
        self._seen = 0

    def __call__(self, _number: int, _frame: object) -> None:
        self._seen += 1
        if self._seen == 2:  # noqa: PLR2004
            try:
                os.write(2, _PATIENCE)  # no print: a handler may interrupt one
            except OSError:
                return  # nobody reads standard error
            return
        raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[None]:
    """Handle the signals while the body runs; one that is ignored, as under nohup, stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stop = _Stop()
    before: dict[signal.Signals, Any] = {
        number: signal.signal(number, stop) for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
