"""A connection to the server: opened, a request sent, bytes received without waiting; and small answers fetched whole.

Variables of the environment that name proxies are not read, and redirects are not followed: what is measured is the
server that was named.
"""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from perjoule.errors import EngineError, HostError, UsageError
from perjoule_backends.openai_server.events import said_in, shown
from perjoule_backends.openai_server.response import Response

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

CONNECT_S = 10.0  # for each address of a name, for sending a request, and for each part of a small answer
_MAX_BODY_BYTES = 4 << 20  # of an answer that is read whole: a list of models, an error
_READ_BYTES = 1 << 16
_PORTS = {"http": 80, "https": 443}
_OK, _FOUND, _BAD = 200, 300, 400
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _TOO_MANY, _BROKEN = 401, 403, 404, 429, 500


class Place:
    """Where the server is. Raises ``UsageError`` for a URL that is none, or holds a password."""

    def __init__(self, url: str) -> None:
        hint = "e.g. --set backend.url=http://127.0.0.1:8000/v1"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise UsageError(f"backend.url {url!r} is no URL: {error}", hint=hint) from error
        if parts.scheme not in _PORTS or not parts.hostname:
            raise UsageError(f"backend.url {url!r} is no URL of a server", hint=hint)
        if parts.username is not None or parts.password is not None:
            raise UsageError("backend.url holds a name or password", hint="name a variable: backend.api_key_env=VAR")
        if parts.query or parts.fragment or not (url.isascii() and url.isprintable() and " " not in url):
            raise UsageError("backend.url is more than an address and a path", hint=hint)
        self.secure, self.host, self.port = parts.scheme == "https", parts.hostname, port or _PORTS[parts.scheme]
        self.netloc, self.path = parts.netloc, parts.path.rstrip("/")

    @property
    def root(self) -> str:
        """The path above ``/v1``, where servers answer what is not of OpenAI's API."""
        return self.path.removesuffix("/v1")


