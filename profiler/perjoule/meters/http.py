"""One bounded HTTP GET of a JSON object, for meters behind a network.

The time, the size and the way are limited: a device that drips bytes, answers for ever or points elsewhere costs one
poll, not the run. Variables of the environment that name proxies are not read. Failures come back as a reason that
names neither host nor address, because reasons end up in results.
"""

from __future__ import annotations

import io
import json
import math
from typing import TYPE_CHECKING, Any, NoReturn, cast
from urllib.parse import SplitResult, urljoin, urlsplit

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from perjoule.protocols import Clock

MAX_BYTES = 64 * 1024  # of the whole answer with its headers; a plug's status is under 1 KiB, a BMC's under 32 KiB
MAX_REDIRECTS = 2  # a BMC may add the slash that a path lacks
_PORTS = {"http": 80, "https": 443}
_NS = 1_000_000_000
_REDIRECTS = (301, 302, 303, 307, 308)


class _FetchError(Exception):
    """Why there is no answer, in words fit for a result."""


def get_json(
    url: str, *, timeout_s: float, clock: Clock, headers: Mapping[str, str] | None = None
) -> dict[str, Any] | str:
    """Return the JSON object behind ``url``, or the reason why there is none.

    ``timeout_s`` holds for everything together: connecting, redirects, reading. Resolving a name is the system's and
    cannot be cut short; give an address where names are slow.
    """
    deadline_ns = clock.now_ns() + int(timeout_s * _NS)
    try:
        for _ in range(MAX_REDIRECTS + 1):
            found = _get_once(url, deadline_ns, clock, headers or {})
            if isinstance(found, bytes):
                return _object(found)
            url = _same_place(url, found)
    except _FetchError as error:
        return str(error)
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except OSError as error:
        return _why(error)
    return "it redirects in circles"


def number(value: object, name: str, *, largest: float) -> float | str:
    """Return ``value`` as a float in 0..``largest``, or the reason why it is none; text and booleans are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{name} is {_kind(value)}, not a number"
    if value < 0:
        return f"{name} is negative"
    if value > largest or not math.isfinite(value):  # comparing first: a giant integer has no float
        return f"{name} is above {largest:g}"
    return float(value)


def _kind(value: object) -> str:
    names = {bool: "a truth value", str: "text", dict: "an object", list: "a list"}
    return "missing" if value is None else names.get(type(value), "something else")


def _get_once(url: str, deadline_ns: int, clock: Clock, headers: Mapping[str, str]) -> bytes | str:
    """Return the body of an answer 200, or the place it redirects to."""
    import http.client  # noqa: PLC0415 - only for meters that are behind a network

    place = urlsplit(url)
    request = _request(place, headers)
    with _connect(place, deadline_ns, clock) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(cast("socket.socket", _Answer(connection, deadline_ns, clock)))
        try:
            response.begin()
            if response.status in _REDIRECTS:
                return response.getheader("Location") or ""
            if response.status != http.client.OK:
                raise _FetchError(_status(response.status))
            return response.read()
        except (http.client.HTTPException, ValueError) as error:
            raise _FetchError(f"not an HTTP answer ({type(error).__name__})") from error
        finally:
            response.close()


def _request(place: SplitResult, headers: Mapping[str, str]) -> bytes:
    path = (place.path or "/") + (f"?{place.query}" if place.query else "")
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {place.netloc}",
        "Accept: application/json",
        "Accept-Encoding: identity",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    if " " in path or any(c < " " or c > "~" for line in lines for c in line):
        raise _FetchError("its address has characters that a request cannot hold")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _connect(place: SplitResult, deadline_ns: int, clock: Clock) -> socket.socket:
    import socket  # noqa: PLC0415 - as above
    import ssl  # noqa: PLC0415 - as above

    host = place.hostname or ""
    try:
        found = socket.getaddrinfo(host, place.port or _PORTS[place.scheme], type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise _FetchError("its name cannot be looked up") from error
    last = OSError("it has no address")
    for family, kind, protocol, _name, address in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(_left_s(deadline_ns, clock))
            connection.connect(address)
            if place.scheme == "https":
                connection.settimeout(_left_s(deadline_ns, clock))
                return ssl.create_default_context().wrap_socket(connection, server_hostname=host)
        except OSError as error:  # ssl.SSLError is one
            connection.close()
            last = error
        else:
            return connection
    raise last


def _left_s(deadline_ns: int, clock: Clock) -> float:
    left_ns = deadline_ns - clock.now_ns()
    if left_ns <= 0:
        raise TimeoutError
    return left_ns / _NS


class _Answer(io.RawIOBase):
    """What a socket receives, up to a deadline and a size; ``makefile`` is all that HTTPResponse asks of a socket."""

    def __init__(self, connection: socket.socket, deadline_ns: int, clock: Clock) -> None:
        self._connection, self._deadline_ns, self._clock = connection, deadline_ns, clock
        self._left = MAX_BYTES

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left == 0:
            raise _FetchError(f"the answer is larger than {MAX_BYTES} bytes")
        self._connection.settimeout(_left_s(self._deadline_ns, self._clock))
        got = self._connection.recv_into(memoryview(buffer)[: self._left])
        self._left -= got
        return got


def _same_place(url: str, target: str) -> str:
    joined = urljoin(url, target)
    old, new = urlsplit(url), urlsplit(joined)
    if (old.scheme, old.netloc) != (new.scheme, new.netloc):
        raise _FetchError("it redirects to another place, which is not followed")
    return joined


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _FetchError("the answer is not JSON") from error
    if not isinstance(found, dict):
        raise _FetchError("the answer is not a JSON object")
    return found


def _refuse(_name: str) -> NoReturn:
    raise ValueError  # NaN and infinities are not JSON


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError  # which of two values is meant cannot be known
    return found


def _status(status: int) -> str:
    why = {401: "it asks for a password", 403: "it refuses this user", 404: "it does not know this address"}
    return f"{why.get(status, 'it answers an error')} (HTTP {status})"


def _why(error: OSError) -> str:
    """Name an error without its text where that would hold a host's name."""
    if type(error).__module__ == "ssl":
        return "its certificate is not trusted" if "Cert" in type(error).__name__ else "no TLS connection"
    return error.strerror or "no connection"
