"""Blockwise symmetric quantization in the layout of ONNX Runtime's MatMulNBits and GatherBlockQuantized.

A row of K weights is cut into blocks of ``block`` columns; each block has one float32 scale, and integers
around a fixed zero point (128 for 8 bits, 8 for 4 bits), so no zero points are stored or read.
Layout: the MatMulNBits section of ONNX Runtime's ContribOperators.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perjoule_backends.onnxruntime.manifest import Form

_INT4_CANDIDATES = np.linspace(0.75, 1.05, 13, dtype=np.float32)


def block_for(columns: int, preferred: int) -> int:
    """Return the largest block not above ``preferred`` that divides the columns; at least 16."""
    block = preferred
    while columns % block and block > 16:  # noqa: PLR2004 - the smallest block of MatMulNBits
        block //= 2
    return block


def quantize(weights: NDArray[np.float32], form: Form) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantize rows of weights, shape (N, K).

    Returns packed integers, shape (N, K / block, block * bits / 8), and scales, shape (N, K / block).
    """
    rows, columns = weights.shape
    blocks = weights.reshape(rows, columns // form.block, form.block)
    if form.bits == 8:  # noqa: PLR2004
        scales = np.abs(blocks).max(axis=2) / np.float32(127)
        codes = _codes(blocks, scales, -127, 127) + 128
        return codes.astype(np.uint8), scales
    scales = _int4_scales(blocks)
    return pack((_codes(blocks, scales, -8, 7) + 8).astype(np.uint8), form), scales


def pack(codes: NDArray[np.uint8], form: Form) -> NDArray[np.uint8]:
    """Pack integers, shape (N, K / block, block): two of 4 bits share a byte, the first of them its lower half."""
    if form.bits == 8:  # noqa: PLR2004
        return codes
    packed: NDArray[np.uint8] = codes[:, :, 0::2] | (codes[:, :, 1::2] << np.uint8(4))
    return packed


def dequantize(packed: NDArray[np.uint8], scales: NDArray[np.float32], form: Form) -> NDArray[np.float32]:
    """Invert ``quantize``; shape (N, K)."""
    if form.bits == 8:  # noqa: PLR2004
        codes = packed.astype(np.float32) - np.float32(128)
    else:
        codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], -1).astype(np.float32)
        codes -= np.float32(8)
    return (codes * scales[:, :, None]).reshape(packed.shape[0], -1)


def _codes(blocks: NDArray[np.float32], scales: NDArray[np.float32], low: int, high: int) -> NDArray[np.float32]:
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    return np.clip(np.rint(blocks * inverse[:, :, None]), low, high)


def _int4_scales(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pick, per block, the scale of least squared error among a few shrunken maxima.

    Signed, so that -8 stands for the larger end.
    """
    at = np.abs(blocks).argmax(axis=2)
    extreme = np.take_along_axis(blocks, at[:, :, None], axis=2)[:, :, 0]
    best = extreme / np.float32(-8)
    best_error = np.full(best.shape, np.inf, dtype=np.float32)
    for shrink in _INT4_CANDIDATES:
        scales = (extreme / np.float32(-8)) * shrink
        error = np.square(_codes(blocks, scales, -8, 7) * scales[:, :, None] - blocks).sum(axis=2)
        better = error < best_error
        best, best_error = np.where(better, scales, best), np.where(better, error, best_error)
    return best.astype(np.float32)
