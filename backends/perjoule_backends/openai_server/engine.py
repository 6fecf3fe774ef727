"""The engine on a server: requests in flight over connections of their own, received and stamped in one thread.

One thread and a selector, in place of a thread each: a stamp then waits for the pieces that came before it, some ten
microseconds each, and not for another thread to let go of the interpreter.
"""

from __future__ import annotations

import secrets
import selectors
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from perjoule.errors import EngineError, InputError
from perjoule.protocols import GREEDY, UNKNOWN_TOKEN, Sampling
from perjoule.records import UNSET, ServerCounts
from perjoule_backends.openai_server.answer import Answer
from perjoule_backends.openai_server.connection import Connection, fetch, refusal
from perjoule_backends.openai_server.response import Response
from perjoule_backends.refusals import refuse_length

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perjoule.protocols import Clock, Delivery, FinishReason, OnToken, Tokenizer
    from perjoule_backends.openai_server.settings import Settings

_COUNTED = (
    "requests_count", "usage_missing_count", "usage_differs_count", "prompt_differs_count", "pieces_differ_count",
    "pieces_count", "read_together_count",
)  # fmt: skip
_OK = 200
_NOT_UNDERSTOOD = (
    400,
    422,
    500,
)  # to a field of another kind than they know; llama-cpp-python calls that its own error
_SHORT = 16  # tokens of the request that finds out what the server understands
_MOST_REFUSAL_BYTES = 1 << 14
_PIECES_KEPT = 1 << 16  # texts of pieces whose token is remembered


class Dialect(NamedTuple):
    """What the server understands: prompts as token ids, and fields beyond OpenAI's."""

    ids: bool
    fields: bool


# The best first. Token ids, so that its tokenizer can do nothing else than ours; then the fields, for a fixed length.
_DIALECTS = (Dialect(ids=True, fields=True), Dialect(ids=False, fields=True),
             Dialect(ids=True, fields=False), Dialect(ids=False, fields=False))  # fmt: skip


class _Stream:
    """A request in flight."""

    __slots__ = ("answer", "body", "connection", "refusal", "response", "stop")

    def __init__(self, connection: Connection, answer: Answer, body: bytes, stop: frozenset[int]) -> None:
        self.connection, self.answer, self.body, self.stop = connection, answer, body, stop
        self.response = Response()
        self.refusal = bytearray()


