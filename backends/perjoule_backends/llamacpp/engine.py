"""A file running in llama.cpp: generation alone or in company, and logits for quality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import llama_cpp

from perjoule.errors import InputError
from perjoule.protocols import GREEDY, EngineOptions, Sampling
from perjoule_backends.checkpoints.as_file import GGUF_LINK
from perjoule_backends.checkpoints.tokenizer import load_tokenizer
from perjoule_backends.freed_memory import give_back
from perjoule_backends.greedy_batch import GreedyBatch
from perjoule_backends.llamacpp.context import Context, Model
from perjoule_backends.refusals import refuse_length
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
        self._batch: GreedyBatch | None = None

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

    def batch(self) -> GreedyBatch:
        """Return an empty batch of ``options.batch`` places. It lasts until the next one, or until ``generate``."""
        self._end_batch()
        self._context.clear()
        self._batch = GreedyBatch(self._context)
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
