"""The ``genai`` backend: ONNX Runtime GenAI on the very folders that the onnxruntime backend converts to.

Same weights and operators, another loop: GenAI keeps cache and token choice in C++. Its sampler runs here too, since
that loop is what is measured.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from perjoule.errors import EngineError, HostError, UsageError
from perjoule.protocols import GREEDY, BackendInfo, EngineOptions, Prepared, Sampling
from perjoule_backends.devices import EXPERIMENTAL, cuda_index, device_names, energy_domain, refuse_absent_gpu
from perjoule_backends.refusals import refuse_length

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from perjoule.protocols import Engine, FinishReason, OnToken, Progress

QUANTS = ("faithful", "int8", "int4", "fp32")
INSTALL = "pip install 'perjoule[genai]'"
BUILD = "pip install onnxruntime-genai-cuda in an environment without onnxruntime-genai and onnxruntime"
_OPTIONS = ("spinning", "fused_mlp")
_GPU_LIBRARY = "*onnxruntime-genai-cuda*"


class GenaiBackend:
    """Converted folders on ONNX Runtime GenAI's CPU provider, or experimentally on that of CUDA."""

    def info(self) -> BackendInfo:
        return BackendInfo(
            name="genai",
            summary="the onnxruntime backend's graph in the generation loop of ONNX Runtime GenAI",
            devices=_devices(),
            more_devices=f"cuda:N (experimental): {BUILD}",
            formats=("gguf", "safetensors", "synthetic"),
            quants=QUANTS,
            available=find_spec("onnxruntime_genai") is not None,
            install=INSTALL,
        )

    def engine_version(self) -> str:
        import onnxruntime_genai  # noqa: PLC0415 - its builds are distributions of different names

        return str(onnxruntime_genai.__version__)

    def prepare(self, ref: str, options: EngineOptions, progress: Progress) -> Prepared:
        """Convert as the onnxruntime backend does: one folder serves both."""
        _check(options)
        from perjoule_backends.onnxruntime.backend import convert_checkpoint  # noqa: PLC0415 - only in the child

        return convert_checkpoint(ref, options, progress)

    def load(self, prepared: Prepared, options: EngineOptions) -> Engine:
        from perjoule_backends.onnxruntime.backend import errors_of_loading  # noqa: PLC0415

        with errors_of_loading(prepared.path):
            return GenaiEngine(prepared.path, options, prepared.context_tokens)


