"""The ``optimum`` backend: what it can do, and how it prepares and loads a model."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from perjoule.errors import EngineError, HostError, PerjouleError, UsageError
from perjoule.protocols import BackendInfo, EngineOptions, Prepared
from perjoule_backends.optimum.settings import settings_of
from perjoule_backends.refusals import first_line

if TYPE_CHECKING:
    from perjoule.protocols import Engine, Progress
    from perjoule_backends.optimum.export import Precision

INSTALL = "pip install 'perjoule[optimum]'"
NEEDED = ("onnxruntime", "torch", "transformers", "optimum.onnxruntime")
QUANTS: dict[str, Precision] = {"faithful": "fp32", "fp32": "fp32", "int8": "int8", "int4": "int4"}
_KV_VALUE_BYTES = 4  # exported in fp32, the cache stays so whatever the weights become


class OptimumBackend:
    """``ORTModelForCausalLM``: exported from torch, quantized by ONNX Runtime's own tools, run by ``generate``."""

    def info(self) -> BackendInfo:
        return BackendInfo(
            name="optimum",
            summary="ORTModelForCausalLM: exported by optimum-onnx, its generate() on ONNX Runtime CPU",
            devices=("cpu",),
            formats=("gguf", "safetensors", "synthetic"),
            quants=tuple(QUANTS),
            available=_missing() is None,
            install=INSTALL,
        )

    def engine_version(self) -> str:
        """Return the version of optimum-onnx and of ONNX Runtime, which does the work."""
        from importlib.metadata import version  # noqa: PLC0415

        import onnxruntime  # noqa: PLC0415 - several distributions own it: only the module knows its version

        return f"{version('optimum-onnx')} (onnxruntime {onnxruntime.__version__})"

    def prepare(self, ref: str, options: EngineOptions, progress: Progress) -> Prepared:
        """Write the checkpoint out as a folder, export and quantize it; see ``export``. Takes torch, and memory."""
        _check(options)
        settings = settings_of(options.extra)
        from perjoule_backends.optimum.export import exported_folder  # noqa: PLC0415 - only in the child

        precision = QUANTS[options.quant]
        try:
            folder, made = exported_folder(ref, precision, settings, progress)
        except (PerjouleError, MemoryError, OSError):
            raise
        except Exception as error:
            raise EngineError(f"optimum cannot export the model: {first_line(error)}", hint=_OTHER_WAY) from error
        context = min(options.context_tokens, made.source.architecture.context)
        model = made.source.facts(
            ref,
            quant=precision,
            bits_per_weight=made.bits_per_weight,
            weights_bytes=made.weights_bytes,
            streamed_bytes_per_token=made.streamed_bytes_per_token,
            kv_value_bytes=_KV_VALUE_BYTES,
            context_tokens=context,
        )
        return Prepared(folder=str(folder), model=model, context_tokens=context, stop_ids=made.source.stop_ids)

    def load(self, prepared: Prepared, options: EngineOptions) -> Engine:
        settings = settings_of(options.extra)
        try:
            from perjoule_backends.optimum.engine import OptimumEngine  # noqa: PLC0415

            return OptimumEngine(prepared.path, options, settings, prepared.context_tokens)
        except (PerjouleError, MemoryError):
            raise
        except Exception as error:
            raise EngineError(
                f"optimum cannot load the model: {first_line(error)}",
                hint=f"install it again: {INSTALL}; or remove {prepared.path}: the next run makes it anew",
            ) from error


_OTHER_WAY = f"install it again: {INSTALL}; or use --backend onnxruntime, which needs no export"


def _missing() -> str | None:
    """Return the first module that is not there. ``optimum`` alone comes with other packages; its part is asked for."""
    for name in NEEDED:
        parent = name.partition(".")[0]
        if find_spec(parent) is None or find_spec(name) is None:
            return name
    return None


def _check(options: EngineOptions) -> None:
    missing = _missing()
    if options.quant == "int4" and missing is None and find_spec("onnx_ir") is None:
        missing = "onnx_ir"  # the 4-bit quantizer of ONNX Runtime wants it, and does not bring it along
    if missing is not None:
        raise HostError(f"{missing} is not installed", hint=INSTALL)
    if options.quant not in QUANTS:
        raise UsageError(f"the optimum backend has no --quant {options.quant!r}", hint=f"one of: {', '.join(QUANTS)}")
    if options.device != "cpu":
        raise UsageError(f"the optimum backend has no device {options.device!r}", hint="use --device cpu")
    if options.batch != 1:
        raise UsageError(f"a batch of {options.batch} sequences: this backend serves one at a time", hint="use 1")
