"""A server with an OpenAI-compatible API that is not there: its answers, delays and faults are a test's choice.

Its model has the 256 bytes as tokens and answers with letters that follow from the prompt, so that every answer can be
told beforehand.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loopback_server import LoopbackServer

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Sequence
    from pathlib import Path

_ENOUGH = 65536
_TLS = b"\x16"  # how a TLS handshake begins
Fault = "bytes | Callable[[FakeServer, socket.socket], None]"


@dataclass
class Behaviour:
    """How the server answers. ``fault`` is sent in place of an answer to a completion, after the first ``sound``."""

    models: Sequence[dict[str, Any]] = ({"id": "tiny", "object": "model", "owned_by": "tests"},)
    more: dict[str, Any] = field(default_factory=dict)  # paths and what they answer
    takes_ids: bool = True
    takes_fields: bool = True
    key: str | None = None
    usage: Callable[[int, int], dict[str, Any] | None] = lambda prompt, count: {
        "prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count,
    }  # fmt: skip
    tokens_a_piece: int = 1
    least: int = 10**6  # tokens after which the model would end, but for ignore_eos
    pause_s: float = 0.0  # before each piece
    closes: bool = False  # the connection, after each answer
    fault: Any = None
    sound: int = 1  # completions before the fault: the first is the one that asks what is understood
    models_answer: bytes | None = None


def letters(prompt: Sequence[int], count: int) -> str:
    """Return what the model says after a prompt of these ids."""
    return "".join(chr(97 + (sum(prompt) + 7 * i * (1 + len(prompt))) % 26) for i in range(count))


class FakeServer(LoopbackServer):
    patience_s = 10.0

    def __init__(self, behaviour: Behaviour | None = None, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.behaviour = behaviour or Behaviour()
        self._lock = threading.Lock()
        self.asked: list[dict[str, Any]] = []  # bodies of completions
        self.inside, self.most_inside, self.hung_up = 0, 0, 0

    @property
    def url(self) -> str:
        return f"{self.address}/v1"

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(0.2)
        while (request := self._request(connection)) is not None:
            self._answer(connection, *request)
            if self.behaviour.closes:
                return

    def _left(self) -> None:
        self.hung_up += 1

    def _request(self, connection: socket.socket) -> tuple[str, dict[str, str], dict[str, Any]] | None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more(connection)
            if not data:
                return None
            if data[:1] == _TLS:
                connection.sendall(status(400, "a TLS handshake on a plain port"))
                return None
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
        while len(body) < int(headers.get("content-length", "0")):
            body += self._more(connection)
        return first.split()[1], headers, json.loads(body or b"{}")

    def _more(self, connection: socket.socket) -> bytes:
        while not self._closing.is_set():
            try:
                return connection.recv(_ENOUGH)
            except TimeoutError:
                continue
        return b""

    def _answer(
        self, connection: socket.socket, path: str, headers: dict[str, str], body: dict[str, Any]
    ) -> None:  # fmt: skip
        wanted = self.behaviour
        if wanted.key is not None and headers.get("authorization") != f"Bearer {wanted.key}":
            connection.sendall(status(401, {"error": {"message": "Incorrect API key provided"}}))
        elif path == "/v1/models":
            connection.sendall(wanted.models_answer or status(200, {"object": "list", "data": list(wanted.models)}))
        elif path in wanted.more:
            connection.sendall(status(200, wanted.more[path]))
        elif path in ("/v1/completions", "/v1/chat/completions"):
            with self._lock:
                self.asked.append(body)
                self.inside += 1
                self.most_inside = max(self.most_inside, self.inside)
            try:
                self._complete(connection, body, chat="chat" in path)
            finally:
                with self._lock:
                    self.inside -= 1
        else:
            connection.sendall(status(404, {"detail": "Not Found"}))

    def _complete(self, connection: socket.socket, body: dict[str, Any], *, chat: bool) -> None:
        wanted = self.behaviour
        if wanted.fault is not None and len(self.asked) > wanted.sound:
            if callable(wanted.fault):
                wanted.fault(self, connection)
            else:
                connection.sendall(wanted.fault)
            return
        prompt = body["messages"][0]["content"] if chat else body["prompt"]
        if isinstance(prompt, list) and not wanted.takes_ids:
            connection.sendall(status(422, {"detail": [{"msg": "Input should be a valid string"}]}))
            return
        if "ignore_eos" in body and not wanted.takes_fields:
            connection.sendall(status(400, {"error": {"message": "Unrecognized request argument: ignore_eos"}}))
            return
        ids = prompt if isinstance(prompt, list) else list(prompt.encode())
        count = body["max_tokens"] if body.get("ignore_eos") else min(body["max_tokens"], wanted.least)
        connection.sendall(HEAD)
        text, size = letters(ids, count), wanted.tokens_a_piece
        for start in range(0, count, size):
            if wanted.pause_s and self.wait(wanted.pause_s):
                return
            piece = text[start : start + size]
            end = ("length" if count == body["max_tokens"] else "stop") if start + size >= count else None
            connection.sendall(chunk(event(piece, end, chat=chat)))
        usage = wanted.usage(len(ids), count) if body.get("stream_options") else None
        if usage is not None:
            connection.sendall(chunk(f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n"))
        connection.sendall(chunk("data: [DONE]\n\n") + b"0\r\n\r\n")


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


def status(code: int, body: Any, *, more: str = "") -> bytes:
    """Return an answer; text goes out as it is, anything else as JSON."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return f"HTTP/1.1 {code} Is\r\nContent-Length: {len(data)}\r\n{more}\r\n".encode() + data


def event(text: str, end: str | None = None, *, chat: bool = False) -> str:
    said = {"delta": {"content": text}} if chat else {"text": text}
    return f"data: {json.dumps({'choices': [{'index': 0, **said, 'finish_reason': end}]})}\n\n"


def chunk(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return b"%x\r\n%s\r\n" % (len(data), data)


def write_byte_tokenizer(folder: Path) -> Path:
    """Write a tokenizer.json whose tokens are the 256 bytes, by their number; return its path."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415

    # the printable stand-ins of GPT-2's byte-level BPE: bytes that print stand for themselves, others from 256 on
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    signs = {b: chr(b if b in plain else next(others)) for b in range(256)}
    tokenizer = Tokenizer(models.BPE(vocab={sign: b for b, sign in signs.items()}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    path = folder / "tokenizer.json"
    path.write_text(tokenizer.to_str(), encoding="utf-8")
    return path
