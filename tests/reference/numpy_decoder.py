"""A decoder in plain numpy, float64, one position after the other: slow, and easy to check by eye.

RMS norm (Zhang and Sennrich 2019), rotary positions (Su et al. 2021), grouped-query attention (Ainslie et al.
2023), SwiGLU (Shazeer 2020). It shares nothing with the graph builder but the names of GGUF tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from perjoule_backends.checkpoints.gguf import GgufFile

    Array = NDArray[np.float64]


def logits(gguf: GgufFile, ids: Sequence[int]) -> Array:
    """Return logits of every position, shape (len(ids), vocabulary)."""
    name = gguf.metadata["general.architecture"]
    meta = {key.removeprefix(f"{name}."): value for key, value in gguf.metadata.items()}
    heads, kv_heads = meta["attention.head_count"], meta["attention.head_count_kv"]
    epsilon = meta["attention.layer_norm_rms_epsilon"]

    def weight(tensor: str) -> Array:
        return gguf.dequantize(tensor).astype(np.float64)

    def linear(x: Array, tensor: str) -> Array:
        y = x @ weight(f"{tensor}.weight").T
        return y + weight(f"{tensor}.bias")[0] if f"{tensor}.bias" in gguf.tensors else y

    def norm(x: Array, tensor: str) -> Array:
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon) * weight(f"{tensor}.weight")[0]

    x = weight("token_embd.weight")[list(ids)]
    for layer in range(meta["block_count"]):
        stem = f"blk.{layer}."
        normed = norm(x, stem + "attn_norm")
        q = _rotate(_heads(linear(normed, stem + "attn_q"), heads), meta["rope.freq_base"], name)
        k = _rotate(_heads(linear(normed, stem + "attn_k"), kv_heads), meta["rope.freq_base"], name)
        v = _heads(linear(normed, stem + "attn_v"), kv_heads)
        x = x + linear(_attend(q, k, v), stem + "attn_output")
        normed = norm(x, stem + "ffn_norm")
        gate = linear(normed, stem + "ffn_gate")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(normed, stem + "ffn_up"), stem + "ffn_down")
    head = "output" if "output.weight" in gguf.tensors else "token_embd"
    return linear(norm(x, "output_norm"), head)


def _heads(x: Array, heads: int) -> Array:
    return x.reshape(len(x), heads, -1)


def _rotate(x: Array, base: float, architecture: str) -> Array:
    """Rotate pairs of a head by position; llama files keep a pair side by side, the others half a head apart."""
    size = x.shape[-1]
    out = np.empty_like(x)
    for position in range(len(x)):
        for pair in range(size // 2):
            angle = position * base ** (-2 * pair / size)
            a, b = (2 * pair, 2 * pair + 1) if architecture == "llama" else (pair, pair + size // 2)
            out[position, :, a] = x[position, :, a] * np.cos(angle) - x[position, :, b] * np.sin(angle)
            out[position, :, b] = x[position, :, b] * np.cos(angle) + x[position, :, a] * np.sin(angle)
    return out


def _attend(q: Array, k: Array, v: Array) -> Array:
    positions, heads, size = q.shape
    shared = heads // k.shape[1]
    out = np.empty_like(q)
    for head in range(heads):
        keys, values = k[:, head // shared], v[:, head // shared]
        for position in range(positions):
            scores = keys[: position + 1] @ q[position, head] / np.sqrt(size)
            weights = np.exp(scores - scores.max())
            out[position, head] = weights @ values[: position + 1] / weights.sum()
    return out.reshape(positions, -1)
