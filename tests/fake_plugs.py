"""Plugs and BMCs that are not there: a local server whose answers, delays and faults a test chooses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from loopback_server import LoopbackServer

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

Answer = "bytes | Callable[[socket.socket], None]"
_ENOUGH = 4096


class FakeDevice(LoopbackServer):
    """Answers each GET with what ``answer(path, headers)`` returns: bytes to send, or a function that misbehaves."""

    def __init__(self, answer: Callable[[str, dict[str, str]], Any], tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self._answer = answer
        self.paths: list[str] = []

    def _talk(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (data := connection.recv(_ENOUGH)):
            head += data
        first, *rest = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in rest if ": " in line)
        self.paths.append(first.split()[1])
        answer = self._answer(self.paths[-1], headers)
        if callable(answer):
            answer(connection)
        else:
            connection.sendall(answer)


def ok(body: object, *, more: str = "") -> bytes:
    """Return an answer 200; bytes and text go out as they are, anything else as JSON."""
    data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n{more}\r\n".encode() + data


def status(code: int, *, more: str = "") -> bytes:
    return f"HTTP/1.1 {code} No\r\nContent-Length: 0\r\n{more}\r\n".encode()


def chunked(body: object) -> bytes:
    data = json.dumps(body).encode()
    parts = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in (data[:7], data[7:]))
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\n\r\n"


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b" " * 65536)


def endless_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-Filler: " + b"a" * 1000 + b"\r\n")


def lost(connection: socket.socket) -> None:
    connection.close()


def shelly(watts: object, total_wh: object, **more: object) -> bytes:
    """Return what a Shelly Plus Plug S answers to Switch.GetStatus."""
    return ok({
        "id": 0, "source": "init", "output": True, "apower": watts, "voltage": 231.7, "current": 0.5,
        "aenergy": {"total": total_wh, "by_minute": [0.0, 0.0, 0.0], "minute_ts": 1680536525},
        "temperature": {"tC": 44.4, "tF": 112.0}, **more,
    })  # fmt: skip


def tasmota(watts: object, total_kwh: object) -> bytes:
    """Return what a Tasmota plug answers to Status 8."""
    energy = {
        "TotalStartTime": "2019-08-18T11:07:55",
        "Total": total_kwh,
        "Today": 0.003,
        "Power": watts,
        "Voltage": 239,
    }
    return ok({"StatusSNS": {"Time": "2019-09-06T20:06:19", "ENERGY": energy}})


def redfish_chassis(
    number: int, *, inside: int | None = None, newer: bool = True, older: bool = True
) -> dict[str, Any]:
    """Return a member of the Chassis collection with links to its power resources."""
    path = f"/redfish/v1/Chassis/{number}"
    found: dict[str, Any] = {"@odata.id": path, "Id": str(number), "Links": {}}
    if newer:
        found["EnvironmentMetrics"] = {"@odata.id": f"{path}/EnvironmentMetrics"}
    if older:
        found["Power"] = {"@odata.id": f"{path}/Power"}
    if inside is not None:
        found["Links"]["ContainedBy"] = {"@odata.id": f"/redfish/v1/Chassis/{inside}"}
    return found
