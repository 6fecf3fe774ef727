"""Checkpoints on Hugging Face transformers and PyTorch: the reference that other engines are held against."""

from perjoule_backends.transformers.backend import TransformersBackend

__all__ = ["TransformersBackend"]
