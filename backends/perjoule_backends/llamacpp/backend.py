"""The ``llamacpp`` backend: what it can do, and how it prepares and loads a model."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from perjoule.errors import EngineError, HostError, PerjouleError, UsageError
from perjoule.protocols import BackendInfo, EngineOptions, Prepared
from perjoule_backends.devices import count_as_nvml, cuda_index, device_names, refuse_absent_gpu
from perjoule_backends.llamacpp.settings import KV_VALUE_BYTES, settings_of
from perjoule_backends.refusals import first_line

if TYPE_CHECKING:
    from perjoule.protocols import Engine, Progress

INSTALL = "pip install 'perjoule[llamacpp]'"
BUILD = "build llama-cpp-python with CMAKE_ARGS=-DGGML_CUDA=on"
QUANTS = ("faithful",)
_GPU_LIBRARY = "libggml-cuda*"


class LlamaCppBackend:
    """GGUF files as they are, on llama.cpp."""

    def info(self) -> BackendInfo:
        return BackendInfo(
            name="llamacpp",
            summary="the GGUF file as it is, llama.cpp through llama-cpp-python, no sampler in the loop",
            devices=_devices(),
            formats=("gguf",),
            quants=QUANTS,
            available=find_spec("llama_cpp") is not None,
            install=INSTALL,
            batching=True,
            more_devices=f"cuda:N (experimental): {BUILD}",
        )

    def engine_version(self) -> str:
        from importlib.metadata import version  # noqa: PLC0415

        return version("llama-cpp-python")

    def prepare(self, ref: str, options: EngineOptions, progress: Progress) -> Prepared:
        """Resolve the file, and put our tokenizer beside it; see ``checkpoints.as_file``."""
        from perjoule_backends.checkpoints.as_file import file_folder  # noqa: PLC0415 - only in the child

        _check(options)
        settings = settings_of(options.extra)
        folder, file = file_folder(ref, progress)
        context = min(options.context_tokens, file.context or options.context_tokens)
        model = file.facts(ref, quant=options.quant, kv_value_bytes=KV_VALUE_BYTES[settings.kv_type])
        return Prepared(folder=str(folder), model=model, context_tokens=context, stop_ids=file.stop_ids)

    def load(self, prepared: Prepared, options: EngineOptions) -> Engine:
        from perjoule_backends.llamacpp.engine import LlamaCppEngine  # noqa: PLC0415

        settings = settings_of(options.extra)
        count_as_nvml()
        try:
            return LlamaCppEngine(prepared.path, options, settings, prepared.context_tokens)
        except (PerjouleError, MemoryError):
            raise
        except Exception as error:
            raise EngineError(
                f"llama.cpp cannot be used: {first_line(error)}", hint=f"install it again: {INSTALL}"
            ) from error


def _devices() -> tuple[str, ...]:
    """Return what this build can run on: it has CUDA where its library stands beside the others."""
    spec = find_spec("llama_cpp")
    if spec is None or spec.origin is None or not any((Path(spec.origin).parent / "lib").glob(_GPU_LIBRARY)):
        return ("cpu",)
    return device_names(cuda=True)


def _check(options: EngineOptions) -> None:
    if find_spec("llama_cpp") is None:
        raise HostError("llama-cpp-python is not installed", hint=INSTALL)
    if options.quant not in QUANTS:
        raise UsageError(
            f"the llamacpp backend has no --quant {options.quant!r}: it runs the file as it is",
            hint="leave --quant out, or give a file of that precision as --model",
        )
    if cuda_index(options.device) is not None and options.device not in _devices():
        raise UsageError(
            f"this build of llama.cpp has no device {options.device!r}", hint=f"use --device cpu, or {BUILD}"
        )
    refuse_absent_gpu(options.device)  # without one llama.cpp computes on the CPU and does not say so
    if options.batch < 1:
        raise UsageError(f"a batch of {options.batch} sequences", hint="use at least 1")
