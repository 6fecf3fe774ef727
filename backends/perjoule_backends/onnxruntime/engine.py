"""A converted folder running in ONNX Runtime: one session, one KV cache bound as past and present."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from perjoule.errors import InputError
from perjoule.protocols import GREEDY, EngineOptions, Sampling
from perjoule_backends.checkpoints.tokenizer import load_tokenizer
from perjoule_backends.onnxruntime.manifest import MODEL_ALL_POSITIONS_FILE, MODEL_FILE, Manifest, read_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from perjoule.protocols import FinishReason, OnToken

PROVIDER = "CPUExecutionProvider"


class OnnxRuntimeEngine:
    """Generates and scores with one converted model. Not for use from several threads at once."""

    def __init__(self, folder: Path, options: EngineOptions, context_tokens: int) -> None:
        self._folder, self._options = folder, options
        self._manifest = read_manifest(folder)
        self._context = context_tokens
        self._spinning = bool(options.extra.get("spinning", True))
        # Before the weights, and trimmed: parsing the vocabulary frees tens of MB that the peak would carry along.
        self.tokenizer = load_tokenizer(folder)
        _give_back_freed_memory()
        self._session = _session(folder / MODEL_FILE, options.threads, spinning=self._spinning)
        _give_back_freed_memory()
        self._cache = KeyValueCache(self._manifest, context_tokens)
        self._scorer: Scorer | None = None
        self._decode = _Step(self._session, self._cache, self._manifest, length=1)

    def generate(
        self,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        stop: frozenset[int],
        on_token: OnToken,
        sampling: Sampling = GREEDY,
    ) -> FinishReason:
        if not 0 < len(prompt_ids) <= self._context:
            raise InputError(
                f"the prompt has {len(prompt_ids)} tokens; the context holds 1 to {self._context}",
                hint="shorten the prompt or load with a larger context",
            )
        pick = _Picker(sampling)
        prefill = _Step(self._session, self._cache, self._manifest, length=len(prompt_ids))
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

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return logits of every position, shape (len(ids), vocabulary), from an empty cache."""
        if self._scorer is None:  # a second copy of the weights, so only once quality is asked for
            self._scorer = Scorer(self._folder, self._options)
        return self._scorer.logits(ids)

    def effective_options(self) -> Mapping[str, Any]:
        return {
            "threads": self._options.threads,
            "inter_op_threads": 1,
            "spinning": self._spinning,
            "graph_optimization": "all",
            "provider": PROVIDER,
            "context_tokens": self._context,
            "quant": self._manifest.quant,
            "activations": "float32" if self._manifest.quant == "fp32" else "float32, int8 inside MatMulNBits",
            "kv_cache": "float32",
        }

    def close(self) -> None:
        """Nothing outlives the process."""


class Scorer:
    """Logits of all positions, for quality; loads only the graph that gives them."""

    def __init__(self, folder: Path, options: EngineOptions) -> None:
        self._manifest = read_manifest(folder)
        spinning = bool(options.extra.get("spinning", True))
        self._session = _session(folder / MODEL_ALL_POSITIONS_FILE, options.threads, spinning=spinning)

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return logits of every position, shape (len(ids), vocabulary), from an empty cache."""
        if not 0 < len(ids) <= self._manifest.architecture.context:
            raise InputError(
                f"{len(ids)} tokens to score; the model holds 1 to {self._manifest.architecture.context}",
                hint="score a shorter text",
            )
        cache = KeyValueCache(self._manifest, len(ids))
        return _Step(self._session, cache, self._manifest, length=len(ids), positions=len(ids)).run_all(ids)


class KeyValueCache:
    """Keys and values of all layers, shape (1, kv_heads, capacity, head_dim) each, allocated once."""

    def __init__(self, manifest: Manifest, capacity: int) -> None:
        arch = manifest.architecture
        shape = (1, arch.kv_heads, capacity, arch.head_dim)
        self.layers = [
            tuple(ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype=np.float32)) for _ in range(2))
            for _ in range(arch.layers)
        ]


class _Step:
    """One forward pass of a fixed number of tokens: everything is bound once, only numbers change.

    The binding holds pointers, so the arrays are kept here as long as it lives.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        cache: KeyValueCache,
        manifest: Manifest,
        *,
        length: int,
        positions: int = 1,
    ) -> None:
        self._session = session
        self._ids = np.zeros((1, length), dtype=np.int64)
        self._last = np.zeros(1, dtype=np.int32)
        self._total = np.zeros((), dtype=np.int32)
        self._logits = np.empty((1, positions, manifest.architecture.vocabulary), dtype=np.float32)
        self._cache = cache
        self._binding = binding = session.io_binding()
        for name, array in (
            ("input_ids", self._ids),
            ("seqlens_k", self._last),
            ("total_sequence_length", self._total),
        ):
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, self._logits.shape, self._logits.ctypes.data)
        for layer, parts in enumerate(cache.layers):
            for part, value in zip(("key", "value"), parts, strict=True):
                binding.bind_ortvalue_input(f"past_key_values.{layer}.{part}", value)
                binding.bind_ortvalue_output(f"present.{layer}.{part}", value)

    def run(self, ids: Sequence[int], *, total: int) -> NDArray[np.float32]:
        """Run on ``ids``, the last of ``total`` tokens; return logits of the last one, shape (vocabulary,)."""
        self._ids[0, :] = ids
        self._last[0] = total - 1
        self._total[()] = total
        self._session.run_with_iobinding(self._binding)
        last: NDArray[np.float32] = self._logits[0, -1]
        return last

    def run_all(self, ids: Sequence[int]) -> NDArray[np.float32]:
        self.run(ids, total=len(ids))
        every: NDArray[np.float32] = self._logits[0]
        return every


class _Picker:
    """Greedy (ties to the lowest id) or seeded sampling from the softmax at a temperature."""

    def __init__(self, sampling: Sampling) -> None:
        self._temperature = sampling.temperature
        self._random = np.random.default_rng(sampling.seed) if sampling.temperature > 0 else None

    def __call__(self, logits: NDArray[np.float32]) -> int:
        if self._random is None:
            return int(logits.argmax())
        # Gumbel-max: the argmax of logits / T plus Gumbel noise is a draw from their softmax
        return int((logits / self._temperature + self._random.gumbel(size=logits.shape)).argmax())


def _give_back_freed_memory() -> None:
    """Hand what malloc holds unused back to the system: glibc's malloc_trim(3); other C libraries have none."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _session(path: Path, threads: int, *, spinning: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=[PROVIDER])
