"""Attention as GroupQueryAttention of ONNX Runtime, over the cache and with rotary positions.

Its inputs for norms of Q and K are for other providers: that of the CPU refuses them (ContribOperators.md of ONNX
Runtime 1.32). Where an architecture normalizes heads, the packed product is therefore cut into Q, K and V first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from perjoule_backends.onnxruntime.nodes import CONTRIB

if TYPE_CHECKING:
    from perjoule_backends.onnxruntime.architecture import Architecture
    from perjoule_backends.onnxruntime.nodes import Nodes


class Attention:
    """Adds the attention of one layer after the other."""

    def __init__(self, arch: Architecture, nodes: Nodes) -> None:
        self._arch, self._nodes = arch, nodes

    def add(self, layer: int, x: str) -> str:
        """Return what the heads of ``layer`` say of ``x``, shape (batch, sequence, hidden), multiplied out."""
        arch, nodes, stem = self._arch, self._nodes, f"l{layer}."
        packed = nodes.matmul(x, stem + "qkv", arch.qkv_rows, arch.hidden, bias=arch.attention_bias)
        query_key_value = self._normalized(packed, stem) if arch.qk_norm else [packed, "", ""]
        local = layer in arch.window_layers
        table = arch.rotary_tables[1 if local else 0]
        attributes: dict[str, Any] = {"local_window_size": arch.window} if local else {}
        if arch.attention_scale != arch.head_dim**-0.5:
            attributes["scale"] = arch.attention_scale
        inputs = [
            *query_key_value,
            f"past_key_values.{layer}.key", f"past_key_values.{layer}.value",
            "seqlens_k", "total_sequence_length",
            nodes.weight(f"{table}.cos"), nodes.weight(f"{table}.sin"),
        ]  # fmt: skip
        outputs = [f"{stem}attention", f"present.{layer}.key", f"present.{layer}.value"]
        nodes.add(
            "GroupQueryAttention", inputs, outputs, CONTRIB,
            num_heads=arch.heads, kv_num_heads=arch.kv_heads, do_rotary=1,
            rotary_interleaved=int(arch.rotary_interleaved), **attributes,
        )  # fmt: skip
        return nodes.matmul(outputs[0], stem + "attn_output", arch.hidden, arch.heads * arch.head_dim)

    def _normalized(self, packed: str, stem: str) -> list[str]:
        """Cut Q, K and V apart and normalize each head of Q and K."""
        arch, nodes = self._arch, self._nodes
        q, kv = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
        sizes = nodes.constant("qkv.sizes", np.array([q, kv, kv]))
        parts = [f"{stem}{part}" for part in "qkv"]
        nodes.add("Split", [packed, sizes], parts, axis=-1)
        # In a Reshape 0 keeps an extent
        apart = nodes.constant("heads.apart", np.array([0, 0, -1, arch.head_dim]))
        normed = []
        for part, width in zip("qk", (q, kv), strict=True):
            together = nodes.constant(f"heads.{part}", np.array([0, 0, width]))
            heads = nodes.add("Reshape", [f"{stem}{part}", apart], [f"{stem}{part}.heads"])
            heads = nodes.norm(heads, f"{stem}attn_{part}_norm")
            normed.append(nodes.add("Reshape", [heads, together], [f"{stem}{part}.normed"]))
        return [*normed, parts[2]]
