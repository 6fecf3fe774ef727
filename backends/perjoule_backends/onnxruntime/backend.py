"""The ``onnxruntime`` backend: what it can do, and how it prepares and loads a model."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from perjoule.errors import EngineError, HostError, PerjouleError, UsageError
from perjoule.protocols import BackendInfo, EngineOptions, Prepared
from perjoule_backends.devices import cuda_index, device_names, refuse_absent_gpu
from perjoule_backends.refusals import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perjoule.protocols import Engine, LogitsEngine, Progress
    from perjoule_backends.onnxruntime.providers import CpuProvider

QUANTS = ("faithful", "int8", "int4", "fp32")
INSTALL = "pip install 'perjoule[cpu]'"
OPTIONS = ("spinning", "fused_mlp")
# onnxruntime and onnxruntime-gpu are one module: the second replaces files of the first
INSTALL_CUDA = "pip install 'perjoule[cuda]', in an environment without onnxruntime: the two cannot lie in one"
_GPU_LIBRARY = "libonnxruntime_providers_cuda*"


class OnnxRuntimeBackend:
    """Decoder graphs built from GGUF files, safetensors folders or random weights, on ONNX Runtime.

    On the CPU provider, or experimentally on that of CUDA.
    """

    def info(self) -> BackendInfo:
        return BackendInfo(
            name="onnxruntime",
            summary="decoder graph built from the checkpoint, blockwise quantized, ONNX Runtime",
            devices=_devices(),
            more_devices=f"cuda:N (experimental): {INSTALL_CUDA}",
            formats=("gguf", "safetensors", "synthetic"),
            quants=QUANTS,
            available=find_spec("onnxruntime") is not None,
            install=INSTALL,
            batching=True,
        )

    def engine_version(self) -> str:
        import onnxruntime  # noqa: PLC0415 - loaded only where it runs

        return str(onnxruntime.__version__)

    def prepare(self, ref: str, options: EngineOptions, progress: Progress) -> Prepared:
        """Resolve, read and convert the checkpoint; see ``convert`` for what a folder holds."""
        _check(options)
        return convert_checkpoint(ref, options, progress)

    def load(self, prepared: Prepared, options: EngineOptions) -> Engine:
        from perjoule_backends.onnxruntime.engine import OnnxRuntimeEngine  # noqa: PLC0415

        with errors_of_loading(prepared.path):
            return OnnxRuntimeEngine(prepared.path, options, prepared.context_tokens, provider_of(options.device))

    def scorer(self, prepared: Prepared, options: EngineOptions) -> LogitsEngine:
        """Return what gives logits of all positions, and loads nothing to generate with."""
        from perjoule_backends.onnxruntime.engine import Scorer  # noqa: PLC0415

        return Scorer(prepared.path, options, provider_of(options.device))

    def pull(self, ref: str, progress: Progress) -> str:
        """Fetch a checkpoint into the cache; return its path."""
        from perjoule_backends.checkpoints.resolve import resolve  # noqa: PLC0415

        return resolve(ref, progress).path

    def fidelity(self, ref: str, options: EngineOptions, progress: Progress) -> dict[str, Any]:
        """Compare the model as it would run with the file's own weights in fp32, on the pinned corpus."""
        from perjoule_backends.onnxruntime.fidelity import measure_fidelity  # noqa: PLC0415

        exact = msgspec.structs.replace(options, quant="fp32", device="cpu")
        reference = self.scorer(self.prepare(ref, exact, progress), exact)
        candidate = self.prepare(ref, options, progress)
        return measure_fidelity(candidate, self.scorer(candidate, options), reference, options, progress)


