"""What a converted folder holds. The worker reads only this, never the checkpoint itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from perjoule.records import Record
from perjoule_backends.onnxruntime.architecture import Architecture

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST_FILE = "manifest.json"
MODEL_FILE, MODEL_ALL_POSITIONS_FILE = "model.onnx", "model-all-positions.onnx"


class Form(Record, frozen=True, kw_only=True):
    """How a weight matrix is stored: 4, 8 or 32 bits, and columns per scale (0 for float32)."""

    bits: int
    block: int = 0

    @property
    def bits_per_weight(self) -> float:
        return self.bits + (32 / self.block if self.block else 0)


FLOAT32 = Form(bits=32)


class Manifest(Record, frozen=True, kw_only=True):
    """What a converted folder holds. ``worst_error`` is the largest relative error of any one matrix."""

    architecture: Architecture
    quant: str
    fused_mlp: bool
    weights_bytes: int
    streamed_bytes_per_token: int
    bits_per_weight: float
    tokenizer_sha256: str
    stop_ids: tuple[int, ...]
    forms: dict[str, Form]
    relative_error: dict[str, float]
    worst_error: float


def read_manifest(folder: Path) -> Manifest:
    return msgspec.json.decode((folder / MANIFEST_FILE).read_bytes(), type=Manifest)


def is_whole(folder: Path) -> bool:
    """Tell whether a converted folder can be used: its manifest comes last and is read in full."""
    try:
        read_manifest(folder)
    except (OSError, msgspec.MsgspecError, ValueError):
        return False
    return True
