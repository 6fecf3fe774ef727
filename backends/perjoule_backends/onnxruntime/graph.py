"""The decoder as an ONNX graph of ONNX Runtime's contrib operators, weights in one external file.

Operators (ContribOperators.md of ONNX Runtime): MatMulNBits, GroupQueryAttention with packed QKV and its own
rotary embedding, SimplifiedLayerNormalization, SkipSimplifiedLayerNormalization (4th output: the running
sum), GatherBlockQuantized. Inputs and outputs carry the names of ONNX Runtime GenAI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx import TensorProto, helper

from perjoule.records import Record
from perjoule_backends.onnxruntime.manifest import Form

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto, NodeProto, ValueInfoProto

    from perjoule_backends.onnxruntime.architecture import Architecture

OPSET, CONTRIB_OPSET = 18, 1
CONTRIB = "com.microsoft"
WEIGHTS_FILE = "weights.bin"
INT8_ACTIVATIONS = 4  # MatMulNBits accuracy_level; without it 8-bit weights take a path 200 times slower
_ELEMENT_BYTES: dict[int, int] = {TensorProto.FLOAT: 4, TensorProto.UINT8: 1}


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


def build(arch: Architecture, layout: Layout, *, all_positions: bool) -> ModelProto:
    """Build the model: logits of the last position only, or of all positions (for quality)."""
    return _Builder(arch, layout).build(all_positions=all_positions)


def save(model: ModelProto, path: Path) -> None:
    path.write_bytes(model.SerializeToString())


class _Builder:
    def __init__(self, arch: Architecture, layout: Layout) -> None:
        self._arch, self._layout = arch, layout
        self._nodes: list[NodeProto] = []
        self._used: dict[str, TensorProto] = {}

    def build(self, *, all_positions: bool) -> ModelProto:
        arch = self._arch
        hidden = self._embed("input_ids")
        skip = ""
        for layer in range(arch.layers):
            hidden, normed = self._norm(hidden, skip, f"l{layer}.attn_norm")
            attention = self._attention(layer, normed)
            hidden, normed = self._norm(hidden, attention, f"l{layer}.ffn_norm")
            skip = self._mlp(layer, normed)
        _, normed = self._norm(hidden, skip, "output_norm")
        if not all_positions:
            normed = self._last_position(normed)
        self._matmul(normed, "head", arch.vocabulary, arch.hidden, output="logits")
        graph = helper.make_graph(
            self._nodes, "decoder", self._inputs(), self._outputs(), initializer=list(self._used.values())
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, CONTRIB_OPSET)]
        return helper.make_model(graph, opset_imports=opsets, producer_name="perjoule", ir_version=10)

    def _inputs(self) -> list[ValueInfoProto]:
        arch = self._arch
        past: list[str | int | None] = ["batch", arch.kv_heads, "capacity", arch.head_dim]
        inputs = [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"]),
            helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, ["batch"]),
            helper.make_tensor_value_info("total_sequence_length", TensorProto.INT32, []),
        ]
        return inputs + [
            helper.make_tensor_value_info(f"past_key_values.{layer}.{part}", TensorProto.FLOAT, past)
            for layer in range(arch.layers)
            for part in ("key", "value")
        ]

    def _outputs(self) -> list[ValueInfoProto]:
        arch = self._arch
        present: list[str | int | None] = ["batch", arch.kv_heads, "capacity", arch.head_dim]
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "positions", arch.vocabulary])
        return [logits] + [
            helper.make_tensor_value_info(f"present.{layer}.{part}", TensorProto.FLOAT, present)
            for layer in range(arch.layers)
            for part in ("key", "value")
        ]

    def _weight(self, name: str) -> str:
        """Use an initializer of the weights file."""
        if name not in self._used:
            stored = self._layout.stored[name]
            tensor = TensorProto(name=name, data_type=stored.element, dims=stored.shape)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", WEIGHTS_FILE), ("offset", stored.offset), ("length", stored.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            self._used[name] = tensor
        return name

    def _constant(self, name: str, values: list[int]) -> str:
        # Small integers stay inline: external ones are invisible to shape inference.
        self._used[name] = helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
        return name

    def _node(self, operator: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: Any) -> str:
        node = helper.make_node(operator, inputs, outputs, name=f"{operator}.{outputs[0]}", domain=domain, **attributes)
        self._nodes.append(node)
        return outputs[0]

    def _embed(self, ids: str) -> str:
        form = self._layout.forms["embedding"]
        if not form.block:
            return self._node("Gather", [self._weight("embedding.weight"), ids], ["embedded"])
        inputs = [self._weight("embedding.codes"), ids, self._weight("embedding.scales")]
        return self._node(
            "GatherBlockQuantized", inputs, ["embedded"], CONTRIB,
            bits=form.bits, block_size=form.block, gather_axis=0, quantize_axis=1,
        )  # fmt: skip

    def _norm(self, hidden: str, skip: str, name: str) -> tuple[str, str]:
        """Add ``skip`` to the running sum and normalize; return (running sum, normalized)."""
        gamma, epsilon = self._weight(f"{name}.weight"), self._arch.norm_epsilon
        if not skip:
            normed = self._node(
                "SimplifiedLayerNormalization", [hidden, gamma], [f"{name}.out"], epsilon=epsilon, axis=-1
            )
            return hidden, normed
        outputs = [f"{name}.out", "", "", f"{name}.sum"]
        self._node("SkipSimplifiedLayerNormalization", [hidden, skip, gamma], outputs, CONTRIB, epsilon=epsilon)
        return f"{name}.sum", f"{name}.out"

    def _matmul(self, x: str, name: str, rows: int, columns: int, *, bias: bool = False, output: str = "") -> str:
        output = output or f"{name}.out"
        form = self._layout.forms[name]
        if not form.block:
            product = f"{name}.product" if bias else output
            self._node("MatMul", [x, self._weight(f"{name}.weight")], [product])
            return self._node("Add", [product, self._weight(f"{name}.bias")], [output]) if bias else output
        inputs = [x, self._weight(f"{name}.codes"), self._weight(f"{name}.scales")]
        if bias:
            inputs += ["", "", self._weight(f"{name}.bias")]
        return self._node(
            "MatMulNBits", inputs, [output], CONTRIB,
            N=rows, K=columns, bits=form.bits, block_size=form.block, accuracy_level=INT8_ACTIVATIONS,
        )  # fmt: skip

    def _attention(self, layer: int, x: str) -> str:
        arch, stem = self._arch, f"l{layer}."
        qkv = self._matmul(x, stem + "qkv", arch.qkv_rows, arch.hidden, bias=arch.attention_bias)
        past = [f"past_key_values.{layer}.key", f"past_key_values.{layer}.value"]
        rotary = [self._weight("rotary.cos"), self._weight("rotary.sin")]
        outputs = [f"{stem}attention", f"present.{layer}.key", f"present.{layer}.value"]
        self._node(
            "GroupQueryAttention",
            [qkv, "", "", *past, "seqlens_k", "total_sequence_length", *rotary],
            outputs, CONTRIB,
            num_heads=arch.heads, kv_num_heads=arch.kv_heads, do_rotary=1,
            rotary_interleaved=int(arch.rotary_interleaved),
        )  # fmt: skip
        return self._matmul(outputs[0], stem + "attn_output", arch.hidden, arch.heads * arch.head_dim)

    def _mlp(self, layer: int, x: str) -> str:
        arch, stem = self._arch, f"l{layer}."
        gate = self._matmul(x, stem + "gate", arch.feed_forward, arch.hidden)
        up = self._matmul(x, stem + "up", arch.feed_forward, arch.hidden)
        # SiLU is QuickGelu with alpha 1: x * sigmoid(alpha * x), one operator instead of two
        activated = self._node("QuickGelu", [gate], [stem + "silu"], CONTRIB, alpha=1.0)
        product = self._node("Mul", [activated, up], [stem + "gated"])
        return self._matmul(product, stem + "down", arch.hidden, arch.feed_forward)

    def _last_position(self, x: str) -> str:
        starts, ends = self._constant("last.start", [-1]), self._constant("last.end", [2**31 - 1])
        return self._node("Slice", [x, starts, ends, self._constant("last.axis", [1])], ["last"])
