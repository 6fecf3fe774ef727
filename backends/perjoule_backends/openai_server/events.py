"""Server-sent events, parsed from bytes as they arrive, and what the pieces of an answer say in them.

The stream format is that of the HTML standard, section 9.2; lines end with LF or CR LF, as every such server sends
them. Only ``data`` matters here: comments are pings, and names of events carry nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from perjoule.errors import EngineError

MAX_EVENT_BYTES = 1 << 20  # a token with all that servers say of it takes 300 bytes; usage comes once
DONE = b"[DONE]"
_BROKEN = "see the server's own log; it may not be OpenAI-compatible"
_MOST_TOKENS = 1 << 31


class EventStream:
    """``feed`` returns the data of each event that is complete. Raises ``EngineError`` for one that never ends."""

    def __init__(self) -> None:
        self._buffer = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) + self._size > MAX_EVENT_BYTES:
            raise EngineError(f"the server sent an event of more than {MAX_EVENT_BYTES} bytes", hint=_BROKEN)
        found: list[bytes] = []
        for ended in lines:
            line = ended.removesuffix(b"\r")
            if line:
                self._field(line)
            elif self._data:
                found.append(b"\n".join(self._data))
                self._data, self._size = [], 0
        return found

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._size += len(value)
            if self._size > MAX_EVENT_BYTES:
                raise EngineError(f"the server sent an event of more than {MAX_EVENT_BYTES} bytes", hint=_BROKEN)
        elif name not in (b"", b"event", b"id", b"retry"):
            raise EngineError(f"the server's stream has a line {shown(line)!r} that is no event", hint=_BROKEN)


class Usage(NamedTuple):
    """What the server says it counted; -1 where it does not say it."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class Piece(NamedTuple):
    """What one event brought."""

    text: str
    finish_reason: str | None
    usage: Usage | None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None  # servers that split off what a model thinks: tokens like any other
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None
    index: int = 0


class _Event(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_EVENTS = msgspec.json.Decoder(_Event)


def read_piece(data: bytes) -> Piece:
    """Return what an event says. Raises ``EngineError`` for one that is no piece of an answer, or says an error."""
    try:
        event = _EVENTS.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise EngineError(f"the server sent {shown(data)!r} in the middle of an answer", hint=_BROKEN) from None
    if event.error is not None:
        raise EngineError(f"the server failed in the middle of an answer: {said_in(event.error)}", hint=_BROKEN)
    choices = event.choices or []
    if any(choice.index for choice in choices):
        raise EngineError("the server gives several answers to one request", hint=_BROKEN)
    reasons = [choice.finish_reason for choice in choices if choice.finish_reason]
    return Piece("".join(map(_text, choices)), reasons[-1] if reasons else None, _usage(event.usage))


def _text(choice: _Choice) -> str:
    delta = choice.delta
    if delta is None:
        return choice.text or ""
    return (delta.reasoning_content or delta.reasoning or "") + (delta.content or "")


def _usage(said: _Usage | None) -> Usage | None:
    if said is None:
        return None
    details = said.prompt_tokens_details
    return Usage(
        _count(said.prompt_tokens), _count(said.completion_tokens), _count(details.cached_tokens if details else None)
    )


def _count(value: int | None) -> int:
    return value if value is not None and 0 <= value < _MOST_TOKENS else -1


def said_in(error: object) -> str:
    """Return the message of an error as OpenAI, FastAPI and others write it, on one line and not too long."""
    while isinstance(error, dict | list) and error:
        error = (error.get("message") or error.get("error") or error.get("detail") or error.get("msg")
                 if isinstance(error, dict) else error[0])  # fmt: skip
    return shown(str(error).encode()) if error else "it does not say why"


def shown(data: bytes) -> str:
    """Return the beginning of what a server sent as one printable line."""
    text = " ".join(data[:400].decode(errors="replace").split())
    return "".join(c if c.isprintable() else "?" for c in text)[:200]
