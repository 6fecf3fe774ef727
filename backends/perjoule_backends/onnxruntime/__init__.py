"""GGUF checkpoints on ONNX Runtime, without torch: converter, decoder graph, engine."""

from perjoule_backends.onnxruntime.backend import OnnxRuntimeBackend

__all__ = ["OnnxRuntimeBackend"]
