"""The decoder as an ONNX graph of ONNX Runtime's contrib operators, weights in one external file.

Operators (ContribOperators.md of ONNX Runtime): MatMulNBits, GroupQueryAttention with packed QKV and its own
rotary embedding, SimplifiedLayerNormalization, SkipSimplifiedLayerNormalization (4th output: the running
sum), GatherBlockQuantized. Inputs and outputs carry the names of ONNX Runtime GenAI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from perjoule_backends.onnxruntime.attention import Attention
from perjoule_backends.onnxruntime.nodes import CONTRIB, FUSED

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto, ValueInfoProto

    from perjoule_backends.onnxruntime.architecture import Architecture
    from perjoule_backends.onnxruntime.nodes import Nodes

OPSET, CONTRIB_OPSET = 18, 1


def build(arch: Architecture, nodes: Nodes, *, all_positions: bool, lengths_from_mask: bool = False) -> ModelProto:
    """Build the model: logits of the last position only, or of all positions (for quality).

    ``nodes``, which are still empty, decide in which precision it computes.
    Lengths come as the inputs ``seqlens_k`` and ``total_sequence_length``, or are counted in an ``attention_mask`` as
    ONNX Runtime GenAI gives it.
    """
    return _Builder(arch, nodes, lengths_from_mask=lengths_from_mask).build(all_positions=all_positions)


def save(model: ModelProto, path: Path) -> None:
    path.write_bytes(model.SerializeToString())


class _Builder:
    def __init__(self, arch: Architecture, nodes: Nodes, *, lengths_from_mask: bool) -> None:
        self._arch, self._nodes, self._lengths_from_mask = arch, nodes, lengths_from_mask

    def build(self, *, all_positions: bool) -> ModelProto:
        arch, nodes = self._arch, self._nodes
        if self._lengths_from_mask:
            self._count_mask()
        attention = Attention(arch, nodes)
        hidden, skip = self._embed("input_ids"), ""
        for layer in range(arch.layers):
            stem = f"l{layer}."
            hidden, normed = nodes.sum_and_norm(hidden, skip, stem + "attn_norm")
            attended = self._post_norm(attention.add(layer, normed), stem + "post_attention_norm")
            hidden, normed = nodes.sum_and_norm(hidden, attended, stem + "ffn_norm")
            skip = self._post_norm(self._mlp(stem, normed), stem + "post_ffw_norm")
        _, normed = nodes.sum_and_norm(hidden, skip, "output_norm")
        if not all_positions:
            normed = self._last_position(normed)
        nodes.logits(normed, arch.vocabulary, arch.hidden)
        graph = helper.make_graph(
            nodes.made, "decoder", self._inputs(), self._outputs(), initializer=nodes.initializers
        )  # fmt: skip
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, CONTRIB_OPSET)]
        return helper.make_model(graph, opset_imports=opsets, producer_name="perjoule", ir_version=10)

    def _inputs(self) -> list[ValueInfoProto]:
        arch = self._arch
        past: list[str | int | None] = ["batch", arch.kv_heads, "capacity", arch.head_dim]
        inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])]
        if self._lengths_from_mask:
            inputs.append(helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "total"]))
        else:
            inputs += [
                helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, ["batch"]),
                helper.make_tensor_value_info("total_sequence_length", TensorProto.INT32, []),
            ]
        return inputs + [
            helper.make_tensor_value_info(f"past_key_values.{layer}.{part}", self._nodes.activations, past)
            for layer in range(arch.layers)
            for part in ("key", "value")
        ]

    def _outputs(self) -> list[ValueInfoProto]:
        arch = self._arch
        present: list[str | int | None] = ["batch", arch.kv_heads, "capacity", arch.head_dim]
        logits = helper.make_tensor_value_info(
            "logits", TensorProto.FLOAT, ["batch", 1 if self._lengths_from_mask else "positions", arch.vocabulary]
        )
        return [logits] + [
            helper.make_tensor_value_info(f"present.{layer}.{part}", self._nodes.activations, present)
            for layer in range(arch.layers)
            for part in ("key", "value")
        ]

    def _count_mask(self) -> None:
        """Make ``seqlens_k`` (ones of each row, less one) and ``total_sequence_length`` (its width) from the mask."""
        nodes = self._nodes
        one, second = nodes.constant("mask.one", np.array([1])), nodes.constant("mask.second", np.array(1))
        counted = nodes.add("ReduceSum", ["attention_mask", one], ["mask.ones"], keepdims=0)
        last = nodes.add("Sub", [counted, one], ["mask.last"])
        nodes.add("Cast", [last], ["seqlens_k"], to=TensorProto.INT32)
        width = nodes.add("Gather", [nodes.add("Shape", ["attention_mask"], ["mask.shape"]), second], ["mask.width"])
        nodes.add("Cast", [width], ["total_sequence_length"], to=TensorProto.INT32)

    def _embed(self, ids: str) -> str:
        rows = self._nodes.lookup(ids, "embedding")
        if self._arch.embedding_scale == 1:
            return rows
        scale = self._nodes.constant("embedding.scale", np.array(self._arch.embedding_scale, dtype=np.float32))
        return self._nodes.add("Mul", [rows, scale], ["embedded"])

    def _post_norm(self, x: str, name: str) -> str:
        return self._nodes.norm(x, name) if self._arch.post_norm else x

    def _mlp(self, stem: str, x: str) -> str:
        arch, nodes = self._arch, self._nodes
        gate, up = self._gate_and_up(stem, x)
        if arch.activation == "silu":
            # SiLU is QuickGelu with alpha 1: x * sigmoid(alpha * x), one operator instead of two
            activated = nodes.add("QuickGelu", [gate], [stem + "activated"], CONTRIB, alpha=1.0)
        else:
            activated = nodes.add("FastGelu", [gate], [stem + "activated"], CONTRIB)  # its tanh approximation
        product = nodes.add("Mul", [activated, up], [stem + "gated"])
        return nodes.matmul(product, stem + "down", arch.hidden, arch.feed_forward)

    def _gate_and_up(self, stem: str, x: str) -> tuple[str, str]:
        arch, nodes = self._arch, self._nodes
        if not nodes.has(stem + FUSED):
            gate, up = (nodes.matmul(x, stem + part, arch.feed_forward, arch.hidden) for part in ("gate", "up"))
            return gate, up
        both = nodes.matmul(x, stem + FUSED, 2 * arch.feed_forward, arch.hidden)
        nodes.add("Split", [both], [stem + "gate.out", stem + "up.out"], axis=-1, num_outputs=2)
        return stem + "gate.out", stem + "up.out"

    def _last_position(self, x: str) -> str:
        start, end, axis = (
            self._nodes.constant(f"last.{name}", np.array([value]))
            for name, value in (("start", -1), ("end", 2**31 - 1), ("axis", 1))
        )
        return self._nodes.add("Slice", [x, start, end, axis], ["last"])
