"""The measured process' end of its link to the parent."""

from __future__ import annotations

from typing import BinaryIO

from perjoule import messages
from perjoule.errors import EngineError


class Link:
    def __init__(self, events: BinaryIO, commands: BinaryIO) -> None:
        self._events, self._commands = events, commands

    def say(self, event: messages.Event) -> None:
        self._events.write(messages.encode(event))
        self._events.flush()

    def job(self) -> messages.Job:
        return messages.decode_job(self._commands.readline())

    def wait_for_go(self) -> None:
        """Wait until the parent has read its meters. Raises ``EngineError`` if it is gone."""
        if self._commands.readline() != messages.GO:
            raise EngineError("the profiler went away", hint="run again")

    def verdict(self) -> bool:
        """Wait for the parent's verdict on what was just said; return whether it counts."""
        return self._commands.readline() == messages.KEPT
