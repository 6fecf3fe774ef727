"""The ``openvino`` backend: what it can do, and how it prepares and loads a model."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import msgspec

from perjoule.errors import EngineError, HostError, PerjouleError, UsageError
from perjoule.protocols import BackendInfo, EngineOptions, Prepared
from perjoule.records import UNSET
from perjoule_backends.openvino.settings import KV_VALUE_BYTES, settings_of

if TYPE_CHECKING:
    from perjoule.protocols import Engine, Progress

INSTALL = "pip install 'perjoule[openvino]'"
QUANTS = ("faithful",)


class OpenVinoBackend:
    """GGUF files through OpenVINO GenAI's reader, on OpenVINO's CPU plugin."""

    def info(self) -> BackendInfo:
        return BackendInfo(
            name="openvino",
            summary="what OpenVINO GenAI makes of the GGUF file, in its LLMPipeline, CPU",
            devices=("cpu",),
            formats=("gguf",),
            quants=QUANTS,
            available=find_spec("openvino_genai") is not None,
            install=INSTALL,
        )

    def engine_version(self) -> str:
        from importlib.metadata import version  # noqa: PLC0415

        return version("openvino-genai")

    def prepare(self, ref: str, options: EngineOptions, progress: Progress) -> Prepared:
        """Resolve the file and let GenAI read it; see ``convert`` for what a folder holds."""
        from perjoule_backends.checkpoints.as_file import file_folder  # noqa: PLC0415 - only in the child
        from perjoule_backends.openvino.convert import converted_folder  # noqa: PLC0415

        _check(options)
        settings = settings_of(options.extra)
        linked, file = file_folder(ref, progress)
        folder, converted = converted_folder(linked, file, self.engine_version(), progress)
        context = min(options.context_tokens, file.context or options.context_tokens)
        value_bytes = KV_VALUE_BYTES.get(settings.kv_type or converted.kv_type)
        model = msgspec.structs.replace(
            file.facts(ref, quant=options.quant, kv_value_bytes=value_bytes),
            bits_per_weight=converted.bits_per_weight,
            weights_bytes=converted.weights_bytes,
            streamed_bytes_per_token=converted.streamed_bytes_per_token,
            streamed_bytes_per_token_missing=UNSET,
        )
        return Prepared(folder=str(folder), model=model, context_tokens=context, stop_ids=file.stop_ids)

    def load(self, prepared: Prepared, options: EngineOptions) -> Engine:
        from perjoule_backends.openvino.convert import reason_of  # noqa: PLC0415
        from perjoule_backends.openvino.engine import OpenVinoEngine  # noqa: PLC0415

        settings = settings_of(options.extra)
        try:
            return OpenVinoEngine(prepared.path, options, settings, prepared.context_tokens)
        except (PerjouleError, MemoryError):
            raise
        except Exception as error:
            raise EngineError(
                f"OpenVINO cannot load the model that it made: {reason_of(error)}",
                hint=f"other --set backend.KEY=VALUE, or remove {prepared.path}: the next run makes it anew",
            ) from error


def _check(options: EngineOptions) -> None:
    if find_spec("openvino_genai") is None:
        raise HostError("openvino-genai is not installed", hint=INSTALL)
    if options.quant not in QUANTS:
        raise UsageError(
            f"the openvino backend has no --quant {options.quant!r}: the file decides",
            hint="leave --quant out, or give a file of that precision as --model",
        )
    if options.device != "cpu":
        raise UsageError(f"the openvino backend has no device {options.device!r}", hint="use --device cpu")
    if options.batch != 1:
        raise UsageError(
            f"the openvino backend serves one sequence at a time, not {options.batch}", hint="leave batch at 1"
        )
