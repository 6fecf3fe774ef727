"""Where a graph runs: an execution provider of ONNX Runtime, and the cache and passes that go with its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnxruntime as ort

from perjoule_backends.onnxruntime.forward import ForwardPass, KeyValueCache

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule_backends.onnxruntime.manifest import Manifest


class CpuProvider:
    """The processor. Arrays of ours are bound as they are: nothing is copied."""

    name = "CPUExecutionProvider"
    forward: type[ForwardPass] = ForwardPass

    def session(self, path: Path, threads: int, *, spinning: bool) -> ort.InferenceSession:
        return ort.InferenceSession(str(path), session_options(threads, spinning=spinning), providers=[self.name])

    def cache(self, manifest: Manifest, capacity: int, places: int = 1) -> KeyValueCache:
        return KeyValueCache(manifest, capacity, places)

    def effective_options(self, manifest: Manifest) -> dict[str, Any]:
        """Return what is in use because the model runs here."""
        return {
            "provider": self.name,
            "activations": "float32" if manifest.quant == "fp32" else "float32, int8 inside MatMulNBits",
            "kv_cache": "float32",
        }


def session_options(threads: int, *, spinning: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.log_severity_level = 3
    return options
