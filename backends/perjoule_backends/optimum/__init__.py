"""Checkpoints exported and run by Hugging Face Optimum on ONNX Runtime, as its users get it."""

from perjoule_backends.optimum.backend import OptimumBackend

__all__ = ["OptimumBackend"]
