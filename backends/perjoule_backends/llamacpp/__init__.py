"""GGUF checkpoints on llama.cpp, through the low-level calls of llama-cpp-python."""

from perjoule_backends.llamacpp.backend import LlamaCppBackend

__all__ = ["LlamaCppBackend"]
