"""How many bytes a graph holds, and how many it reads for a token: from its initializers, without their data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx

from perjoule.records import Record

if TYPE_CHECKING:
    from pathlib import Path

_LOOKING_UP = ("Gather", "GatherBlockQuantized")  # they read rows of their first input
_BITS = {
    onnx.TensorProto.FLOAT: 32, onnx.TensorProto.INT32: 32, onnx.TensorProto.UINT32: 32,
    onnx.TensorProto.INT64: 64, onnx.TensorProto.UINT64: 64, onnx.TensorProto.DOUBLE: 64,
    onnx.TensorProto.FLOAT16: 16, onnx.TensorProto.BFLOAT16: 16, onnx.TensorProto.INT16: 16,
    onnx.TensorProto.UINT16: 16, onnx.TensorProto.INT8: 8, onnx.TensorProto.UINT8: 8, onnx.TensorProto.BOOL: 8,
    onnx.TensorProto.INT4: 4, onnx.TensorProto.UINT4: 4,
}  # fmt: skip


class Held(Record, frozen=True, kw_only=True):
    """Bytes of all initializers, those read for a token, those of vectors, and how many weights matrices have."""

    nbytes: int
    streamed_bytes: int
    vector_bytes: int
    matrix_weights: int


def held_by(path: Path) -> Held:
    """Count the initializers of a graph. A table that nodes only take rows of is not read for a token."""
    graph = onnx.load(str(path), load_external_data=False).graph
    elsewhere: set[str] = set()
    looked_up: set[str] = set()
    for node in graph.node:
        for position, name in enumerate(node.input):
            by_row = position == 0 and node.op_type in _LOOKING_UP
            (looked_up if by_row else elsewhere).add(name)
    only_looked_up = looked_up - elsewhere
    sizes = {t.name: math.ceil(math.prod(t.dims) * _BITS[t.data_type] / 8) for t in graph.initializer}
    matrices = [t for t in graph.initializer if len(t.dims) > 1]
    return Held(
        nbytes=sum(sizes.values()),
        streamed_bytes=sum(size for name, size in sizes.items() if name not in only_looked_up),
        vector_bytes=sum(sizes.values()) - sum(sizes[t.name] for t in matrices),
        matrix_weights=sum(math.prod(t.dims) for t in matrices),
    )
