"""What a decoder looks like, read from the metadata of a checkpoint."""

from __future__ import annotations

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
            f"{gguf.path.name}: architecture {name!r} is not supported by the onnxruntime backend",
            hint=f"these are: {', '.join(SUPPORTED)}",
        )
    _refuse_variants(gguf, str(name))

    def number(key: str, default: float | None = None) -> Any:
        value = meta.get(f"{name}.{key}", default)
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise InputError(
                f"{gguf.path.name}: metadata {name}.{key} is {value!r}",
                hint="the file is damaged: download it again",
            )
        return value

    heads, hidden = int(number("attention.head_count")), int(number("embedding_length"))
    embedding = _tensor_shape(gguf, "token_embd.weight")
    return Architecture(
        name=str(name),
        layers=int(number("block_count")),
        hidden=hidden,
        feed_forward=int(number("feed_forward_length")),
        heads=heads,
        kv_heads=int(number("attention.head_count_kv", heads)),
        head_dim=int(number("attention.key_length", hidden // heads)),
        vocabulary=embedding[0],
        context=int(number("context_length")),
        rope_base=float(number("rope.freq_base", 10000.0)),
        rotary_interleaved=name in _INTERLEAVED_ROTARY,
        norm_epsilon=float(number("attention.layer_norm_rms_epsilon")),
        attention_bias="blk.0.attn_q.bias" in gguf.tensors,
        tied_head="output.weight" not in gguf.tensors,
    )


def check_tensors(gguf: GgufFile, arch: Architecture) -> None:
    """Hold every tensor the graph needs against its expected shape.

    Raises ``InputError`` naming the first wrong one.
    """
    for tensor, shape in expected_shapes(arch).items():
        found = _tensor_shape(gguf, tensor)
        if found != shape:
            raise InputError(
                f"{gguf.path.name}: tensor {tensor} has shape {found}, expected {shape}",
                hint="the file is damaged or of another architecture: download it again",
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
        raise InputError(f"{gguf.path.name}: tensor {name} is missing", hint="the file is damaged: download it again")
    return tensor.shape


def _refuse_variants(gguf: GgufFile, name: str) -> None:
    """Refuse what would run but be wrong: another rotary scaling, experts."""
    meta: Mapping[str, Any] = gguf.metadata
    scaling = meta.get(f"{name}.rope.scaling.type", "none")
    if scaling != "none" or "rope_freqs.weight" in gguf.tensors:
        raise InputError(
            f"{gguf.path.name}: scaled rotary embedding ({scaling}) is not supported by the onnxruntime backend",
            hint="use a checkpoint without rope scaling",
        )
    if meta.get(f"{name}.expert_count"):
        raise InputError(
            f"{gguf.path.name}: mixture-of-experts checkpoints are not supported by the onnxruntime backend",
            hint="use a dense checkpoint",
        )
