"""An exported folder running as ``ORTModelForCausalLM``: its own ``generate``, watched token by token.

What is timed is what a user of optimum gets, with its inputs prepared, its keys and values handed over from step to
step and its choice of the next token; a streamer is told of each token as it exists.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import onnxruntime as ort
import torch
import transformers
from optimum.onnxruntime import ORTModelForCausalLM
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from perjoule.errors import InputError
from perjoule.protocols import GREEDY, EngineOptions, Sampling
from perjoule_backends.checkpoints.tokenizer import load_tokenizer
from perjoule_backends.optimum.export import MODEL_FILE, read_note
from perjoule_backends.refusals import refuse_length

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from perjoule.protocols import FinishReason, OnToken
    from perjoule_backends.optimum.settings import Settings

PROVIDER = "CPUExecutionProvider"
_NO_PADDING = 0  # one sequence is never padded; unset, generate() complains


class OptimumEngine:
    """Generates and scores with one model. Not for use from several threads at once."""

    def __init__(self, folder: Path, options: EngineOptions, settings: Settings, context_tokens: int) -> None:
        transformers.logging.set_verbosity_error()
        torch.set_num_threads(options.threads)  # it prepares inputs and picks tokens
        with suppress(RuntimeError):  # torch takes it once in a process
            torch.set_num_interop_threads(1)
        self._note = read_note(folder)
        self._threads, self._settings, self._context = options.threads, settings, context_tokens
        self.tokenizer = load_tokenizer(folder)
        self._model: Any = ORTModelForCausalLM.from_pretrained(
            folder,
            export=False,
            file_name=MODEL_FILE,
            provider=PROVIDER,
            session_options=_session_options(options.threads, spinning=settings.spinning),
            use_io_binding=settings.io_binding,
            use_cache=True,
            local_files_only=True,
            trust_remote_code=False,
        )
        # For architectures that it does not list, optimum 0.1.0 takes hidden / heads for the width of a head.
        self._model.embed_size_per_head = self._note.source.architecture.head_dim

    def generate(
        self,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        stop: frozenset[int],
        on_token: OnToken,
        sampling: Sampling = GREEDY,
    ) -> FinishReason:
        refuse_length(prompt_ids, self._context)
        room = self._context - len(prompt_ids) + 1  # the last token needs no place any more
        seen = _Seen(on_token)
        ids = torch.tensor([list(prompt_ids)])
        if sampling.temperature > 0:
            torch.manual_seed(sampling.seed)
        self._model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=_generation(min(max_new_tokens, room), stop, sampling),
            use_model_defaults=False,
            streamer=seen,
        )
        if seen.last in stop:
            return "stop"
        return "length" if max_new_tokens <= room else "context"

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return logits of every position, shape (len(ids), vocabulary), from an empty cache."""
        most = self._note.source.architecture.context
        if not 0 < len(ids) <= most:
            raise InputError(f"{len(ids)} tokens to score; the model holds 1 to {most}", hint="score a shorter text")
        feed = torch.tensor([list(ids)])
        with torch.inference_mode():
            found = self._model(input_ids=feed, attention_mask=torch.ones_like(feed)).logits[0]
        scores: NDArray[np.float32] = found.float().numpy()
        return scores

    def effective_options(self) -> Mapping[str, Any]:
        return {
            "threads": self._threads,
            "inter_op_threads": 1,
            "spinning": self._settings.spinning,
            "graph_optimization": "all",
            "provider": ", ".join(self._model.providers),
            "io_binding": bool(self._model.use_io_binding),
            "context_tokens": self._context,
            "quant": self._note.precision,
            "quantizer": self._note.quantizer,
            "activations": "float32" if self._note.precision == "fp32" else "float32, int8 inside quantized matrices",
            "kv_cache": "float32, handed over from step to step",
            "loop": "ORTModelForCausalLM.generate with a streamer",
            "exported_by": self._note.versions,
            "onnxruntime": str(ort.__version__),
        }

    def close(self) -> None:
        """Nothing outlives the process."""


class _Seen(BaseStreamer):  # type: ignore[misc]
    """Hands on every new token. The first thing that ``generate`` puts is the prompt."""

    def __init__(self, on_token: OnToken) -> None:
        self._on_token = on_token
        self._prompt_is_next = True
        self.last: int | None = None

    def put(self, value: torch.Tensor) -> None:
        if self._prompt_is_next:
            self._prompt_is_next = False
            return
        for token in value.reshape(-1).tolist():
            self.last = token
            self._on_token(token)

    def end(self) -> None:
        """Nothing is held back."""


def _generation(new_tokens: int, stop: frozenset[int], sampling: Sampling) -> GenerationConfig:
    """Ask for exactly so many tokens unless one of ``stop`` comes; greedy, or from the whole softmax."""
    chosen = (
        {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
        if sampling.temperature > 0
        else {"do_sample": False}
    )
    return GenerationConfig(
        max_new_tokens=new_tokens,
        eos_token_id=sorted(stop) or None,
        pad_token_id=_NO_PADDING,
        use_cache=True,
        **chosen,
    )


def _session_options(threads: int, *, spinning: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.log_severity_level = 3
    return options
