"""The null backend: a paced engine that computes nothing, to measure what the harness itself costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perjoule.clock import MonotonicClock
from perjoule.errors import UsageError
from perjoule.protocols import GREEDY, BackendInfo, EngineOptions, Prepared, Sampling
from perjoule.records import ModelFacts

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

    def __init__(self, clock: Clock, context_tokens: int, ttft_s: float, itl_s: float) -> None:
        self._clock = clock
        self._context_tokens = context_tokens
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
        # Names are bound once: after each sleep the caches are cold, and every look-up shows in the harness's share.
        now_ns, sleep, first = self._clock.now_ns, self._clock.sleep, sampling.seed
        itl_ns, room = int(self._itl_s * 1e9), self._context_tokens - len(prompt_ids)
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

    def effective_options(self) -> Mapping[str, Any]:
        return {
            "threads": 1,
            "context_tokens": self._context_tokens,
            "ttft_s": self._ttft_s,
            "itl_s": self._itl_s,
        }

    def close(self) -> None:
        """Nothing is held."""


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
        return NullEngine(self._clock, prepared.context_tokens, **_pace(options))


def _pace(options: EngineOptions) -> dict[str, float]:
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
