"""GGUF checkpoints on OpenVINO, read by OpenVINO GenAI's own reader and run by its LLMPipeline."""

from perjoule_backends.openvino.backend import OpenVinoBackend

__all__ = ["OpenVinoBackend"]