class _PlainText:
    """A tokenizer that renders no chat template: a chat endpoint puts its own around every prompt."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.encode, self.decode = tokenizer.encode, tokenizer.decode


class ServerEngine:
    """Asks a server. Raises ``EngineError`` for whatever it does that is no answer, in ``generate`` and ``wait``."""

    def __init__(
        self, settings: Settings, model: str, tokenizer: Tokenizer, clock: Clock, *, context_tokens: int, batch: int,
        ignores_eos: bool = False,
    ) -> None:  # fmt: skip
        chat = settings.endpoint == "chat"
        self.tokenizer = _PlainText(tokenizer) if chat else tokenizer
        self._settings, self._model, self._clock = settings, model, clock
        self._place, self._headers = settings.place, settings.headers
        self._context_tokens, self._batch, self._ignores_eos = context_tokens, batch, ignores_eos
        self._path = f"{self._place.path}/{'chat/completions' if chat else 'completions'}"
        self._dialect = Dialect(ids=not chat, fields=True)
        self._salt = secrets.token_hex(8)
        self._selector = selectors.DefaultSelector()
        self._idle: list[Connection] = []
        self._streams: dict[int, _Stream] = {}
        self._answers: dict[int, Answer] = {}
        self._next = 0
        self._last = -1  # the ticket of the last ``generate``, and what it came to once it was counted
        self._latest: Delivery | None = None
        self._ids: dict[str, int] = {}
        self._counts = dict.fromkeys(_COUNTED, 0)
        self._most_cached = -1

    def negotiate(self) -> None:
        """Find out, with a short request each, what the server understands. Raises ``EngineError`` if it is nothing."""
        ids = self.tokenizer.encode("The quick brown fox jumps over the lazy dog")[:_SHORT]
        refused = EngineError("nothing was asked", hint="report this as a bug")
        for dialect in _DIALECTS:
            if dialect.ids and self._settings.endpoint == "chat":
                continue
            self._dialect = dialect
            error = self._ask_shortly(ids)
            if error is None:
                return
            refused = error
        raise EngineError(refused.message, hint=refused.hint)

    def generate(
        self,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        stop: frozenset[int],
        on_token: OnToken,
        sampling: Sampling = GREEDY,
    ) -> FinishReason:
        """Ask, and wait for the answer. The finish reason is that of the limit until the tokens are counted."""
        ticket = self._submit(prompt_ids, max_new_tokens, stop, on_token, sampling)
        try:
            while ticket not in self.wait(None):
                pass
        except BaseException:
            self.abandon()
            raise
        self._answers.pop(self._last, None)  # nobody asked what it came to
        self._last, self._latest = ticket, None
        answer = self._answers[ticket]
        return "stop" if answer.finish_reason == "stop" else answer.reason(answer.wanted)

    def submit(self, prompt_ids: Sequence[int], max_new_tokens: int, on_token: OnToken) -> int:
        """Send a request. Raises ``InputError`` where as many as were agreed on are in flight."""
        if len(self._streams) >= self._batch:
            raise InputError(f"{self._batch} request(s) are in flight", hint="load the engine with a larger batch")
        return self._submit(prompt_ids, max_new_tokens, frozenset(), on_token, GREEDY)

    def wait(self, seconds: float | None) -> list[int]:
        """Receive until a request has ended or the time is over; return the tickets of those that have."""
        now_ns = self._clock.now_ns
        due_ns = None if seconds is None else now_ns() + int(seconds * 1e9)
        while True:
            left_s = None if due_ns is None else max(0.0, (due_ns - now_ns()) / 1e9)
            ready = self._selector.select(left_s)
            ended = [key.data for key, _events in ready if self._receive(key.data)]
            if ended or (due_ns is not None and now_ns() >= due_ns):
                return ended

    def delivery(self, ticket: int | None = None) -> Delivery:
        """Count an answer: that of the ticket, or of the last ``generate``. Not for windows: it reads all the text."""
        if ticket is None and self._latest is not None:
            return self._latest
        answer = self._answers.pop(self._last if ticket is None else ticket)
        counted = answer.count(self.tokenizer)
        counts = self._counts
        counts["requests_count"] += 1
        counts["pieces_count"] += len(answer.texts)
        counts["read_together_count"] += answer.read_together
        counts["usage_missing_count"] += counted.usage_missing
        counts["usage_differs_count"] += counted.usage_differs
        counts["prompt_differs_count"] += counted.prompt_differs
        counts["pieces_differ_count"] += counted.pieces_differ
        self._most_cached = max(self._most_cached, counted.cached_tokens)
        if ticket is None:
            self._latest = counted.delivery
        return counted.delivery

    def counts(self) -> ServerCounts:
        cached = self._most_cached if self._most_cached >= 0 else None
        return ServerCounts(
            **self._counts,
            most_cached_tokens=cached,
            most_cached_tokens_missing=UNSET if cached is not None else "the server does not say it",
        )

    def abandon(self) -> None:
        """Hang up on every request in flight: the server sees it, and stops."""
        for ticket in list(self._streams):
            self._drop(ticket).connection.close()

    def effective_options(self) -> Mapping[str, Any]:
        return {
            "threads": None,
            "context_tokens": self._context_tokens,
            "batch": self._batch,
            "endpoint": self._settings.endpoint,
            "prompt": "token ids" if self._dialect.ids else "text",
            "fields_beyond_openai": self._dialect.fields,
        }

    def close(self) -> None:
        self.abandon()
        while self._idle:
            self._idle.pop().close()
        self._selector.close()

    def _submit(
        self, ids: Sequence[int], count: int, stop: frozenset[int], on_token: OnToken, sampling: Sampling
    ) -> int:
        refuse_length(ids, self._context_tokens)
        room = self._context_tokens - len(ids) + 1  # the last token needs no place any more
        wanted, reason = (count, "length") if count <= room else (room, "context")
        answer = Answer(len(ids), wanted, reason, on_token)  # type: ignore[arg-type]  # both are of the literal
        connection = self._idle.pop() if self._idle else Connection(self._place, self._headers)
        stream = _Stream(connection, answer, self._body(ids, wanted, stop, sampling), stop)
        connection.send("POST", self._path, stream.body)
        ticket, self._next = self._next, self._next + 1
        self._streams[ticket] = stream
        self._selector.register(connection, selectors.EVENT_READ, ticket)
        return ticket

    def _body(self, ids: Sequence[int], count: int, stop: frozenset[int], sampling: Sampling) -> bytes:
        text = "" if self._dialect.ids else self.tokenizer.decode(ids)
        body: dict[str, Any] = {
            "model": self._model, "max_tokens": count, "temperature": sampling.temperature, "stream": True,
        }  # fmt: skip
        if self._settings.endpoint == "chat":
            body["messages"] = [{"role": "user", "content": text}]
        else:
            body["prompt"] = list(ids) if self._dialect.ids else text
        if sampling.temperature:
            body["seed"] = sampling.seed
        if self._dialect.fields:
            body["stream_options"] = {"include_usage": True}
            # no prefix of an earlier request is to be found cached: by llama.cpp's server, by vLLM
            body |= {"cache_prompt": False, "cache_salt": self._salt}
            if not stop:
                # one that has ignore_eos is spared min_tokens: some look at every token's logits for it
                body |= {"ignore_eos": True} if self._ignores_eos else {"ignore_eos": True, "min_tokens": count}
        return msgspec.json.encode(body)

    def _receive(self, ticket: int) -> bool:
        """Take what has arrived for one request; return whether it has ended."""
        stream = self._streams[ticket]
        try:
            while (data := stream.connection.receive()) is not None:
                if not data and self._asked_again(ticket):
                    return False
                if self._take(stream, data):
                    break
            else:
                return False
        except BaseException:
            self._drop(ticket).connection.close()
            raise
        self._drop(ticket)
        self._answers[ticket] = stream.answer
        if stream.response.reusable and not stream.stop:
            self._idle.append(stream.connection)
        else:
            stream.connection.close()
        stream.answer.refuse_empty()
        return True

    def _take(self, stream: _Stream, data: bytes) -> bool:
        response, answer = stream.response, stream.answer
        body = response.feed(data)
        if response.status and response.status != _OK:
            stream.refusal += body
            if response.done or len(stream.refusal) > _MOST_REFUSAL_BYTES or not data:
                raise refusal(response, bytes(stream.refusal), self._path)
            return False
        if body:
            if not answer.texts and not answer.usage:
                _refuse_other_content(response, body)
            answer.feed(body, self._token_of, stream.stop)
        if not data:
            response.hung_up()
        if response.done:
            answer.ended()
        return response.done or (answer.done and bool(stream.stop))

    def _asked_again(self, ticket: int) -> bool:
        """Ask once more over a new connection where one that was kept open turns out to be closed."""
        stream = self._streams[ticket]
        if stream.connection.fresh or stream.response.status:
            return False
        self._selector.unregister(stream.connection)
        stream.connection.close()
        stream.response = Response()
        stream.connection.send("POST", self._path, stream.body)
        self._selector.register(stream.connection, selectors.EVENT_READ, ticket)
        return True

    def _drop(self, ticket: int) -> _Stream:
        stream = self._streams.pop(ticket)
        self._selector.unregister(stream.connection)
        return stream

    def _token_of(self, text: str) -> int:
        """Return the id of the token that a piece is; ``UNKNOWN_TOKEN`` for one that is none. Remembered: it costs."""
        known = self._ids.get(text)
        if known is None:
            ids = self.tokenizer.encode(text)
            known = ids[0] if len(ids) == 1 else UNKNOWN_TOKEN
            if len(self._ids) < _PIECES_KEPT:
                self._ids[text] = known
        return known

    def _ask_shortly(self, ids: Sequence[int]) -> EngineError | None:
        """Ask for one token; return the refusal of a server that does not take a request in this dialect."""
        connection = Connection(self._place, self._headers)
        try:
            body = self._body(ids, 1, frozenset(), GREEDY)
            response, content = fetch(connection, "POST", self._path, body, wait_s=None)
        finally:
            connection.close()
        if response.status == _OK:
            return None
        error = refusal(response, content, self._path)
        if response.status not in _NOT_UNDERSTOOD:
            raise error
        return error


def _refuse_other_content(response: Response, body: bytes) -> None:
    kind = response.headers.get("content-type", "text/event-stream").partition(";")[0].strip().lower()
    if kind != "text/event-stream":
        raise EngineError(
            f"the server does not stream its answer: it sends {kind or 'something'} that begins {body[:40]!r}",
            hint="perjoule needs a server that streams (stream: true)",
        )