class Connection:
    """One connection; it carries one request at a time, and is opened again where the server has closed it."""

    def __init__(self, place: Place, headers: Mapping[str, str]) -> None:
        self._place = place
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._socket: socket.socket | None = None
        self.fresh = True  # nothing has been asked over it before

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def send(self, method: str, path: str, body: bytes = b"") -> None:
        """Send a request; what is received then does not wait. Raises ``HostError`` where there is no server."""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._place.netloc}\r\nAccept-Encoding: identity\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{self._headers}\r\n"
        )
        self.fresh = self._socket is None or self._was_closed()
        if self.fresh:
            self._open()
        self._send(head.encode("latin-1") + body)

    def receive(self) -> bytes | None:
        """Return what has arrived; None if nothing has, empty if the server has closed the connection."""
        if self._socket is None:
            return b""
        try:
            data = self._socket.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError, TimeoutError):
            return None
        except OSError as error:
            if type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError"):
                return None
            return b""  # reset: the same as closed
        return data

    def close(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # it is gone already
                self._socket.close()
        self._socket = None

    def waits(self, seconds: float | None) -> None:
        """Let ``receive`` wait for so long (None: for ever), and then return None."""
        if self._socket is not None:
            self._socket.settimeout(seconds)

    def _was_closed(self) -> bool:
        """Tell whether the server has hung up since the last answer, as it does after some seconds of quiet."""
        if self.receive() is None:
            return False
        self.close()
        return True

    def _send(self, data: bytes) -> None:
        if self._socket is None:
            raise EngineError("the connection is not open", hint="report this as a bug")
        try:
            self._socket.settimeout(CONNECT_S)
            self._socket.sendall(data)
            self._socket.setblocking(False)
        except OSError as error:
            self.close()
            raise EngineError(f"the server takes no request: {_why(error)}", hint="see the server's own log") from error

    def _open(self) -> None:
        place, last = self._place, OSError("it has no address")
        try:
            found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise HostError(f"the server's name cannot be looked up: {_why(error)}", hint=_START) from error
        for family, kind, protocol, _name, address in found:
            opened = socket.socket(family, kind, protocol)
            try:
                opened.settimeout(CONNECT_S)
                opened.connect(address)
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a request is not to wait for more of it
                self._socket = _context().wrap_socket(opened, server_hostname=place.host) if place.secure else opened
            except OSError as error:  # ssl.SSLError is one
                opened.close()
                last = error
            else:
                return
        raise HostError(f"no connection to the server: {_why(last)}", hint=_START) from last


_START = "start the server, or give its address: --set backend.url=http://127.0.0.1:8000/v1"


def is_here(place: Place) -> bool:
    """Tell whether the server is reached over loopback, so that it runs on this machine."""
    import ipaddress  # noqa: PLC0415 - once a run

    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise HostError(f"the server's name cannot be looked up: {_why(error)}", hint=_START) from error
    return all(ipaddress.ip_address(str(row[4][0]).partition("%")[0]).is_loopback for row in found)


def fetch(
    connection: Connection, method: str, path: str, body: bytes = b"", *, wait_s: float | None = CONNECT_S
) -> tuple[Response, bytes]:
    """Ask and wait for the whole answer. Raises ``EngineError`` for one that is cut short, too large or too late.

    ``wait_s`` is how long the server may say nothing; None: as long as the parent lets this process be silent.
    """
    connection.send(method, path, body)
    connection.waits(wait_s)
    response, content = Response(), bytearray()
    while not response.done:
        data = _received(connection)
        content += response.feed(data)
        if not data:
            response.hung_up()
        if len(content) > _MAX_BODY_BYTES:
            raise EngineError(f"the server's answer is larger than {_MAX_BODY_BYTES} bytes", hint=_START)
    if not response.reusable:
        connection.close()
    return response, bytes(content)


def _received(connection: Connection) -> bytes:
    data = connection.receive()
    if data is None:
        raise EngineError(f"the server said nothing for {CONNECT_S:g} s", hint="see the server's own log")
    return data


def refusal(response: Response, content: bytes, path: str) -> EngineError:
    """Return what an answer that is none of 2xx means, on one line with what to do."""
    status, said = response.status, _said(content)
    if status < _OK or _FOUND <= status < _BAD:
        to = shown(response.headers.get("location", "elsewhere").encode())
        return EngineError(
            f"the server redirects {path} to {to} (HTTP {status}); redirects are not followed",
            hint="give the address itself with --set backend.url=URL",
        )
    if status in (_UNAUTHORIZED, _FORBIDDEN):
        return EngineError(
            f"the server refuses this user (HTTP {status}): {said}",
            hint="put the key into a variable and name it: --set backend.api_key_env=VARIABLE",
        )
    if status == _NOT_FOUND:
        return EngineError(
            f"the server has no {path} (HTTP 404): {said}",
            hint="its address ends in /v1 as a rule; --set backend.endpoint=chat if it only chats",
        )
    if status == _TOO_MANY:
        after = response.headers.get("retry-after")
        wait = f"; it says to come again after {shown(after.encode())} s" if after else ""
        return EngineError(
            f"the server has too many requests (HTTP 429): {said}{wait}", hint="lift its limit, or ask for less at once"
        )
    what = "failed" if status >= _BROKEN else "refuses the request"
    return EngineError(f"the server {what} (HTTP {status}): {said}", hint="see the server's own log")


def read_json(response: Response, content: bytes, path: str) -> Any:
    """Return the object an answer holds. Raises ``EngineError`` for one that is refused or holds none."""
    if response.status != _OK:
        raise refusal(response, content, path)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise EngineError(
            f"this is no OpenAI-compatible server: {path} answers {shown(content)[:80]!r}",
            hint="its address ends in /v1 as a rule, e.g. --set backend.url=http://127.0.0.1:8000/v1",
        )
    return found


def _said(content: bytes) -> str:
    try:
        return said_in(json.loads(content))
    except (ValueError, RecursionError):
        return shown(content)[:80] or "it does not say why"


def _context() -> ssl.SSLContext:
    import ssl  # noqa: PLC0415 - only for https

    return ssl.create_default_context()


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_S:g} s"
    if type(error).__module__ == "ssl":
        return "its certificate is not trusted" if "Cert" in type(error).__name__ else "it does not speak TLS"
    return getattr(error, "strerror", None) or str(error)
