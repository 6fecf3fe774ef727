"""Which GGUF types can be kept bit for bit as integers with one scale per block, and what those scales are.

The layout is that of ``MatMulNBits``: unsigned integers of 4 or 8 bits around one zero point, a float32 scale for each
block of a row. A type has such a form if each of its values is one product ``scale * integer``; types that add a
minimum to each block (Q4_1, Q5_1, Q2_K, Q4_K, Q5_K) have none. Block layouts: ``ggml-common.h`` in the ggml
repository; that the products are bit for bit those of ``gguf.dequantize`` is a test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from perjoule_backends.checkpoints.source import Weights

    _Blocks = NDArray[np.uint8]
    _Scales = NDArray[np.float32]


class ExactForm(Record, frozen=True, kw_only=True):
    """``bits`` per integer, the ``zero_point`` that stands for 0, and columns per scale."""

    bits: int
    zero_point: int
    block: int


def exact_form(type_name: str) -> ExactForm | None:
    """Return the exact integer form of a GGUF type; None where there is none (affine and floating types)."""
    entry = _FORMS.get(type_name)
    return None if entry is None else ExactForm(bits=entry[0], zero_point=1 << (entry[0] - 1), block=entry[1])


def exact_scales(type_name: str, stored: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the scale of every block of stored rows, shape (rows, columns / block).

    ``stored`` has shape (rows, bytes per row). Divided by its scale and rounded, a dequantized value is the integer
    that gives it back exactly. Raises ``KeyError`` for a type without an exact form.
    """
    _, _, block_bytes, scales = _FORMS[type_name]
    blocks = np.ascontiguousarray(stored).reshape(-1, block_bytes)
    return scales(blocks).astype(np.float32, copy=False).reshape(stored.shape[0], -1)


def exact_codes(values: NDArray[np.float32], scales: NDArray[np.float32], form: ExactForm) -> NDArray[np.uint8]:
    """Return the integers of dequantized rows, shape (rows, columns), not yet packed."""
    blocks = values.reshape(*scales.shape, form.block)
    whole = np.divide(blocks, scales[..., None], out=np.zeros_like(blocks), where=scales[..., None] != 0)
    return (np.rint(whole) + form.zero_point).astype(np.uint8).reshape(values.shape)


def import_report(
    source: Weights, forms: Mapping[str, tuple[int, int]], relative_error: Mapping[str, float]
) -> list[dict[str, object]]:
    """Say, for each kind of matrix, how the source stores it, how it is kept, and what that lost.

    ``forms`` gives bits and columns per scale (0: float32) of each part that a converted folder holds, named as the
    converter does (``embedding``, ``head``, ``l0.qkv``, ...); ``relative_error`` the root-mean-square error of a part
    relative to its values, 0 where the form is exact.
    """
    groups: dict[tuple[str, str, tuple[int, int]], list[float]] = {}
    for part, form in forms.items():
        stored = ", ".join(sorted({source.tensors[name].type_name for name in _sources(part, source)}))
        kind = part.partition(".")[2] or part
        lost_by = part if part in relative_error or part != "head" else "embedding"  # a tied head reads its bytes
        groups.setdefault((kind, stored, form), []).append(relative_error.get(lost_by, 0.0))
    return [
        {
            "matrix": kind,
            "count": len(lost),
            "stored_as": stored,
            "kept_as": f"{form[0]} bits, blocks of {form[1]}" if form[1] else "float32",
            "exact": sum(error == 0 for error in lost),
            "largest_relative_error": max(lost),
        }
        for (kind, stored, form), lost in groups.items()
    ]


def _sources(part: str, source: Weights) -> Sequence[str]:
    layer, _, kind = part.rpartition(".")
    names = _PARTS.get(kind, (kind,))
    stem = f"blk.{layer.removeprefix('l')}." if layer else ""
    found = [f"{stem}{name}.weight" for name in names]
    return [name for name in found if name in source.tensors] or ["token_embd.weight"]  # a head that is tied to it


_PARTS = {
    "embedding": ("token_embd",),
    "head": ("output",),
    "qkv": ("attn_q", "attn_k", "attn_v"),
    "gate": ("ffn_gate",),
    "up": ("ffn_up",),
    "gate_up": ("ffn_gate", "ffn_up"),
    "down": ("ffn_down",),
}


def _half(at: int) -> Callable[[_Blocks], _Scales]:
    """Return a reader of one float16 scale per block, ``at`` bytes from its start."""

    def read(blocks: _Blocks) -> _Scales:
        scales: _Scales = blocks[:, at : at + 2].copy().view("<f2").astype(np.float32)
        return scales

    return read


def _q3_k(blocks: _Blocks) -> _Scales:
    """Sixteen scales of 6 bits: low halves in 8 bytes, high quarters in 4; they count from -32."""
    packed = blocks[:, 96:108]
    low = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)
    high = np.concatenate([(packed[:, 8:] >> shift) & 3 for shift in (0, 2, 4, 6)], axis=1)
    scales: _Scales = _half(108)(blocks) * ((low | (high << 4)).astype(np.float32) - np.float32(32))
    return scales


def _q6_k(blocks: _Blocks) -> _Scales:
    return _half(208)(blocks) * blocks[:, 192:208].copy().view(np.int8).astype(np.float32)


