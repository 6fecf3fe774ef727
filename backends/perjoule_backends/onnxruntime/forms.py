"""The matrices of a decoder, and the form that each is stored in.

docs/adr/0002: wide blocks stream and compute less, and lose little. A tensor that the file keeps as integers with one
scale per block can be kept as it is, to the last bit (``checkpoints.exact_forms``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.records import Record
from perjoule_backends.checkpoints import exact_forms
from perjoule_backends.onnxruntime.manifest import FLOAT32, Form
from perjoule_backends.onnxruntime.nodes import FUSED
from perjoule_backends.onnxruntime.quantize import block_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perjoule_backends.checkpoints.source import Weights
    from perjoule_backends.onnxruntime.architecture import Architecture

_NARROW, _WIDE = 32, 256  # columns per scale; 256 is the widest that MatMulNBits has fast code for
# Where wide blocks in the layers miss the bound: their inputs have columns that stand out, and activations are rounded
# block by block like the weights (docs/adr/0005).
_NARROW_LAYERS = frozenset({"gemma3"})


class Matrix(Record, frozen=True, kw_only=True):
    """One matrix of the graph: tensors of the file one below the other, and the biases that go with them."""

    part: str
    sources: tuple[str, ...]
    biases: tuple[str, ...] = ()


def matrices(arch: Architecture, *, fused_mlp: bool) -> Iterator[Matrix]:
    """Yield them in the order of the weights file. A tied head is the embedding's own bytes and not among them.

    ``fused_mlp`` puts gate and up one below the other.
    """
    yield Matrix(part="embedding", sources=("token_embd.weight",))
    if not arch.tied_head:
        yield Matrix(part="head", sources=("output.weight",))
    for layer in range(arch.layers):
        stem, short = f"blk.{layer}.", f"l{layer}."
        qkv = [f"{stem}attn_{name}" for name in "qkv"]
        yield Matrix(
            part=short + "qkv",
            sources=tuple(f"{name}.weight" for name in qkv),
            biases=tuple(f"{name}.bias" for name in qkv) if arch.attention_bias else (),
        )
        yield Matrix(part=short + "attn_output", sources=(f"{stem}attn_output.weight",))
        if fused_mlp:
            yield Matrix(part=short + FUSED, sources=(f"{stem}ffn_gate.weight", f"{stem}ffn_up.weight"))
        for part in ("down",) if fused_mlp else ("gate", "up", "down"):
            yield Matrix(part=short + part, sources=(f"{stem}ffn_{part}.weight",))


def form_of(gguf: Weights, arch: Architecture, quant: str, matrix: Matrix) -> Form:
    """Choose bits and block width."""
    columns = gguf.tensors[matrix.sources[0]].shape[1]
    if quant == "fp32":
        return FLOAT32
    if quant == "int4" and matrix.part not in ("embedding", "head"):
        return Form(bits=4, block=block_for(columns, _NARROW))
    if quant != "faithful":  # under int4 too: the head decides the words, 4 bits there cost more than they save
        return Form(bits=8, block=block_for(columns, _NARROW))
    form = Form(bits=8, block=block_for(columns, _widest(arch, matrix)))
    exact = exact_form(gguf, matrix)
    return exact if exact is not None and exact.bits_per_weight <= form.bits_per_weight else form


def exact_form(gguf: Weights, matrix: Matrix) -> Form | None:
    """Return the form that holds a matrix as the file does, where all its tensors are of one such type."""
    kinds = {gguf.tensors[name].type_name for name in matrix.sources}
    found = exact_forms.exact_form(kinds.pop()) if len(kinds) == 1 else None
    return None if found is None else Form(bits=found.bits, block=found.block)


def _widest(arch: Architecture, matrix: Matrix) -> int:
    """Return how many columns may share a scale without costing more than the file's own quantization does."""
    return _NARROW if arch.name in _NARROW_LAYERS and matrix.part not in ("embedding", "head") else _WIDE
