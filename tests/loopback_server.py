"""A server on loopback that a test opens and closes: connections, TLS and threads; what it says is a subclass's."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl

_JOIN_S = 5


class LoopbackServer:
    """Listens once it is entered. A connection has a thread of its own, in which ``_talk`` answers."""

    patience_s = 5.0  # of a connection that says nothing

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self.connections = 0

    @property
    def address(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(_JOIN_S)

    def wait(self, seconds: float) -> bool:
        """Let time pass as a slow server would; returns True where the test is over."""
        return self._closing.wait(seconds)

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _peer = self._listener.accept()
            except OSError:
                return  # closed by the test
            self.connections += 1
            thread = threading.Thread(target=self._one, args=(connection,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _one(self, connection: socket.socket) -> None:
        connection.settimeout(self.patience_s)
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                self._talk(connection)
        except OSError:
            self._left()
        finally:
            connection.close()

    def _talk(self, connection: socket.socket) -> None:
        """Read what is asked and answer it, as often as the protocol has it."""
        raise NotImplementedError

    def _left(self) -> None:
        """The client has gone in the middle, which is what its limits are for."""
