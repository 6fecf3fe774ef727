"""The ``transformers`` backend: what it can do, and how it prepares and loads a model."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from perjoule.errors import EngineError, HostError, PerjouleError, UsageError
from perjoule.protocols import BackendInfo, EngineOptions, Prepared
from perjoule_backends.devices import count_as_nvml, cuda_index, device_names, refuse_absent_gpu
from perjoule_backends.refusals import first_line
from perjoule_backends.transformers.settings import settings_of

if TYPE_CHECKING:
    from perjoule.protocols import Engine, Progress
    from perjoule_backends.checkpoints.dequantized import Kind

INSTALL = "pip install 'perjoule[transformers]'"
BUILD = "install a build of torch with CUDA"
NEEDED = ("torch", "transformers", "accelerate")
QUANTS: dict[str, Kind] = {"faithful": "fp32", "fp32": "fp32", "bf16": "bf16"}
_GPU_LIBRARY = "libtorch_cuda*"


class TransformersBackend:
    """The classes of transformers on PyTorch, in the precision of the checkpoint's own weights or bfloat16."""

    def info(self) -> BackendInfo:
        return BackendInfo(
            name="transformers",
            summary="transformers on PyTorch, the file's own weights in fp32 or bf16, greedy loop of ours",
            devices=_devices(),
            formats=("gguf", "safetensors", "synthetic"),
            quants=tuple(QUANTS),
            available=_missing() is None,
            install=INSTALL,
            more_devices=f"cuda:N (experimental): {BUILD}",
        )

    def engine_version(self) -> str:
        """Return the version of transformers and of torch, which does the work."""
        from importlib.metadata import version  # noqa: PLC0415

        return f"{version('transformers')} (torch {version('torch')})"

    def prepare(self, ref: str, options: EngineOptions, progress: Progress) -> Prepared:
        """Resolve the checkpoint and write it out as a folder; see ``checkpoints.dequantized``."""
        _check(options)
        settings_of(options.extra)
        from perjoule_backends.checkpoints.dequantized import VALUE_BYTES, dequantized_folder  # noqa: PLC0415

        kind = QUANTS[options.quant]
        folder, held = dequantized_folder(ref, kind, progress)
        context = min(options.context_tokens, held.architecture.context)
        model = held.facts(
            ref,
            quant=kind,
            bits_per_weight=8.0 * VALUE_BYTES[kind],
            weights_bytes=held.weights_bytes,
            streamed_bytes_per_token=held.weights_bytes - held.looked_up_bytes,
            kv_value_bytes=VALUE_BYTES[kind],
            context_tokens=context,
        )
        return Prepared(folder=str(folder), model=model, context_tokens=context, stop_ids=held.stop_ids)

    def load(self, prepared: Prepared, options: EngineOptions) -> Engine:
        settings = settings_of(options.extra)
        count_as_nvml()
        try:
            from perjoule_backends.transformers.engine import TransformersEngine  # noqa: PLC0415

            return TransformersEngine(prepared.path, options, settings, QUANTS[options.quant], prepared.context_tokens)
        except (PerjouleError, MemoryError):
            raise
        except Exception as error:
            raise EngineError(
                f"transformers cannot load the model: {first_line(error)}",
                hint=f"install it again: {INSTALL}; or remove {prepared.path}: the next run makes it anew",
            ) from error


def _missing() -> str | None:
    return next((name for name in NEEDED if find_spec(name) is None), None)


def _devices() -> tuple[str, ...]:
    """Return what this build of torch can run on: it has CUDA where its library stands beside the others."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None or not any((Path(spec.origin).parent / "lib").glob(_GPU_LIBRARY)):
        return ("cpu",)
    return device_names(cuda=True)


def _check(options: EngineOptions) -> None:
    missing = _missing()
    if missing is not None:
        raise HostError(f"{missing} is not installed", hint=INSTALL)
    if options.quant not in QUANTS:
        raise UsageError(
            f"the transformers backend has no --quant {options.quant!r}", hint=f"one of: {', '.join(QUANTS)}"
        )
    if cuda_index(options.device) is not None and options.device not in _devices():
        raise UsageError(f"this build of torch has no device {options.device!r}", hint=f"use --device cpu, or {BUILD}")
    if options.batch != 1:
        raise UsageError(f"a batch of {options.batch} sequences: this backend serves one at a time", hint="use 1")
    if options.device != "cpu":
        _refuse_absent_gpu(options.device)


def _refuse_absent_gpu(device: str) -> None:
    refuse_absent_gpu(device)
    count_as_nvml()
    import torch  # noqa: PLC0415 - only where it runs

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (cuda_index(device) or 0) >= count:
        raise HostError(
            f"there is no device {device}: torch {torch.__version__} sees {count} GPU(s)",
            hint="use --device cpu, or check the driver: nvidia-smi must run",
        )
