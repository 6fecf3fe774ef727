"""A converted folder running in ONNX Runtime: one session, one KV cache bound as past and present."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perjoule.errors import InputError
from perjoule.protocols import GREEDY, EngineOptions, Sampling
from perjoule_backends.checkpoints.tokenizer import load_tokenizer
from perjoule_backends.freed_memory import give_back
from perjoule_backends.greedy_batch import GreedyBatch
from perjoule_backends.onnxruntime.batch import Rows
from perjoule_backends.onnxruntime.manifest import MODEL_ALL_POSITIONS_FILE, MODEL_FILE, read_manifest
from perjoule_backends.onnxruntime.providers import CpuProvider
from perjoule_backends.refusals import refuse_length
from perjoule_backends.sampling import Picker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from perjoule.protocols import FinishReason, OnToken

ON_CPU = CpuProvider()


class OnnxRuntimeEngine:
    """Generates and scores with one converted model. Not for use from several threads at once.

    The cache has ``options.batch`` places; what generates alone does so at the first of them.
    """

    def __init__(
        self, folder: Path, options: EngineOptions, context_tokens: int, provider: CpuProvider = ON_CPU
    ) -> None:
        self._folder, self._options, self._provider = folder, options, provider
        self._manifest = read_manifest(folder)
        self._context = context_tokens
        self._spinning = bool(options.extra.get("spinning", True))
        # Before the weights, and trimmed: parsing the vocabulary frees tens of MB that the peak would carry along.
        self.tokenizer = load_tokenizer(folder)
        give_back()
        self._session = provider.session(folder / MODEL_FILE, options.threads, spinning=self._spinning)
        give_back()
        self._cache = provider.cache(self._manifest, context_tokens, options.batch)
        self._scorer: Scorer | None = None
        self._rows: Rows | None = None
        self._batch: GreedyBatch | None = None
        self._decode = provider.forward(self._session, self._cache, self._manifest, length=1)

    def generate(
        self,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        stop: frozenset[int],
        on_token: OnToken,
        sampling: Sampling = GREEDY,
    ) -> FinishReason:
        refuse_length(prompt_ids, self._context)
        if self._batch is not None:
            self._end_batch()
        pick = Picker(sampling)
        prefill = self._provider.forward(self._session, self._cache, self._manifest, length=len(prompt_ids))
        logits = prefill.run(prompt_ids, total=len(prompt_ids))
        for count in range(1, max_new_tokens + 1):
            token = pick(logits)
            on_token(token)
            if token in stop:
                return "stop"
            if count == max_new_tokens:
                return "length"
            total = len(prompt_ids) + count
            if total > self._context:
                return "context"
            logits = self._decode.run((token,), total=total)
        return "length"

    def batch(self) -> GreedyBatch:
        """Return an empty batch of ``options.batch`` places. It lasts until the next one, or until ``generate``."""
        self._end_batch()
        if self._rows is None:
            self._rows = Rows(self._session, self._cache, self._manifest, self._provider.forward)
        self._batch = GreedyBatch(self._rows)
        return self._batch

    def _end_batch(self) -> None:
        if self._batch is not None:
            self._batch.end()
        self._batch = None

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return logits of every position, shape (len(ids), vocabulary), from an empty cache."""
        if self._scorer is None:  # a second copy of the weights, so only once quality is asked for
            self._scorer = Scorer(self._folder, self._options, self._provider)
        return self._scorer.logits(ids)

    def effective_options(self) -> Mapping[str, Any]:
        return {
            "threads": self._options.threads,
            "inter_op_threads": 1,
            "spinning": self._spinning,
            "graph_optimization": "all",
            "context_tokens": self._context,
            "quant": self._manifest.quant,
            "fused_mlp": self._manifest.fused_mlp,
            "kv_cache_bytes": self._cache.nbytes,
            "batch": self._cache.places,
            **self._provider.effective_options(self._manifest),
        }

    def close(self) -> None:
        """Nothing outlives the process."""


class Scorer:
    """Logits of all positions, for quality; loads only the graph that gives them."""

    def __init__(self, folder: Path, options: EngineOptions, provider: CpuProvider = ON_CPU) -> None:
        self._manifest, self._provider = read_manifest(folder), provider
        spinning = bool(options.extra.get("spinning", True))
        self._session = provider.session(folder / MODEL_ALL_POSITIONS_FILE, options.threads, spinning=spinning)

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return logits of every position, shape (len(ids), vocabulary), from an empty cache."""
        if not 0 < len(ids) <= self._manifest.architecture.context:
            raise InputError(
                f"{len(ids)} tokens to score; the model holds 1 to {self._manifest.architecture.context}",
                hint="score a shorter text",
            )
        cache, length = self._provider.cache(self._manifest, len(ids)), len(ids)
        forward = self._provider.forward(self._session, cache, self._manifest, length=length, positions=length)
        return forward.run_all(ids)