class GenaiEngine:
    """Generates with one converted model: a generator of GenAI for each request, so that nothing is reused."""

    def __init__(self, folder: Path, options: EngineOptions, context_tokens: int) -> None:
        import numpy  # noqa: ICN001, PLC0415 - what is said of a backend needs neither
        import onnxruntime_genai  # noqa: PLC0415

        from perjoule_backends.checkpoints.tokenizer import load_tokenizer  # noqa: PLC0415
        from perjoule_backends.onnxruntime.manifest import read_manifest  # noqa: PLC0415

        self._numpy, self._genai = numpy, onnxruntime_genai
        self._options, self._context = options, context_tokens
        self._spinning = bool(options.extra.get("spinning", True))
        self._manifest = read_manifest(folder)
        self.tokenizer = load_tokenizer(folder)
        onnxruntime_genai.disable_telemetry_events()
        config = onnxruntime_genai.Config(str(folder))
        config.overlay(msgspec.json.encode(_overlay(options.threads, self._spinning, context_tokens)).decode())
        index = cuda_index(options.device)
        if index is not None:
            config.append_provider("cuda")
            config.set_provider_option("cuda", "device_id", str(index))
        self._model = onnxruntime_genai.Model(config)
        if index is not None and str(self._model.device_type).lower() != "cuda":
            raise EngineError(f"ONNX Runtime GenAI took {self._model.device_type}, not the GPU", hint=BUILD)

    def generate(
        self,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        stop: frozenset[int],
        on_token: OnToken,
        sampling: Sampling = GREEDY,
    ) -> FinishReason:

        length = len(prompt_ids)
        refuse_length(prompt_ids, self._context)
        # The last token needs no place in the context any more.
        most = min(length + max_new_tokens, self._context + 1)
        generator = self._genai.Generator(self._model, self._search(most, sampling))
        generator.append_tokens(self._numpy.array(prompt_ids, dtype=self._numpy.int32))
        for _ in range(length, most):
            generator.generate_next_token()
            token = int(generator.get_next_tokens()[0])
            on_token(token)
            if token in stop:
                return "stop"
        return "length" if most == length + max_new_tokens else "context"

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return logits of every position, shape (len(ids), vocabulary), token by token: the graph gives one row."""
        refuse_length(ids, self._context)
        generator = self._genai.Generator(self._model, self._search(len(ids) + 1, GREEDY))
        rows = self._numpy.empty((len(ids), self._manifest.architecture.vocabulary), dtype=self._numpy.float32)
        for position, token in enumerate(ids):
            generator.append_tokens(self._numpy.array([token], dtype=self._numpy.int32))
            rows[position] = generator.get_logits()[0, -1]
        return rows

    def _search(self, max_length: int, sampling: Sampling) -> Any:
        search = self._genai.GeneratorParams(self._model)
        search.set_search_options(max_length=max_length, batch_size=1, num_beams=1)
        if sampling.temperature > 0:
            search.set_search_options(
                do_sample=True,
                temperature=sampling.temperature,
                random_seed=sampling.seed,
                top_k=self._manifest.architecture.vocabulary,  # the whole distribution; left out, it is cut at 50
                top_p=1.0,
            )
        return search

    def effective_options(self) -> Mapping[str, Any]:
        quant = self._manifest.quant
        on_gpu = self._options.device != "cpu"
        activations = "float32" if quant == "fp32" else "float32, int8 inside MatMulNBits"
        return {
            "threads": self._options.threads,
            "spinning": self._spinning,
            "provider": str(self._model.device_type),
            "model_type": str(self._model.type),
            "context_tokens": self._context,
            "quant": quant,
            "fused_mlp": self._manifest.fused_mlp,
            "activations": "float16" if on_gpu else activations,
            "kv_cache": f"{'float16' if on_gpu else 'float32'}, allocated for the length of each request",
            **({"experimental": EXPERIMENTAL, **energy_domain(self._options.device)} if on_gpu else {}),
            "prefix_reuse": False,
            "batch": 1,
        }

    def close(self) -> None:
        """Nothing outlives the process."""


def _overlay(threads: int, spinning: bool, context_tokens: int) -> dict[str, Any]:
    """Return what this load changes of the folder's configuration.

    No token ends a generation by itself: stop tokens are a matter of the request. One position more than the context,
    because GenAI counts the last token, which is never run.
    """
    session = {
        "intra_op_num_threads": threads,
        "inter_op_num_threads": 1,
        "session.intra_op.allow_spinning": "1" if spinning else "0",
    }
    return {
        "model": {
            "context_length": context_tokens + 1,
            "eos_token_id": [],
            "decoder": {"session_options": session},
        },
        "search": {"max_length": context_tokens + 1},
    }


def _devices() -> tuple[str, ...]:
    """Return what this build can run on: it has CUDA where its library stands beside the others."""
    spec = find_spec("onnxruntime_genai")
    if spec is None or spec.origin is None:
        return ("cpu",)
    return device_names(cuda=any(Path(spec.origin).parent.glob(_GPU_LIBRARY)))


def _check(options: EngineOptions) -> None:
    if find_spec("onnxruntime_genai") is None:
        raise HostError("onnxruntime-genai is not installed", hint=INSTALL)
    if options.quant not in QUANTS:
        raise UsageError(f"unknown --quant {options.quant!r}", hint=f"one of: {', '.join(QUANTS)}")
    if cuda_index(options.device) is not None:
        if len(_devices()) == 1:
            raise UsageError(
                f"this build of onnxruntime-genai has no device {options.device!r}", hint=f"use cpu, or {BUILD}"
            )
        if options.quant == "fp32":
            raise UsageError(
                "--quant fp32 does not run on a GPU: attention computes in 16 bits there", hint="leave it out"
            )
        refuse_absent_gpu(options.device)
    if options.batch != 1:
        raise UsageError(
            f"the genai backend runs one sequence at a time, not {options.batch}",
            hint="use --backend onnxruntime for batches",
        )
    for key, value in options.extra.items():
        if key not in _OPTIONS or not isinstance(value, bool):
            raise UsageError(
                f"backend option {key}={value!r} is not known",
                hint=f"there are, each true or false: {', '.join(f'backend.{name}' for name in _OPTIONS)}",
            )
