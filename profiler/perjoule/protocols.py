"""The contracts between perjoule and its plug-ins: backends (engines) and meters (sensors)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import msgspec

from perjoule.records import MeterFact, MeterRefusal, ModelFacts, Record, ServerCounts

if TYPE_CHECKING:
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray

OnToken = Callable[[int], None]
Progress = Callable[[str, float | None], None]  # what is going on, and the share done (None: unknown)
FinishReason = Literal["length", "stop", "context"]
Whereabouts = Literal["here", "elsewhere"]
UNKNOWN_TOKEN = -1  # the id of a token that came as text, where nobody can say which it was


@runtime_checkable
class Clock(Protocol):
    def now_ns(self) -> int: ...
    def cpu_ns(self) -> int: ...
    def sleep(self, seconds: float) -> None: ...
    def utc_now(self) -> datetime: ...


class Tokenizer(Protocol):
    """Text to ids and back; no special tokens are added by ``encode``."""

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


@runtime_checkable
class ChatTokenizer(Protocol):
    """Optional capability of a tokenizer: conversations as the model was trained to read them."""

    def chat_ids(
        self, conversations: Sequence[Sequence[Mapping[str, str]]], *, thinking: bool | None = None
    ) -> list[list[int]]:
        """Return the ids of each conversation, a list of messages with ``role`` and ``content``, up to the answer.

        ``thinking`` sets the template's switch for it; None leaves it as it ships. Raises ``InputError`` where the
        checkpoint carries no chat template, or one without such a switch that is to be set.
        """


@runtime_checkable
class BeginningTokenizer(Protocol):
    """Optional capability of a tokenizer: the token that its model expects before a text."""

    @property
    def beginning_id(self) -> int | None:
        """Return the id that the checkpoint puts before every text, or None where it puts none."""


class Sampling(Record, frozen=True, kw_only=True):
    """``temperature`` 0 is greedy (ties to the lowest id); otherwise seeded, reproducible sampling."""

    temperature: float = 0.0
    seed: int = 0


GREEDY = Sampling()


class EngineOptions(Record, frozen=True, kw_only=True):
    """What the user asked of an engine. ``extra`` holds ``--set backend.key=value``, checked by the backend."""

    device: str = "cpu"
    threads: int = 1
    quant: str = "faithful"
    context_tokens: int = 2048
    batch: int = 1  # sequences that the engine holds at a time; more than one needs a ``BatchEngine``
    extra: dict[str, Any] = msgspec.field(default_factory=dict)


class BackendInfo(Record, frozen=True, kw_only=True):
    """What a backend can do, said without importing its engine."""

    name: str
    summary: str
    devices: tuple[str, ...]
    formats: tuple[str, ...]  # "gguf", ...; empty: needs no checkpoint
    quants: tuple[str, ...]
    available: bool
    install: str  # the exact command that makes it available
    batching: bool = False  # its engines are ``BatchEngine``
    queues: bool = True  # requests may wait for it while it works; false: one caller at a time, no load generator
    more_devices: str = ""  # which devices another build of it would add, and the command that installs that


class Prepared(Record, frozen=True, kw_only=True):
    """A model ready to load: ``folder`` holds what the engine reads, ``model`` what is known of it.

    ``stop_ids`` end a generation in task scenarios; performance scenarios ignore them. ``server``: the model runs in a
    server that was there before, on this machine or elsewhere, and its engine is a ``RemoteEngine``.
    """

    folder: str
    model: ModelFacts
    context_tokens: int
    stop_ids: tuple[int, ...] = ()
    server: Whereabouts | None = None

    @property
    def path(self) -> Path:
        return Path(self.folder)


class Engine(Protocol):
    """A loaded model. One request at a time; used by one thread."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    def generate(
        self,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        stop: frozenset[int],
        on_token: OnToken,
        sampling: Sampling = GREEDY,
    ) -> FinishReason:
        """Call ``on_token(id)`` as each token exists; at least one. A stop token is reported, then ends it."""

    def effective_options(self) -> Mapping[str, Any]:
        """Return the threads, context, precision and provider really in use."""

    def close(self) -> None: ...


class Batch(Protocol):
    """Sequences that advance together. They have places 0, 1, ... in the order in which they were added."""

    def add(self, prompt_ids: Sequence[int]) -> int:
        """Prefill one more sequence at the next place; return its first token. ``InputError`` beyond capacity."""

    def step(self) -> Sequence[int]:
        """Return the next token of every sequence, by place."""

    def remove(self, place: int) -> None:
        """End the sequence at ``place``; the last one takes its place."""


