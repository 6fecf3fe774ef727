"""A converted folder running in GenAI's LLMPipeline, and the same model asked for logits, for quality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import openvino
import openvino_genai

from perjoule.errors import InputError
from perjoule.protocols import GREEDY, EngineOptions, Sampling
from perjoule_backends.checkpoints.tokenizer import load_tokenizer
from perjoule_backends.freed_memory import give_back
from perjoule_backends.openvino.convert import MODEL_FILE, MODEL_FOLDER
from perjoule_backends.openvino.spoken import told
from perjoule_backends.refusals import refuse_length

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from perjoule.protocols import FinishReason, OnToken
    from perjoule_backends.openvino.settings import Settings

_DEVICE = "CPU"
_SCORED_AT_ONCE = 128  # positions; their logits take 134 MB with the largest vocabulary, of 262,144
_ALL_TOKENS = 1 << 31  # of a prompt in one pass: a scheduler that cuts it would be another load
_NAMED_END = 0  # GenAI wants an end named, or takes -1 and refuses that; with ignore_eos it ends nothing
# Property of the compiled model, and what it is called here.
_TOLD = {
    "INFERENCE_PRECISION_HINT": "activations",
    "KV_CACHE_PRECISION": "kv_cache",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "dynamic_quantization_group",
    "NUM_STREAMS": "streams",
    "PERFORMANCE_HINT": "performance_hint",
    "ENABLE_CPU_PINNING": "cpu_pinning",
    "ENABLE_HYPER_THREADING": "hyper_threading",
    "TBB_PARTITIONER": "partitioner",
    "RUNTIME_REQUIREMENTS": "runtime",
}


class OpenVinoEngine:
    """Generates with GenAI's pipeline, one sequence at a time; nothing is kept from one request to the next."""

    def __init__(self, folder: Path, options: EngineOptions, settings: Settings, context_tokens: int) -> None:
        self._folder, self._settings, self._context = folder, settings, context_tokens
        self._properties = settings.properties(options.threads)
        self.tokenizer = load_tokenizer(folder)  # before the weights: parsing a vocabulary takes memory for a moment
        give_back()
        extra: dict[str, Any] = {"ATTENTION_BACKEND": "SDPA" if settings.attention == "sdpa" else "PA"}
        if settings.attention == "paged":
            extra["scheduler_config"] = _one_sequence()
        with told() as self._told:
            self._pipeline = openvino_genai.LLMPipeline(
                str(folder / MODEL_FOLDER), _DEVICE, **self._properties, **extra
            )
        self._scorer: _Scorer | None = None

    def generate(
        self,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        stop: frozenset[int],
        on_token: OnToken,
        sampling: Sampling = GREEDY,
    ) -> FinishReason:
        """Generate; with paged attention ``on_token`` is called from a thread of GenAI's, while this one waits."""
        refuse_length(prompt_ids, self._context)
        fits = self._context - len(prompt_ids) + 1  # the last token needs no place any more
        stream = _Stream(on_token, stop)
        ids = np.asarray([prompt_ids], dtype=np.int64)
        self._pipeline.generate(
            openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids))),
            _generation(min(max_new_tokens, fits), sampling),
            stream,
        )
        if stream.error is not None:
            raise stream.error
        if stream.stopped:
            return "stop"
        return "context" if fits < max_new_tokens else "length"

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return logits of every position, shape (len(ids), vocabulary), from an empty state.

        The pipeline gives none, so the model is compiled once more, with the same properties.
        """
        if self._scorer is None:
            self._scorer = _Scorer(self._folder / MODEL_FOLDER / MODEL_FILE, self._properties)
        return self._scorer.logits(ids)

    def effective_options(self) -> Mapping[str, Any]:
        """Return what the compiled model said when it was made; ``read_back`` tells if it said nothing."""
        told_threads = self._told.get("INFERENCE_NUM_THREADS", "")
        found: dict[str, Any] = {
            "threads": int(told_threads) if told_threads.isdigit() else self._properties["INFERENCE_NUM_THREADS"],
            "context_tokens": self._context,
            "batch": 1,
            "attention": self._settings.attention,
            "prefix_cache": False,
            "device": self._told.get("EXECUTION_DEVICES", _DEVICE),
            "read_back": "from the compiled model" if self._told else "nothing: these are the options asked for",
        }
        return found | {name: self._told[key] for key, name in _TOLD.items() if key in self._told}

    def close(self) -> None:
        """Free pipeline and scorer."""
        self._scorer = None
        self._pipeline = None


class _Stream(openvino_genai.StreamerBase):  # type: ignore[misc]
    """Hands on each token as it comes, and ends the generation at a stop token.

    What a callback raises would be lost in the library, so it is kept for the caller.
    """

    def __init__(self, on_token: OnToken, stop: frozenset[int]) -> None:
        super().__init__()
        self._on_token, self._stop = on_token, stop
        self.stopped = False
        self.error: BaseException | None = None

    def write(self, token: int | Sequence[int]) -> openvino_genai.StreamingStatus:
        for each in (token,) if isinstance(token, int) else token:
            if self.stopped or self.error is not None:
                break  # a scheduler may have one more on its way
            try:
                self._on_token(int(each))
            except BaseException as error:  # noqa: BLE001 - raised again by ``generate``
                self.error = error
            self.stopped = each in self._stop
        ended = self.stopped or self.error is not None
        return openvino_genai.StreamingStatus.STOP if ended else openvino_genai.StreamingStatus.RUNNING

    def end(self) -> None:
        """All tokens have been handed on."""


class _Scorer:
    def __init__(self, path: Path, properties: Mapping[str, Any]) -> None:
        self._request = openvino.Core().compile_model(path, _DEVICE, dict(properties)).create_infer_request()

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        if not ids:
            raise InputError("0 tokens to score", hint="score at least one")
        self._request.reset_state()
        parts = []
        for start in range(0, len(ids), _SCORED_AT_ONCE):
            part = ids[start : start + _SCORED_AT_ONCE]
            end = start + len(part)
            found = self._request.infer({
                "input_ids": np.asarray([part], dtype=np.int64),
                "attention_mask": np.ones((1, end), dtype=np.int64),
                "position_ids": np.arange(start, end, dtype=np.int64)[None],
                "beam_idx": np.zeros(1, dtype=np.int32),
            })  # fmt: skip
            parts.append(np.array(found["logits"][0], dtype=np.float32))
        return np.concatenate(parts)


def _generation(new_tokens: int, sampling: Sampling) -> openvino_genai.GenerationConfig:
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = new_tokens
    config.ignore_eos = True  # stop tokens are the caller's
    config.set_eos_token_id(_NAMED_END)
    config.do_sample = sampling.temperature > 0
    if config.do_sample:
        config.temperature, config.rng_seed = sampling.temperature, sampling.seed
    return config


def _one_sequence() -> openvino_genai.SchedulerConfig:
    config = openvino_genai.SchedulerConfig()
    config.enable_prefix_caching = False  # a prompt that was seen before must cost what it cost then
    config.max_num_seqs = 1
    config.max_num_batched_tokens = _ALL_TOKENS
    return config
