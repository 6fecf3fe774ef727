"""A file running in llama.cpp: generation alone or in company, and logits for quality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import llama_cpp

from perjoule.errors import EngineError, InputError
from perjoule.protocols import GREEDY, EngineOptions, Sampling
from perjoule_backends.checkpoints.as_file import GGUF_LINK
from perjoule_backends.checkpoints.tokenizer import load_tokenizer
from perjoule_backends.freed_memory import give_back
from perjoule_backends.llamacpp.context import Context, Model
from perjoule_backends.sampling import Picker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from perjoule.protocols import FinishReason, OnToken
    from perjoule_backends.llamacpp.settings import Settings

_SCORED_AT_ONCE = 128  # positions; their logits take 134 MB with the largest vocabulary, of 262,144


class LlamaCppEngine:
    """Generates and scores with one file. Not for use from several threads at once.

    The cache has ``options.batch`` places; what generates alone does so at the first of them. Nothing is kept from one
    request to the next.
    """

    def __init__(self, folder: Path, options: EngineOptions, settings: Settings, context_tokens: int) -> None:
        self._settings, self._threads = settings, options.threads
        self.tokenizer = load_tokenizer(folder)  # before the weights: parsing a vocabulary takes memory for a moment
        give_back()
        self._model = Model(folder / GGUF_LINK, options.device, mmap=settings.mmap)
        self._context = Context(self._model, settings, options.threads, context_tokens, options.batch)
        self._scorer: Context | None = None
        self._batch: LlamaCppBatch | None = None

    def generate(
        self,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        stop: frozenset[int],
        on_token: OnToken,
        sampling: Sampling = GREEDY,
    ) -> FinishReason:
        context = self._context
        refuse_length(prompt_ids, context.capacity)
        self._end_batch()
        context.clear()
        pick = Picker(sampling)
        logits = context.prefill(0, prompt_ids)
        for count in range(1, max_new_tokens + 1):
            token = pick(logits)
            on_token(token)
            if token in stop:
                return "stop"
            if count == max_new_tokens:
                return "length"
            position = len(prompt_ids) + count - 1
            if position >= context.capacity:
                return "context"
            logits = context.decode((token,), (position,))[0]
        return "length"

    def batch(self) -> LlamaCppBatch:
        """Return an empty batch of ``options.batch`` places. It lasts until the next one, or until ``generate``."""
        self._end_batch()
        self._context.clear()
        self._batch = LlamaCppBatch(self._context)
        return self._batch

    def _end_batch(self) -> None:
        if self._batch is not None:
            self._batch.end()
        self._batch = None

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return logits of every position, shape (len(ids), vocabulary), from an empty cache.

        In a context of its own, over the same weights: texts may be longer than what is generated.
        """
        most = max(self._model.trained_context, self._context.capacity)
        if not 0 < len(ids) <= most:
            raise InputError(f"{len(ids)} tokens to score; the model holds 1 to {most}", hint="score a shorter text")
        if self._scorer is None or self._scorer.capacity < len(ids):
            if self._scorer is not None:
                self._scorer.close()
            self._scorer = Context(self._model, self._settings, self._threads, len(ids))
        return self._scorer.score(ids, _SCORED_AT_ONCE)

    def effective_options(self) -> Mapping[str, Any]:
        used = self._context.used()
        return used | {
            "context_tokens": self._context.capacity,
            "flash_attn": self._settings.flash_attn,
            "kv_cache": self._settings.kv_type,
            "mmap": self._settings.mmap and bool(llama_cpp.llama_supports_mmap()),
            "repack": self._model.repacks,
            "device": self._model.device,
            "build": llama_cpp.llama_print_system_info().decode(errors="replace").strip(" |\n"),
        }

    def close(self) -> None:
        """Free contexts and weights."""
        self._end_batch()
        for context in (self._scorer, self._context):
            if context is not None:
                context.close()
        self._model.close()


class LlamaCppBatch:
    """Greedy sequences at places 0, 1, ... of the cache. A place that falls empty is filled by the last sequence.

    So the sequences of a pass always lie side by side, which llama.cpp needs to compute them together.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._positions: list[int] = []  # of each sequence that stand in the cache
        self._tokens: list[int] = []  # the last one of each sequence, which does not
        self._ended = False

    def add(self, prompt_ids: Sequence[int]) -> int:
        """Prefill one more sequence and return its first token.

        Raises ``InputError`` where all places are taken or the prompt does not fit the context.
        """
        self._refuse_if_ended()
        place = len(self._tokens)
        if place == self._context.places:
            raise InputError(
                f"the batch holds {place} sequence(s) and all places are taken",
                hint="load the engine with a larger batch, or remove a sequence first",
            )
        refuse_length(prompt_ids, self._context.capacity)
        token = int(self._context.prefill(place, prompt_ids).argmax())
        self._positions.append(len(prompt_ids))
        self._tokens.append(token)
        return token

    def step(self) -> Sequence[int]:
        """Return the next token of every sequence, by place.

        Raises ``InputError`` where the context of one is full; no sequence has moved then.
        """
        self._refuse_if_ended()
        if not self._tokens:
            return []
        most = max(self._positions)
        if most >= self._context.capacity:
            raise InputError(
                f"the sequence at place {self._positions.index(most)} fills its context of "
                f"{self._context.capacity} tokens",
                hint="remove it before the next step, or load with a larger context",
            )
        self._tokens = self._context.decode(self._tokens, self._positions).argmax(axis=1).tolist()
        self._positions = [position + 1 for position in self._positions]
        return self._tokens.copy()

    def remove(self, place: int) -> None:
        """End the sequence at ``place``; the last one takes its place. Raises ``InputError`` where none is."""
        self._refuse_if_ended()
        last = len(self._tokens) - 1
        if not 0 <= place <= last:
            raise InputError(
                f"no sequence has place {place}: the batch holds {last + 1}", hint="places are counted from 0"
            )
        position, token = self._positions.pop(), self._tokens.pop()
        if place == last:
            self._context.forget(last)
            return
        self._context.move(last, place)
        self._positions[place], self._tokens[place] = position, token

    def end(self) -> None:
        """Refuse all further use: the places belong to others now."""
        self._ended = True

    def _refuse_if_ended(self) -> None:
        if self._ended:
            raise EngineError(
                "this batch has ended: the engine was asked for another one, or to generate alone",
                hint="ask the engine for a new batch",
            )


def refuse_length(prompt_ids: Sequence[int], context: int) -> None:
    """Raise ``InputError`` for a prompt that is empty or longer than the context."""
    if not 0 < len(prompt_ids) <= context:
        raise InputError(
            f"the prompt has {len(prompt_ids)} tokens; the context holds 1 to {context}",
            hint="shorten the prompt or load with a larger context",
        )