def _iq4_xs(blocks: _Blocks) -> _Scales:
    """Eight scales of 6 bits: low nibbles in 4 bytes, high pairs in a 16-bit number; they count from -32."""
    pairs = blocks[:, 2:4].copy().view("<u2")
    high = np.concatenate([(pairs >> np.uint16(2 * i)) & np.uint16(3) for i in range(8)], axis=1)
    low = _nibbles(blocks[:, 4:8])
    return _half(0)(blocks) * ((low | (high << 4)).astype(np.float32) - np.float32(32))


def _nibbles(packed: _Blocks) -> NDArray[np.uint8]:
    return np.stack([packed & 15, packed >> 4], axis=2).reshape(packed.shape[0], -1)


def _top_bits(blocks: _Blocks, at: int, step: int) -> _Scales:
    """Return 0.5 plus the upper four bits of each 32-bit number; they lie ``step`` numbers apart."""
    numbers = blocks[:, at:].copy().view("<u4")[:, step - 1 :: step]
    return np.float32(0.5) + (numbers >> np.uint32(28)).astype(np.float32)


def _iq2_xxs(blocks: _Blocks) -> _Scales:
    return _half(0)(blocks) * _top_bits(blocks, 2, 2) * np.float32(0.25)


def _iq2_xs(blocks: _Blocks) -> _Scales:
    return _half(0)(blocks) * (np.float32(0.5) + _nibbles(blocks[:, 66:]).astype(np.float32)) * np.float32(0.25)


def _iq2_s(blocks: _Blocks) -> _Scales:
    return _half(0)(blocks) * (np.float32(0.5) + _nibbles(blocks[:, 74:]).astype(np.float32)) * np.float32(0.25)


def _iq3_xxs(blocks: _Blocks) -> _Scales:
    return _half(0)(blocks) * _top_bits(blocks, 66, 1) * np.float32(0.5)


def _iq3_s(blocks: _Blocks) -> _Scales:
    return _half(0)(blocks) * (1 + 2 * _nibbles(blocks[:, 106:]).astype(np.float32))


def _iq1_s(blocks: _Blocks) -> _Scales:
    """Values are odd multiples of an eighth of what the block's three bits give."""
    bits = (blocks[:, 34:].copy().view("<u2") >> np.uint16(12)) & np.uint16(7)
    return _half(0)(blocks) * (2 * bits + 1).astype(np.float32) * np.float32(0.125)


def _iq1_m(blocks: _Blocks) -> _Scales:
    """As IQ1_S, with the float16 in the upper nibbles of the four numbers that hold the bits."""
    numbers = blocks[:, 48:].copy().view("<u2")
    half = np.zeros(len(blocks), dtype=np.uint16)
    for i in range(4):
        half |= (numbers[:, i] >> np.uint16(12)) << np.uint16(4 * i)
    bits = np.stack([(numbers >> np.uint16(3 * i)) & np.uint16(7) for i in range(4)], axis=2).reshape(len(blocks), -1)
    return half.view("<f2").astype(np.float32)[:, None] * (2 * bits + 1).astype(np.float32) * np.float32(0.125)


def _mxfp4(blocks: _Blocks) -> _Scales:
    """Half of 2^(e - 127): integers are doubled values. Exponents below 2 give subnormal numbers."""
    return np.ldexp(np.float32(1), blocks[:, :1].astype(np.int32) - 128).astype(np.float32)


def _nvfp4(blocks: _Blocks) -> _Scales:
    """Half of an unsigned number with 4 bits of exponent (bias 7) and 3 of mantissa; 127 stands for none."""
    exponent, mantissa = (blocks[:, :4] >> 3).astype(np.int32) & 15, (blocks[:, :4] & 7).astype(np.float32)
    normal = np.ldexp(1 + mantissa / 8, exponent - 7)
    value = np.where(exponent == 0, np.ldexp(mantissa, -9), normal) / 2
    return np.where(blocks[:, :4] == 127, np.float32(0), value).astype(np.float32)  # noqa: PLR2004 - as above


# type: bits, columns per scale, bytes of its own block, scales of such blocks
_FORMS: dict[str, tuple[int, int, int, Callable[[_Blocks], _Scales]]] = {
    "Q4_0": (4, 32, 18, _half(0)),
    "Q3_K": (4, 16, 110, _q3_k),
    "TQ1_0": (4, 256, 54, _half(52)),
    "TQ2_0": (4, 256, 66, _half(64)),
    "Q5_0": (8, 32, 22, _half(0)),
    "Q8_0": (8, 32, 34, _half(0)),
    "Q6_K": (8, 16, 210, _q6_k),
    "IQ4_NL": (8, 32, 18, _half(0)),
    "IQ4_XS": (8, 32, 136, _iq4_xs),
    "IQ1_S": (8, 32, 50, _iq1_s),
    "IQ1_M": (8, 16, 56, _iq1_m),
    "IQ2_XXS": (8, 32, 66, _iq2_xxs),
    "IQ2_XS": (8, 16, 74, _iq2_xs),
    "IQ2_S": (8, 16, 82, _iq2_s),
    "IQ3_XXS": (8, 32, 98, _iq3_xxs),
    "IQ3_S": (8, 32, 110, _iq3_s),
    "MXFP4": (8, 32, 17, _mxfp4),
    "NVFP4": (8, 16, 36, _nvfp4),
}
