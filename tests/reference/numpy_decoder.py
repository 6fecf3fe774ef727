"""A decoder in plain numpy, float64, one position after the other: slow, and easy to check by eye.

RMS norm (Zhang and Sennrich 2019), rotary positions (Su et al. 2021), grouped-query attention (Ainslie et al.
2023), SwiGLU and GeGLU (Shazeer 2020), windows, norms of heads and norms behind (Gemma 3 report, 2025). It shares
nothing with the graph builder but the names of GGUF tensors and keys.
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

    def norm_if_any(x: Array, tensor: str) -> Array:
        return norm(x, tensor) if f"{tensor}.weight" in gguf.tensors else x

    gemma = name == "gemma3"
    x = weight("token_embd.weight")[list(ids)] * (meta["embedding_length"] ** 0.5 if gemma else 1.0)
    for layer in range(meta["block_count"]):
        stem = f"blk.{layer}."
        local = gemma and layer % 6 != 5
        divisors = np.full(_heads(linear(x, stem + "attn_q"), heads).shape[-1] // 2, meta.get("rope.scaling.factor", 1))
        if "rope_freqs.weight" in gguf.tensors:
            divisors = divisors * weight("rope_freqs.weight")[0]
        rotation = (10000.0, np.ones(len(divisors))) if local else (meta["rope.freq_base"], divisors)
        normed = norm(x, stem + "attn_norm")
        q = norm_if_any(_heads(linear(normed, stem + "attn_q"), heads), stem + "attn_q_norm")
        k = norm_if_any(_heads(linear(normed, stem + "attn_k"), kv_heads), stem + "attn_k_norm")
        v = _heads(linear(normed, stem + "attn_v"), kv_heads)
        window = meta["attention.sliding_window"] if local else len(ids)
        attended = _attend(_rotate(q, *rotation, name), _rotate(k, *rotation, name), v, window)
        x = x + norm_if_any(linear(attended, stem + "attn_output"), stem + "post_attention_norm")
        normed = norm(x, stem + "ffn_norm")
        gate = linear(normed, stem + "ffn_gate")
        activated = _gelu(gate) if gemma else gate / (1 + np.exp(-gate))
        down = linear(activated * linear(normed, stem + "ffn_up"), stem + "ffn_down")
        x = x + norm_if_any(down, stem + "post_ffw_norm")
    head = "output" if "output.weight" in gguf.tensors else "token_embd"
    return linear(norm(x, "output_norm"), head)


def _heads(x: Array, heads: int) -> Array:
    return x.reshape(len(x), heads, -1)


def _gelu(x: Array) -> Array:
    """The tanh approximation (Hendrycks and Gimpel 2016)."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _rotate(x: Array, base: float, divisors: Array, architecture: str) -> Array:
    """Rotate pairs of a head by position; llama files keep a pair side by side, the others half a head apart."""
    size = x.shape[-1]
    out = np.empty_like(x)
    for position in range(len(x)):
        for pair in range(size // 2):
            angle = position * base ** (-2 * pair / size) / divisors[pair]
            a, b = (2 * pair, 2 * pair + 1) if architecture == "llama" else (pair, pair + size // 2)
            out[position, :, a] = x[position, :, a] * np.cos(angle) - x[position, :, b] * np.sin(angle)
            out[position, :, b] = x[position, :, b] * np.cos(angle) + x[position, :, a] * np.sin(angle)
    return out


def _attend(q: Array, k: Array, v: Array, window: int) -> Array:
    """Let each position see ``window`` of them, itself the last."""
    positions, heads, size = q.shape
    shared = heads // k.shape[1]
    out = np.empty_like(q)
    for head in range(heads):
        keys, values = k[:, head // shared], v[:, head // shared]
        for position in range(positions):
            seen = slice(max(0, position + 1 - window), position + 1)
            scores = keys[seen] @ q[position, head] / np.sqrt(size)
            weights = np.exp(scores - scores.max())
            out[position, head] = weights @ values[seen] / weights.sum()
    return out.reshape(positions, -1)
