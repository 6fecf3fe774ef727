"""The onnxruntime backend as it runs on a board, with the processor's provider and memory in the board's place.

Everything but CUDA itself is what a board gets: the float16 graph, values that are bound by their address, the copies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from perjoule_backends.onnxruntime.backend import OnnxRuntimeBackend, convert_checkpoint

if TYPE_CHECKING:
    from perjoule.protocols import Engine, EngineOptions, Prepared, Progress
    from perjoule_backends.onnxruntime.cuda import CudaProvider


def stand_in() -> CudaProvider:
    from perjoule_backends.onnxruntime.cuda import CPU, CudaProvider  # noqa: PLC0415 - an engine is optional

    return CudaProvider(0, CPU, "cpu")


def board() -> OnnxRuntimeBackend:
    return _OnBoard()


class _OnBoard(OnnxRuntimeBackend):
    def prepare(self, ref: str, options: EngineOptions, progress: Progress) -> Prepared:
        return convert_checkpoint(ref, msgspec.structs.replace(options, device="cuda:0"), progress)

    def load(self, prepared: Prepared, options: EngineOptions) -> Engine:
        from perjoule_backends.onnxruntime.engine import OnnxRuntimeEngine  # noqa: PLC0415

        return OnnxRuntimeEngine(prepared.path, options, prepared.context_tokens, stand_in())
