"""In which precision a converted model computes: float32 for the CPU, float16 for a board.

What the CUDA provider of ONNX Runtime asks for (its sources under contrib_ops/cuda, and docs/OperatorKernels.md):
GroupQueryAttention exists there in 16 bits only, cache and rotary tables in the type of the activations; MatMulNBits
wants scales of that type and does not read ``accuracy_level``. GatherBlockQuantized came with 1.23 (pull request 25575)
and took integers without zero points to be around 0, where the CPU takes them to be around the middle (issue 31692):
here they are written out. A bias of MatMulNBits is newer there than the operator, so that it is an Add of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from onnx import TensorProto

from perjoule.errors import InputError
from perjoule_backends.onnxruntime.nodes import Nodes
from perjoule_backends.onnxruntime.weights import Writer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perjoule_backends.onnxruntime.architecture import Architecture
    from perjoule_backends.onnxruntime.forms import Matrix
    from perjoule_backends.onnxruntime.manifest import Form

_TOO_WIDE = frozenset({"gemma3"})
_LARGEST_HALF = float(np.finfo(np.float16).max)


class HalfNodes(Nodes):
    """Nodes of a graph whose activations, keys and values are float16; its logits are float32."""

    activations = TensorProto.FLOAT16

    def gather_blocks(self, inputs: list[str], name: str, form: Form) -> str:
        return super().gather_blocks([*inputs, self.weight(f"{name}.zero_points")], name, form)

    def logits(self, x: str, rows: int, columns: int) -> None:
        product = self.matmul(x, "head", rows, columns)
        self.add("Cast", [product], ["logits"], to=TensorProto.FLOAT)

    def matmul(self, x: str, name: str, rows: int, columns: int, *, bias: bool = False, output: str = "") -> str:
        if not bias:
            return super().matmul(x, name, rows, columns, output=output)
        product = super().matmul(x, name, rows, columns, output=f"{name}.product")
        return self.add("Add", [product, self.weight(f"{name}.bias")], [output or f"{name}.out"])


class HalfWriter(Writer):
    """Writes every float as float16. Scales that the file has in float16 are kept to the last bit."""

    def _matrix(self, matrix: Matrix) -> None:
        super()._matrix(matrix)
        form = self.forms[matrix.part]
        if matrix.part == "embedding" and form.block:
            rows, blocks = self.stored["embedding.scales"].shape
            shape = (rows, -(-blocks * form.bits // 8))
            middle = 0x80 if form.bits == 8 else 0x88  # noqa: PLR2004 - 128, or 8 in both halves of a byte
            self._put("embedding.zero_points", np.full(shape, middle, dtype=np.uint8), streamed=False)

    def _stored_as(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._half(values, "a scale")

    def _put(self, name: str, values: NDArray[np.uint8] | NDArray[np.float32], *, streamed: bool) -> None:
        super()._put(name, self._half(values, name) if values.dtype == np.float32 else values, streamed=streamed)

    def _half(self, values: NDArray[Any], name: str) -> NDArray[Any]:
        if values.size and float(np.abs(values).max()) > _LARGEST_HALF:
            raise InputError(
                f"{self._gguf.path.name}: {name} holds {np.abs(values).max():.3g}, more than float16 can",
                hint="use --device cpu, which computes in float32",
            )
        half: NDArray[Any] = values.astype(np.float16)
        return half


def refuse_too_wide(arch: Architecture) -> None:
    """Raise ``InputError`` for an architecture that float16 does not do justice.

    Gemma-3-270M (Q4_K_M) with this graph on the CPU provider: mean KL 0.21 nats against the file's own weights and
    single tokens 12 nats off, where float32 activations give 0.02. SmolLM2-135M and Qwen2.5-Coder-0.5B lose nothing.
    """
    if arch.name in _TOO_WIDE:
        raise InputError(
            f"{arch.name}: its activations go beyond what float16 holds, and so does its quality on a GPU",
            hint="use --device cpu, which computes in float32",
        )


class Precision(NamedTuple):
    """``key`` keeps folders of different precision apart in the cache; ``value_bytes`` is of a key or a value."""

    name: str
    key: str
    value_bytes: int
    nodes: type[Nodes]
    writer: type[Writer]


FLOAT32_ACTIVATIONS = Precision("float32", "", 4, Nodes, Writer)
FLOAT16_ACTIVATIONS = Precision("float16", " float16", 2, HalfNodes, HalfWriter)


def precision_for(device: str, arch: Architecture) -> Precision:
    """Return what a model computes in on ``cpu`` or ``cuda:N``. Raises ``InputError`` where that would not do."""
    if device == "cpu":
        return FLOAT32_ACTIVATIONS
    refuse_too_wide(arch)
    return FLOAT16_ACTIVATIONS
