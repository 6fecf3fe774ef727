"""The null backend: a paced engine that computes nothing, to measure what the harness itself costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perjoule.clock import MonotonicClock
from perjoule.errors import InputError, UsageError
from perjoule.protocols import GREEDY, BackendInfo, EngineOptions, Prepared, Sampling
from perjoule.records import ModelFacts
from perjoule_backends.refusals import refuse_length

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perjoule.protocols import Clock, FinishReason, OnToken, Progress

DEFAULT_PACE = {"ttft_s": 0.100, "itl_s": 0.020}
_VOCABULARY = 256
_EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


class ByteTokenizer:
    """UTF-8 bytes as token ids."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace")


class NullEngine:
    """Emits the first token after ``ttft_s`` and one more each ``itl_s``, sleeping in between."""

    def __init__(self, clock: Clock, context_tokens: int, ttft_s: float, itl_s: float, batch: int = 1) -> None:
        self._clock = clock
        self._context_tokens = context_tokens
        self._places = batch
        self._ttft_s = ttft_s
        self._itl_s = itl_s
        self.tokenizer = ByteTokenizer()

    def generate(
        self,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        stop: frozenset[int],
        on_token: OnToken,
        sampling: Sampling = GREEDY,
    ) -> FinishReason:
        room = _room(prompt_ids, self._context_tokens)
        # Names are bound once: after each sleep the caches are cold, and every look-up shows in the harness's share.
        now_ns, sleep, first = self._clock.now_ns, self._clock.sleep, sampling.seed
        itl_ns = int(self._itl_s * 1e9)
        due_ns = now_ns() + int(self._ttft_s * 1e9)
        for index in range(max_new_tokens):
            if index > room:
                return "context"
            pause_ns = due_ns - now_ns()
            if pause_ns > 0:
                sleep(pause_ns / 1e9)
            token = (index + first) % _VOCABULARY
            on_token(token)
            if token in stop:
                return "stop"
            due_ns += itl_ns
        return "length"

    def batch(self) -> NullBatch:
        """Return an empty batch; its sequences say the same tokens as a greedy ``generate``."""
        return NullBatch(self._clock, self._places, self._context_tokens, self._ttft_s, self._itl_s)

    def effective_options(self) -> Mapping[str, Any]:
        return {
            "threads": 1,
            "context_tokens": self._context_tokens,
            "batch": self._places,
            "ttft_s": self._ttft_s,
            "itl_s": self._itl_s,
        }

    def close(self) -> None:
        """Nothing is held."""


class NullBatch:
    """Sequences that advance together: a prefill takes ``ttft_s``, a step ``itl_s`` however many places are taken.

    Tokens count up from 0 in each sequence. What is known of one are the steps of the batch at which it began and at
    which its context is full, so that a step costs one subtraction a place.
    """

    def __init__(self, clock: Clock, places: int, context_tokens: int, ttft_s: float, itl_s: float) -> None:
        self._clock, self._places, self._context_tokens = clock, places, context_tokens
        self._ttft_ns, self._itl_ns = int(ttft_s * 1e9), int(itl_s * 1e9)
        self._steps = 0
        self._began: list[int] = []
        self._full: list[int] = []

    def add(self, prompt_ids: Sequence[int]) -> int:
        """Wait ``ttft_s`` and return the first token. Raises ``InputError`` where no place or context is left."""
        if len(self._began) == self._places:
            raise InputError(
                f"the batch holds {self._places} sequence(s) and all places are taken",
                hint="load the engine with a larger batch, or remove a sequence first",
            )
        room = _room(prompt_ids, self._context_tokens)
        self._wait(self._ttft_ns)
        self._began.append(self._steps)
        self._full.append(self._steps + room)
        return 0

    def step(self) -> Sequence[int]:
        """Wait ``itl_s`` and return the next token by place. Raises ``InputError`` where one's context is full."""
        steps = self._steps
        if steps in self._full:
            raise InputError(
                f"the sequence at place {self._full.index(steps)} fills its context of {self._context_tokens} tokens",
                hint="remove it before the next step, or load with a larger context",
            )
        if self._itl_ns:
            self._wait(self._itl_ns)
        self._steps = steps = steps + 1
        return [(steps - began) % _VOCABULARY for began in self._began]

    def remove(self, place: int) -> None:
        """End the sequence at ``place``; the last one takes its place. Raises ``InputError`` where none is."""
        if not 0 <= place < len(self._began):
            raise InputError(
                f"no sequence has place {place}: the batch holds {len(self._began)}", hint="places are counted from 0"
            )
        for column in (self._began, self._full):
            last = column.pop()
            if place < len(column):
                column[place] = last

    def _wait(self, span_ns: int) -> None:
        """Sleep until ``span_ns`` after the call, by the clock."""
        due_ns = self._clock.now_ns() + span_ns
        while (pause_ns := due_ns - self._clock.now_ns()) > 0:
            self._clock.sleep(pause_ns / 1e9)


class NullBackend:
    """Needs no checkpoint. ``--set backend.ttft_s=`` and ``backend.itl_s=`` change its pace; 0 is unpaced."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()

    def info(self) -> BackendInfo:
        return BackendInfo(
            name="null",
            summary="paced engine that computes nothing; measures the harness",
            devices=("cpu",),
            formats=(),
            quants=("faithful",),
            available=True,
            install="ships with perjoule",
            batching=True,
        )

    def engine_version(self) -> str:
        return "1"

    def prepare(self, ref: str, options: EngineOptions, progress: Progress) -> Prepared:
        _pace(options)
        progress("nothing to prepare", 1.0)
        model = ModelFacts(
            ref=ref,
            name="null",
            family="null",
            vendor="perjoule",
            country="none",
            license="Apache-2.0",
            architecture="none",
            parameters=0,
            weights="synthetic",
            source_format="none",
            source_quantization="none",
            file_sha256=_EMPTY_SHA256,
            file_bytes=0,
            tokenizer_sha256=_EMPTY_SHA256,
            runtime_quantization="none",
            bits_per_weight=0.0,
            weights_bytes=0,
            streamed_bytes_per_token=0,
            kv_bytes_per_position=0,
        )
        return Prepared(folder="", model=model, context_tokens=options.context_tokens)

    def load(self, prepared: Prepared, options: EngineOptions) -> NullEngine:
        return NullEngine(self._clock, prepared.context_tokens, **_pace(options), batch=options.batch)


def _room(prompt_ids: Sequence[int], context_tokens: int) -> int:
    """Return how many tokens fit behind the prompt. Raises ``InputError`` where the prompt itself does not."""
    refuse_length(prompt_ids, context_tokens)
    return context_tokens - len(prompt_ids)


def _pace(options: EngineOptions) -> dict[str, float]:
    if options.batch < 1:
        raise UsageError(f"a batch of {options.batch} sequences", hint="use at least 1")
    pace = dict(DEFAULT_PACE)
    for key, value in options.extra.items():
        if key not in pace:
            raise UsageError(f"backend null has no option {key!r}", hint=f"it has: {', '.join(pace)}")
        if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
            raise UsageError(
                f"backend.{key} must be a number of seconds >= 0, got {value!r}", hint=f"e.g. backend.{key}=0.02"
            )
        pace[key] = float(value)
    return pace
