"""Which tensors a decoder needs and of what shape, held against those of a file before any is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.errors import InputError
from perjoule_backends.onnxruntime.architecture import ROPE_FACTORS

if TYPE_CHECKING:
    from perjoule_backends.checkpoints.source import Weights
    from perjoule_backends.onnxruntime.architecture import Architecture

_BLOCK, _HEAD_STEP = 16, 8  # what MatMulNBits and GroupQueryAttention want rows and heads to be multiples of
_DAMAGED = "the file is damaged: download it again"


def check_tensors(gguf: Weights, arch: Architecture) -> None:
    """Hold every tensor the graph needs against its expected shape, and the shapes against what the operators take.

    Raises ``InputError`` naming the first wrong one, or one that the graph would leave out.
    """
    _check_multiples(gguf, arch)
    expected = expected_shapes(arch)
    for tensor, shape in expected.items():
        found = gguf.tensors.get(tensor)
        if found is None:
            raise InputError(f"{gguf.path.name}: tensor {tensor} is missing", hint=_DAMAGED)
        if found.shape != shape:
            raise InputError(
                f"{gguf.path.name}: tensor {tensor} has shape {found.shape}, expected {shape}",
                hint="the file is damaged or of another architecture: download it again",
            )
    unknown = next((tensor for tensor in gguf.tensors if tensor not in expected), None)
    if unknown is not None:
        raise InputError(
            f"{gguf.path.name}: tensor {unknown[:60]!r} has no place in the architecture {arch.name}",
            hint="it would be left out and the answers be wrong: use another checkpoint",
        )


def expected_shapes(arch: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor by its name, rows first."""
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (arch.vocabulary, arch.hidden),
        "output_norm.weight": (arch.hidden,),
    }
    if not arch.tied_head:
        shapes["output.weight"] = (arch.vocabulary, arch.hidden)
    if arch.rope_factors:
        shapes[ROPE_FACTORS] = (arch.head_dim // 2,)
    for layer in range(arch.layers):
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in _layer(arch).items()}
    return shapes


def norms(arch: Architecture) -> tuple[str, ...]:
    """Return the names of the norms in a layer, without ``.weight``."""
    return tuple(name.removesuffix(".weight") for name, shape in _layer(arch).items() if name.endswith("norm.weight"))


def _layer(arch: Architecture) -> dict[str, tuple[int, ...]]:
    kv, q = arch.kv_heads * arch.head_dim, arch.heads * arch.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (arch.hidden,),
        "ffn_norm.weight": (arch.hidden,),
        "attn_q.weight": (q, arch.hidden),
        "attn_k.weight": (kv, arch.hidden),
        "attn_v.weight": (kv, arch.hidden),
        "attn_output.weight": (arch.hidden, q),
        "ffn_gate.weight": (arch.feed_forward, arch.hidden),
        "ffn_up.weight": (arch.feed_forward, arch.hidden),
        "ffn_down.weight": (arch.hidden, arch.feed_forward),
    }
    if arch.attention_bias:
        shapes |= {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
    if arch.qk_norm:
        shapes |= {"attn_q_norm.weight": (arch.head_dim,), "attn_k_norm.weight": (arch.head_dim,)}
    if arch.post_norm:
        shapes |= {"post_attention_norm.weight": (arch.hidden,), "post_ffw_norm.weight": (arch.hidden,)}
    return shapes


def _check_multiples(gguf: Weights, arch: Architecture) -> None:
    for what, value, step in (
        ("embedding_length", arch.hidden, _BLOCK),
        ("feed_forward_length", arch.feed_forward, _BLOCK),
        ("width of all heads", arch.heads * arch.head_dim, _BLOCK),
        ("width of a head", arch.head_dim, _HEAD_STEP),
        ("attention.head_count", arch.heads, arch.kv_heads),
    ):
        if value % step:
            raise InputError(
                f"{gguf.path.name}: {what} is {value}; the onnxruntime backend needs a multiple of {step}",
                hint="use another checkpoint, or download the file again if it should have other shapes",
            )
    tokens = gguf.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, list) and len(tokens) > arch.vocabulary:
        raise InputError(
            f"{gguf.path.name}: {len(tokens)} tokens, but the embedding has {arch.vocabulary} rows", hint=_DAMAGED
        )
