"""A folder running in transformers: one model, a cache made anew for each request, a loop that stamps every token."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import AutoModelForCausalLM, DynamicCache

from perjoule.errors import InputError
from perjoule.protocols import GREEDY, EngineOptions, Sampling
from perjoule_backends.checkpoints.dequantized import read_note
from perjoule_backends.checkpoints.tokenizer import load_tokenizer
from perjoule_backends.refusals import refuse_length
from perjoule_backends.sampling import Picker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from perjoule.protocols import FinishReason, OnToken
    from perjoule_backends.checkpoints.dequantized import Kind
    from perjoule_backends.transformers.settings import Settings

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TransformersEngine:
    """Generates and scores with one model. Not for use from several threads at once."""

    def __init__(
        self, folder: Path, options: EngineOptions, settings: Settings, kind: Kind, context_tokens: int
    ) -> None:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        torch.set_num_threads(options.threads)
        with suppress(RuntimeError):  # torch takes it once in a process; what is in use is what is reported
            torch.set_num_interop_threads(1)
        self._kind, self._context = kind, context_tokens
        self._trained = read_note(folder).architecture.context
        self.tokenizer = load_tokenizer(folder)
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=DTYPES[kind],
            attn_implementation=settings.attention,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
        self._model.eval().to(options.device)
        self._device = torch.device(options.device)

    def generate(
        self,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        stop: frozenset[int],
        on_token: OnToken,
        sampling: Sampling = GREEDY,
    ) -> FinishReason:
        """Step token by token. Only the last position's logits are computed; the choice is made on the device."""
        refuse_length(prompt_ids, self._context)
        pick = Picker(sampling) if sampling.temperature > 0 else None
        cache = DynamicCache(config=self._model.config)
        feed = torch.tensor([list(prompt_ids)], device=self._device)
        with torch.inference_mode():
            for count in range(1, max_new_tokens + 1):
                step = self._model(feed, past_key_values=cache, use_cache=True, logits_to_keep=1)
                logits = step.logits[0, -1]
                # ``item`` waits for the device, so that the token exists when it is reported
                token = int(logits.argmax().item()) if pick is None else pick(logits.float().cpu().numpy())
                on_token(token)
                if token in stop:
                    return "stop"
                if count == max_new_tokens:
                    return "length"
                if len(prompt_ids) + count > self._context:
                    return "context"
                feed = torch.tensor([[token]], device=self._device)
        return "length"

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return logits of every position, shape (len(ids), vocabulary), without a cache."""
        if not 0 < len(ids) <= self._trained:
            raise InputError(
                f"{len(ids)} tokens to score; the model holds 1 to {self._trained}", hint="score a shorter text"
            )
        with torch.inference_mode():
            found = self._model(torch.tensor([list(ids)], device=self._device), use_cache=False).logits[0]
            scores: NDArray[np.float32] = found.float().cpu().numpy()
        return scores

    def effective_options(self) -> Mapping[str, Any]:
        return {
            "threads": torch.get_num_threads(),
            "inter_op_threads": torch.get_num_interop_threads(),
            "context_tokens": self._context,
            "quant": self._kind,
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "attention": self._model.config._attn_implementation,  # noqa: SLF001 - nothing public says it
            "kv_cache": f"DynamicCache, {str(self._model.dtype).removeprefix('torch.')}",
            "loop": "one forward pass per token, logits of the last position",
            "device": self._name_of_device(),
            "torch": str(torch.__version__),  # a class of its own, which no file can hold
            "transformers": transformers.__version__,
        }

    def _name_of_device(self) -> str:
        if self._device.type != "cuda":
            return str(self._device)
        return f"{self._device} ({torch.cuda.get_device_name(self._device)})"

    def close(self) -> None:
        """Nothing outlives the process."""
