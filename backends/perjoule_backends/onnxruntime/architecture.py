"""What a decoder looks like, read from the metadata of a checkpoint."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from perjoule.errors import InputError
from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perjoule_backends.checkpoints.gguf import GgufFile

SUPPORTED = ("llama", "qwen2")
# GGUF files of the llama architecture store the rows of Q and K permuted for rotary pairs that lie side by
# side; the others keep the two halves of a head apart.
_INTERLEAVED_ROTARY = frozenset({"llama"})
MAX_CONTEXT = 1 << 20  # the rotary tables grow with it; the longest published dense checkpoints state about this much
_TENSORS_PER_LAYER = 9  # at least
_BLOCK, _HEAD_STEP = 16, 8  # what MatMulNBits and GroupQueryAttention want rows and heads to be multiples of
_MAX_EXTENT = 1 << 24  # rows or columns of a matrix
_DAMAGED = "the file is damaged: download it again"


class Architecture(Record, frozen=True, kw_only=True):
    """Shapes and constants of a decoder-only transformer with grouped-query attention and a gated MLP."""

    name: str
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    rope_base: float
    rotary_interleaved: bool
    norm_epsilon: float
    attention_bias: bool
    tied_head: bool

    @property
    def qkv_rows(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def kv_bytes_per_position(self) -> int:
        """Return bytes of float32 keys and values one position adds, all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * 4


def read_architecture(gguf: GgufFile) -> Architecture:
    """Read the shapes. Raises ``InputError`` for an architecture that is not built here, or missing keys."""
    meta = gguf.metadata
    name = meta.get("general.architecture")
    if name not in SUPPORTED:
        raise InputError(
            f"{gguf.path.name}: architecture {_shown(name)} is not supported by the onnxruntime backend",
            hint=f"these are: {', '.join(SUPPORTED)}",
        )
    _refuse_variants(gguf, str(name))

    def real(key: str, default: float | None = None) -> float:
        value = meta.get(f"{name}.{key}", default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise InputError(f"{gguf.path.name}: metadata {name}.{key} is {_shown(value)}", hint=_DAMAGED)
        return float(value)

    def whole(key: str, most: int, default: int | None = None) -> int:
        value = meta.get(f"{name}.{key}", default)
        if type(value) is not int or not 0 < value <= most:
            shown = f"{_shown(value)}, expected 1 to {most}"
            raise InputError(f"{gguf.path.name}: metadata {name}.{key} is {shown}", hint=_DAMAGED)
        return value

    vocabulary, columns = _matrix_shape(gguf, "token_embd.weight")
    hidden = whole("embedding_length", columns)
    heads = whole("attention.head_count", hidden)
    return Architecture(
        name=str(name),
        layers=whole("block_count", len(gguf.tensors) // _TENSORS_PER_LAYER),
        hidden=hidden,
        feed_forward=whole("feed_forward_length", _MAX_EXTENT),
        heads=heads,
        kv_heads=whole("attention.head_count_kv", heads, heads),
        head_dim=whole("attention.key_length", _MAX_EXTENT, hidden // heads),
        vocabulary=vocabulary,
        context=whole("context_length", MAX_CONTEXT),
        rope_base=real("rope.freq_base", 10000.0),
        rotary_interleaved=name in _INTERLEAVED_ROTARY,
        norm_epsilon=real("attention.layer_norm_rms_epsilon"),
        attention_bias="blk.0.attn_q.bias" in gguf.tensors,
        tied_head="output.weight" not in gguf.tensors,
    )


def check_tensors(gguf: GgufFile, arch: Architecture) -> None:
    """Hold every tensor the graph needs against its expected shape, and the shapes against what the operators take.

    Raises ``InputError`` naming the first wrong one.
    """
    _check_multiples(gguf, arch)
    for tensor, shape in expected_shapes(arch).items():
        found = _tensor_shape(gguf, tensor)
        if found != shape:
            raise InputError(
                f"{gguf.path.name}: tensor {tensor} has shape {found}, expected {shape}",
                hint="the file is damaged or of another architecture: download it again",
            )


def _check_multiples(gguf: GgufFile, arch: Architecture) -> None:
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


def expected_shapes(arch: Architecture) -> dict[str, tuple[int, ...]]:
    kv, q = arch.kv_heads * arch.head_dim, arch.heads * arch.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (arch.vocabulary, arch.hidden),
        "output_norm.weight": (arch.hidden,),
    }
    if not arch.tied_head:
        shapes["output.weight"] = (arch.vocabulary, arch.hidden)
    for layer in range(arch.layers):
        stem = f"blk.{layer}."
        shapes |= {
            stem + "attn_norm.weight": (arch.hidden,),
            stem + "ffn_norm.weight": (arch.hidden,),
            stem + "attn_q.weight": (q, arch.hidden),
            stem + "attn_k.weight": (kv, arch.hidden),
            stem + "attn_v.weight": (kv, arch.hidden),
            stem + "attn_output.weight": (arch.hidden, q),
            stem + "ffn_gate.weight": (arch.feed_forward, arch.hidden),
            stem + "ffn_up.weight": (arch.feed_forward, arch.hidden),
            stem + "ffn_down.weight": (arch.hidden, arch.feed_forward),
        }
        if arch.attention_bias:
            shapes |= {stem + "attn_q.bias": (q,), stem + "attn_k.bias": (kv,), stem + "attn_v.bias": (kv,)}
    return shapes


def parameter_count(gguf: GgufFile) -> int:
    total = 0
    for tensor in gguf.tensors.values():
        elements = 1
        for size in tensor.shape:
            elements *= size
        total += elements
    return total


def _tensor_shape(gguf: GgufFile, name: str) -> tuple[int, ...]:
    tensor = gguf.tensors.get(name)
    if tensor is None:
        raise InputError(f"{gguf.path.name}: tensor {name} is missing", hint=_DAMAGED)
    return tensor.shape


def _matrix_shape(gguf: GgufFile, name: str) -> tuple[int, int]:
    shape = _tensor_shape(gguf, name)
    if len(shape) != 2:  # noqa: PLR2004 - rows and columns
        raise InputError(f"{gguf.path.name}: tensor {name} has shape {shape}, expected a matrix", hint=_DAMAGED)
    return shape[0], shape[1]


def _shown(value: object) -> str:
    """Return a value of the file short enough for a line."""
    return repr(value if not isinstance(value, list) else value[:3])[:60]


def _refuse_variants(gguf: GgufFile, name: str) -> None:
    """Refuse what would run but be wrong: another rotary scaling, experts."""
    meta: Mapping[str, Any] = gguf.metadata
    scaling = meta.get(f"{name}.rope.scaling.type", "none")
    if scaling != "none" or "rope_freqs.weight" in gguf.tensors:
        raise InputError(
            f"{gguf.path.name}: rotary scaling {_shown(scaling)} is not supported by the onnxruntime backend",
            hint="use a checkpoint without rope scaling",
        )
    if meta.get(f"{name}.expert_count"):
        raise InputError(
            f"{gguf.path.name}: mixture-of-experts checkpoints are not supported by the onnxruntime backend",
            hint="use a dense checkpoint",
        )
