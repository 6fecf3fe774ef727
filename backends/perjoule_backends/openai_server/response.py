"""An HTTP/1.1 response, parsed from bytes as they arrive, so that many can be in flight in one thread.

Message framing is that of RFC 9112, sections 6 and 7; all that a server could make long is bounded.
"""

from __future__ import annotations

from typing import Literal

from perjoule.errors import EngineError

MAX_HEAD_BYTES = 64 * 1024
_MAX_SIZE_LINE = 256  # of a chunk's size with its extensions
_SIZE_DIGITS, _HEX = 8, frozenset(b"0123456789abcdefABCDEF")  # chunks of 4 GiB at most
_CONTINUE, _OK = 100, 200
_NO_BODY = (204, 304)
_NOT_HTTP = "give the address of an OpenAI-compatible server, e.g. --set backend.url=http://127.0.0.1:8000/v1"

_State = Literal["head", "sized", "chunk size", "chunk", "chunk end", "trailer", "until close", "done"]


class Response:
    """``status`` is 0 until the head has arrived. ``feed`` returns what of the body is new; ``done`` once all is there.

    Raises ``EngineError`` for what is no HTTP, and for a server that hangs up half way.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._state: _State = "head"
        self._buffer = bytearray()
        self._left = 0

    @property
    def done(self) -> bool:
        return self._state == "done"

    @property
    def reusable(self) -> bool:
        """Whether the connection may carry another request."""
        return self.done and not self._buffer and self.headers.get("connection", "").lower() != "close"

    def feed(self, data: bytes) -> bytes:
        self._buffer += data
        body = bytearray()
        while self._step(body):
            pass
        return bytes(body)

    def hung_up(self) -> None:
        """Hear that the server has closed the connection."""
        if self._state == "until close":
            self._state = "done"
        if not self.done:
            what = "in the middle of an answer" if self.status else "without an answer"
            raise EngineError(f"the server hung up {what}", hint="see the server's own log")

    def _step(self, body: bytearray) -> bool:
        """Take one piece of the buffer; return whether there may be more."""
        if self._state == "head":
            return self._head()
        if self._state in ("sized", "chunk"):
            return self._count_down(body)
        if self._state == "until close":
            body += self._buffer
            self._buffer.clear()
            return False
        if self._state == "done":
            return False
        line = self._line()
        if line is None:
            return False
        if self._state == "chunk size":
            self._left = _chunk_size(line)
            self._state = "chunk" if self._left else "trailer"
        elif self._state == "chunk end":
            if line:
                raise EngineError("the server's chunks do not end where it says", hint=_NOT_HTTP)
            self._state = "chunk size"
        elif not line:  # an empty one ends the trailer
            self._state = "done"
        return True

    def _head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES or not b"HTTP/".startswith(self._buffer[:5]):
                raise EngineError("this is no HTTP server", hint=_NOT_HTTP)
            return False
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        version, _, rest = first.partition(" ")
        code = rest[:3]
        if not version.startswith("HTTP/1.") or not (code.isascii() and code.isdigit()):
            raise EngineError("this is no HTTP server", hint=_NOT_HTTP)
        if _CONTINUE <= int(code) < _OK:
            return True  # an interim answer: the real one follows
        self.status = int(code)
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        if version == "HTTP/1.0":
            self.headers.setdefault("connection", "close")
        self._frame()
        return True

    def _frame(self) -> None:
        length = self.headers.get("content-length")
        if self.status in _NO_BODY:
            self._state = "done"
        elif "chunked" in self.headers.get("transfer-encoding", "").lower():
            self._state = "chunk size"
        elif length is None:
            self._state = "until close"
            self.headers["connection"] = "close"
        elif length.isascii() and length.isdigit() and len(length) < 16:  # noqa: PLR2004 - digits of a petabyte
            self._left = int(length)
            self._state = "sized" if self._left else "done"
        else:
            raise EngineError("the server gives a Content-Length that is no number", hint=_NOT_HTTP)

    def _count_down(self, body: bytearray) -> bool:
        taken = self._buffer[: self._left]
        body += taken
        del self._buffer[: len(taken)]
        self._left -= len(taken)
        if self._left:
            return False
        self._state = "done" if self._state == "sized" else "chunk end"
        return True

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_SIZE_LINE:
                raise EngineError("the server's chunks have no size", hint=_NOT_HTTP)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not 0 < len(digits) <= _SIZE_DIGITS or not set(digits) <= _HEX:
        raise EngineError("the server's chunks have no size", hint=_NOT_HTTP)
    return int(digits, 16)
