"""Nodes of an ONNX graph whose weights lie in one external file: matrices in the form they are stored in, norms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx import TensorProto, helper

from perjoule.records import Record
from perjoule_backends.onnxruntime.manifest import Form

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import NodeProto

CONTRIB = "com.microsoft"
WEIGHTS_FILE = "weights.bin"
FUSED = "gate_up"  # gate and up of an MLP as one matrix, where a folder has it
INT8_ACTIVATIONS = 4  # MatMulNBits accuracy_level; without it 8-bit weights take a path 200 times slower
_ELEMENT_BYTES: dict[int, int] = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.UINT8: 1}


class Stored(Record, frozen=True, kw_only=True):
    """One initializer in the weights file."""

    name: str
    element: int
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        size = _ELEMENT_BYTES[self.element]
        for extent in self.shape:
            size *= extent
        return size


class Layout(Record, frozen=True, kw_only=True):
    """What the weights file holds: initializers by name, and the form of each matrix."""

    stored: dict[str, Stored]
    forms: dict[str, Form]


class Nodes:
    """Collects nodes and the initializers they use. A value is known by the name of the output that it comes from."""

    activations: int = TensorProto.FLOAT  # of what flows between nodes, and of keys and values

    def __init__(self, layout: Layout, epsilon: float) -> None:
        self.made: list[NodeProto] = []
        self._layout, self._epsilon = layout, epsilon
        self._used: dict[str, TensorProto] = {}

    @property
    def initializers(self) -> list[TensorProto]:
        return list(self._used.values())

    def add(self, operator: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: Any) -> str:
        """Add a node; return its first output."""
        node = helper.make_node(operator, inputs, outputs, name=f"{operator}.{outputs[0]}", domain=domain, **attributes)
        self.made.append(node)
        return outputs[0]

    def weight(self, name: str) -> str:
        """Use an initializer of the weights file."""
        if name not in self._used:
            stored = self._layout.stored[name]
            tensor = TensorProto(name=name, data_type=stored.element, dims=stored.shape)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", WEIGHTS_FILE), ("offset", stored.offset), ("length", stored.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            self._used[name] = tensor
        return name

    def constant(self, name: str, values: NDArray[np.int64] | NDArray[np.float32]) -> str:
        """Use a small constant. It stays inline: external ones are invisible to shape inference."""
        element = self.activations if values.dtype.kind == "f" else TensorProto.INT64
        self._used[name] = helper.make_tensor(name, element, values.shape, values.reshape(-1).tolist())
        return name

    def norm(self, x: str, name: str) -> str:
        """Normalize by the root mean square of the last axis."""
        gamma = self.weight(f"{name}.weight")
        return self.add("SimplifiedLayerNormalization", [x, gamma], [f"{name}.out"], epsilon=self._epsilon, axis=-1)

    def sum_and_norm(self, hidden: str, skip: str, name: str) -> tuple[str, str]:
        """Add ``skip`` to the running sum and normalize; return (running sum, normalized)."""
        if not skip:
            return hidden, self.norm(hidden, name)
        outputs = [f"{name}.out", "", "", f"{name}.sum"]
        inputs = [hidden, skip, self.weight(f"{name}.weight")]
        self.add("SkipSimplifiedLayerNormalization", inputs, outputs, CONTRIB, epsilon=self._epsilon)
        return f"{name}.sum", f"{name}.out"

    def lookup(self, ids: str, name: str) -> str:
        """Return rows of a matrix by their number."""
        form = self._layout.forms[name]
        if not form.block:
            return self.add("Gather", [self.weight(f"{name}.weight"), ids], [f"{name}.out"])
        inputs = [self.weight(f"{name}.codes"), ids, self.weight(f"{name}.scales")]
        return self.gather_blocks(inputs, name, form)

    def gather_blocks(self, inputs: list[str], name: str, form: Form) -> str:
        """Look up rows of a matrix in blocks; ``inputs`` are its integers, the numbers of the rows and its scales."""
        return self.add(
            "GatherBlockQuantized", inputs, [f"{name}.out"], CONTRIB,
            bits=form.bits, block_size=form.block, gather_axis=0, quantize_axis=1,
        )  # fmt: skip

    def has(self, name: str) -> bool:
        """Tell whether there is a matrix of this name."""
        return name in self._layout.forms

    def logits(self, x: str, rows: int, columns: int) -> None:
        """Multiply by the head; the output is float32."""
        self.matmul(x, "head", rows, columns, output="logits")

    def matmul(self, x: str, name: str, rows: int, columns: int, *, bias: bool = False, output: str = "") -> str:
        """Multiply the last axis, ``columns`` wide, by a matrix of ``rows`` rows."""
        output = output or f"{name}.out"
        form = self._layout.forms[name]
        if not form.block:
            product = f"{name}.product" if bias else output
            self.add("MatMul", [x, self.weight(f"{name}.weight")], [product])
            return self.add("Add", [product, self.weight(f"{name}.bias")], [output]) if bias else output
        inputs = [x, self.weight(f"{name}.codes"), self.weight(f"{name}.scales")]
        if bias:
            inputs += ["", "", self.weight(f"{name}.bias")]
        return self.add(
            "MatMulNBits", inputs, [output], CONTRIB,
            N=rows, K=columns, bits=form.bits, block_size=form.block, accuracy_level=INT8_ACTIVATIONS,
        )  # fmt: skip