@runtime_checkable
class BatchEngine(Protocol):
    """Optional capability of an engine: ``options.batch`` sequences at a time, joining and leaving as they come."""

    def batch(self) -> Batch:
        """Return an empty batch; one that was returned before is no longer used. Greedy."""


class Delivery(Record, frozen=True, kw_only=True):
    """What an answer in pieces of text came to. ``untimed``: why they are no tokens; empty if each is one."""

    finish_reason: FinishReason
    output_tokens: int
    untimed: str = ""


@runtime_checkable
class RemoteEngine(Protocol):
    """Optional capability of an engine on a server, which schedules requests by itself: many are in flight at a time.

    One thread uses it. ``on_token`` is called inside ``wait`` as each piece of text arrives, with the id of its token
    or ``UNKNOWN_TOKEN``; how many tokens the pieces were is known afterwards.
    """

    def submit(self, prompt_ids: Sequence[int], max_new_tokens: int, on_token: OnToken) -> int:
        """Send a request, and return its ticket at once. ``InputError`` beyond ``options.batch`` in flight. Greedy."""

    def wait(self, seconds: float | None) -> Sequence[int]:
        """Receive until a request has ended, or for so long; return the tickets of those that have ended."""

    def delivery(self, ticket: int | None = None) -> Delivery:
        """Count an answer, once: that of a ticket, or of the last ``generate``. It takes a while: not for windows."""

    def abandon(self) -> None:
        """Hang up on every request in flight."""

    def counts(self) -> ServerCounts:
        """Return what the server said of its answers so far, against what came."""


@runtime_checkable
class LogitsEngine(Protocol):
    """Optional capability of an engine, for quality."""

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return logits of every position, shape (len(ids), vocabulary)."""


class Backend(Protocol):
    def info(self) -> BackendInfo: ...

    def prepare(self, ref: str, options: EngineOptions, progress: Progress) -> Prepared:
        """Resolve, convert and cache the model. Runs in a child process; may take minutes, may use memory."""

    def load(self, prepared: Prepared, options: EngineOptions) -> Engine: ...

    def engine_version(self) -> str: ...


@runtime_checkable
class ScoringBackend(Protocol):
    """Optional capability of a backend: what gives logits, without the memory of what generates."""

    def scorer(self, prepared: Prepared, options: EngineOptions) -> LogitsEngine: ...


class Count(Record, frozen=True, kw_only=True):
    """A raw reading: the integer count of a domain, and when the reading began and ended (monotonic ns).

    For a gauge ``count`` is its integral so far (raw unit x ns), ``polls`` how often it has been looked at, and
    ``variance`` what is unknown of the integral from not looking in between, in counts squared; both grow.
    """

    domain: str
    count: int
    before_ns: int
    after_ns: int
    polls: int | None = None
    variance: float = 0.0


class Probe(Record, frozen=True, kw_only=True):
    domains: tuple[MeterFact, ...] = ()
    refusals: tuple[MeterRefusal, ...] = ()


class Meter(Protocol):
    """One kind of sensor. Between ``open`` and ``close`` ``read`` costs microseconds and never blocks long.

    A meter that takes an argument (``csv:FILE``) is built with it as its only parameter, others with none.
    """

    def probe(self) -> Probe: ...
    def open(self) -> None: ...
    def read(self) -> Sequence[Count | MeterRefusal]:
        """Return counts of every domain; one that failed comes as a refusal with the reason, never as 0."""

    def close(self) -> None: ...


class Load(Record, frozen=True, kw_only=True):
    """How busy the machine was between two instants (UTC seconds): ``busy`` is CPU seconds per second."""

    start_utc_s: float
    end_utc_s: float
    busy: float


@runtime_checkable
class NotingMeter(Protocol):
    """Optional capability of a meter: what it noticed and a reader of the result should know, a line each."""

    def notes(self) -> Sequence[str]: ...


@runtime_checkable
class LogMeter(Protocol):
    """Optional capability of a meter whose readings are joined by wall-clock time after the run (a lab meter's log)."""

    def counts_at(self, utc_s: Sequence[float], loads: Sequence[Load]) -> Sequence[Sequence[Count | MeterRefusal]]:
        """Return, for each instant, the integral of every domain up to it; ``loads`` serve to find a clock offset.

        Instants come in pairs, start and end of a window: a hole in the log refuses the windows it lies in.
        """