def convert_checkpoint(ref: str, options: EngineOptions, progress: Progress) -> Prepared:
    """Resolve, read and convert the checkpoint; for every backend that runs such folders."""
    from perjoule_backends.checkpoints.facts import model_facts  # noqa: PLC0415
    from perjoule_backends.checkpoints.resolve import resolve  # noqa: PLC0415 - heavy: only in the child
    from perjoule_backends.checkpoints.source import open_weights  # noqa: PLC0415
    from perjoule_backends.onnxruntime.architecture import parameter_count, read_architecture  # noqa: PLC0415
    from perjoule_backends.onnxruntime.convert import converted_folder  # noqa: PLC0415
    from perjoule_backends.onnxruntime.manifest import read_manifest  # noqa: PLC0415
    from perjoule_backends.onnxruntime.precision import precision_for  # noqa: PLC0415

    checkpoint = resolve(ref, progress)
    weights = open_weights(Path(checkpoint.path))
    arch = read_architecture(weights)
    precision = precision_for(options.device, arch)
    folder = converted_folder(
        weights, checkpoint.sha256, arch, options.quant, progress,
        fused_mlp=bool(options.extra.get("fused_mlp")), precision=precision,
    )  # fmt: skip
    manifest = read_manifest(folder)
    context, parameters = min(options.context_tokens, arch.context), parameter_count(weights)
    model = model_facts(
        ref,
        checkpoint,
        architecture=arch.name,
        parameters=parameters,
        body_parameters=arch.body_parameters(parameters),
        tokenizer_sha256=manifest.tokenizer_sha256,
        runtime_quantization=options.quant,
        bits_per_weight=manifest.bits_per_weight,
        weights_bytes=manifest.weights_bytes,
        streamed_bytes_per_token=manifest.streamed_bytes_per_token,
        kv_bytes_per_position=arch.kv_bytes_read(precision.value_bytes, context),
    )
    return Prepared(folder=str(folder), model=model, context_tokens=context, stop_ids=manifest.stop_ids)


def provider_of(device: str) -> CpuProvider:
    """Return the execution provider that ``cpu`` or ``cuda:N`` stands for."""
    index = cuda_index(device)
    if index is None:
        from perjoule_backends.onnxruntime.engine import ON_CPU  # noqa: PLC0415 - heavy: only where it runs

        return ON_CPU
    from perjoule_backends.onnxruntime.cuda import CudaProvider  # noqa: PLC0415

    return CudaProvider(index)


@contextmanager
def errors_of_loading(folder: Path) -> Iterator[None]:
    """Turn whatever an engine raises of a converted folder into one line that names it."""
    try:
        yield
    except (PerjouleError, MemoryError):
        raise
    except Exception as error:
        raise EngineError(
            f"the converted model cannot be loaded: {first_line(error)}",
            hint=f"if it happens again, remove {folder}: the next run makes it anew",
        ) from error


def _devices() -> tuple[str, ...]:
    """Return what this build can run on: it has CUDA where its library stands beside the others."""
    spec = find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return ("cpu",)
    return device_names(cuda=any((Path(spec.origin).parent / "capi").glob(_GPU_LIBRARY)))


def _check_cuda(options: EngineOptions) -> None:
    """Refuse what cannot run on a board."""
    if options.quant == "fp32":
        raise UsageError(
            "--quant fp32 does not run on a GPU: the CUDA provider's attention computes in 16 bits",
            hint="leave --quant out, or use --device cpu",
        )
    if len(_devices()) == 1:
        raise HostError("this onnxruntime is a build without CUDA", hint=INSTALL_CUDA)
    refuse_absent_gpu(options.device)


def _check(options: EngineOptions) -> None:
    if find_spec("onnxruntime") is None:
        raise HostError("onnxruntime is not installed", hint=INSTALL)
    if options.quant not in QUANTS:
        raise UsageError(f"unknown --quant {options.quant!r}", hint=f"one of: {', '.join(QUANTS)}")
    if cuda_index(options.device) is not None:
        _check_cuda(options)
    if options.batch < 1:
        raise UsageError(f"a batch of {options.batch} sequences", hint="use at least 1")
    for key, value in options.extra.items():
        if key not in OPTIONS or not isinstance(value, bool):
            raise UsageError(
                f"backend option {key}={value!r} is not known",
                hint=f"there are, each true or false: {', '.join(f'backend.{name}' for name in OPTIONS)}",
            )
