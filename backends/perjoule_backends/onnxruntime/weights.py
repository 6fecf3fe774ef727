"""The weights file of a converted folder: written tensor by tensor, a few rows at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from onnx import TensorProto

from perjoule.errors import InputError
from perjoule_backends.checkpoints import exact_forms
from perjoule_backends.onnxruntime.architecture import ROPE_FACTORS
from perjoule_backends.onnxruntime.forms import exact_form, form_of, matrices
from perjoule_backends.onnxruntime.nodes import Stored
from perjoule_backends.onnxruntime.quantize import dequantize, pack, quantize
from perjoule_backends.onnxruntime.tensors import expected_shapes, norms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from perjoule_backends.checkpoints.source import Weights
    from perjoule_backends.onnxruntime.architecture import Architecture
    from perjoule_backends.onnxruntime.forms import Matrix
    from perjoule_backends.onnxruntime.manifest import Form

_ALIGNMENT = 4096  # a page: ONNX Runtime maps external data instead of reading it
_ROWS_AT_ONCE_BYTES = 64 << 20
_ELEMENTS = {"uint8": TensorProto.UINT8, "float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT}
_LARGEST = 1e18  # of a weight: its square is still finite in float32


class Writer:
    """Writes the weights file, a few rows of one tensor at a time."""

    def __init__(self, gguf: Weights, arch: Architecture, quant: str, file: BinaryIO, *, fused_mlp: bool) -> None:
        self._gguf, self._arch, self._quant, self._file = gguf, arch, quant, file
        self._fused_mlp = fused_mlp
        self.stored: dict[str, Stored] = {}
        self.forms: dict[str, Form] = {}
        self.relative_error: dict[str, float] = {}
        self.unique_bytes = self.streamed_bytes = self.matrix_bytes = self.matrix_weights = 0

    def write_all(self) -> Iterator[float]:
        """Write everything; yield the share done after each part."""
        arch = self._arch
        total = sum(np.prod(shape) for shape in expected_shapes(arch).values())
        self._rotary()
        for matrix in matrices(arch, fused_mlp=self._fused_mlp):
            self._matrix(matrix)
            if matrix.biases:
                values = np.concatenate([self._values(name)[0] for name in matrix.biases])
                self._put(f"{matrix.part}.bias", values, streamed=True)
            yield float(min(1.0, self.matrix_weights / total))
        if arch.tied_head:
            self._tie_head()
        names = ["output_norm", *(f"blk.{layer}.{name}" for layer in range(arch.layers) for name in norms(arch))]
        for name in names:
            self._put(f"{name.replace('blk.', 'l')}.weight", self._values(f"{name}.weight")[0], streamed=True)

    def _rotary(self) -> None:
        """Write cosine and sine of position / base^(2 i / head_dim), shape (context, head_dim / 2).

        Scaled checkpoints divide the positions by a number or each frequency by a factor of its own.
        """
        arch = self._arch
        positions = np.arange(arch.context, dtype=np.float64)
        exponents = -np.arange(0, arch.head_dim, 2, dtype=np.float64) / arch.head_dim
        rates = arch.rope_base**exponents / arch.rope_scale
        if arch.rope_factors:
            rates /= self._rope_factors()
        for name in arch.rotary_tables:
            angles = np.outer(positions, rates if name == "rotary" else arch.local_rope_base**exponents)
            self._put(f"{name}.cos", np.cos(angles).astype(np.float32), streamed=False)
            self._put(f"{name}.sin", np.sin(angles).astype(np.float32), streamed=False)

    def _rope_factors(self) -> NDArray[np.float32]:
        factors: NDArray[np.float32] = self._values(ROPE_FACTORS)[0]
        if factors.min() <= 0:
            raise InputError(
                f"{self._gguf.path.name}: tensor {ROPE_FACTORS} holds {factors.min()}",
                hint="the file is damaged: download it again",
            )
        return factors

    def _matrix(self, matrix: Matrix) -> None:
        part, form = matrix.part, form_of(self._gguf, self._arch, self._quant, matrix)
        self.forms[part] = form
        # One row of the embedding is read per token, all of it where the head reads the same bytes.
        streamed = part != "embedding" or (self._arch.tied_head and form.block > 0)
        if not form.block:
            dense = np.concatenate([self._values(name) for name in matrix.sources])
            # MatMul wants columns first; the embedding and a tied head are looked up by row
            self._put(
                f"{part}.weight",
                dense if part == "embedding" else np.ascontiguousarray(dense.T),
                streamed=streamed,
            )
            self._count(dense.size, dense.nbytes)
            return
        codes, scales, weights = self._quantized(matrix, form)
        if part == "embedding":
            codes = codes.reshape(codes.shape[0], -1)
        self._put(f"{part}.codes", codes, streamed=streamed)
        self._put(f"{part}.scales", scales, streamed=streamed)
        self._count(weights, codes.nbytes + scales.nbytes)

    def _quantized(self, matrix: Matrix, form: Form) -> tuple[NDArray[np.uint8], NDArray[np.float32], int]:
        codes, scales, weights = [], [], 0
        lost = kept = 0.0
        exact = form == exact_form(self._gguf, matrix)
        for name, rows in self._pieces(*matrix.sources):
            dense = self._values(name, rows)
            chunk_codes, chunk_scales = self._kept(name, rows, dense, form) if exact else quantize(dense, form)
            chunk_scales = self._stored_as(chunk_scales)
            lost += float(np.square(dequantize(chunk_codes, chunk_scales, form) - dense).sum(dtype=np.float64))
            kept += float(np.square(dense).sum(dtype=np.float64))
            weights += dense.size
            codes.append(chunk_codes)
            scales.append(chunk_scales)
        self.relative_error[matrix.part] = (lost / kept) ** 0.5 if kept else 0.0
        return np.concatenate(codes), np.concatenate(scales), weights

    def _kept(
        self, name: str, rows: slice, dense: NDArray[np.float32], form: Form
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return the file's own integers and scales, laid out as ``quantize`` does."""
        kind = self._gguf.tensors[name].type_name
        of_file = exact_forms.exact_form(kind)
        if of_file is None:
            raise ValueError(f"tensors of type {kind} have no exact form")
        scales = exact_forms.exact_scales(kind, self._gguf.raw(name)[rows])
        codes = exact_forms.exact_codes(dense, scales, of_file)
        return pack(codes.reshape(*scales.shape, form.block), form), scales

    def _pieces(self, *names: str) -> Iterator[tuple[str, slice]]:
        """Cut tensors into rows that bound the memory taken at a time."""
        for name in names:
            rows, columns = self._gguf.tensors[name].shape
            step = max(1, _ROWS_AT_ONCE_BYTES // (4 * columns))
            for start in range(0, rows, step):
                yield name, slice(start, start + step)

    def _values(self, name: str, rows: slice = slice(None)) -> NDArray[np.float32]:
        """Return rows of a tensor. Raises ``InputError`` where a damaged file gives numbers that are none."""
        with np.errstate(invalid="ignore", over="ignore"):  # what comes of it is judged below
            values = self._gguf.dequantize(name, rows)
        if not (values.min() >= -_LARGEST and values.max() <= _LARGEST):  # NaN is neither
            raise InputError(
                f"{self._gguf.path.name}: tensor {name} holds values that are no weights",
                hint="the file is damaged: download it again",
            )
        return values

    def _tie_head(self) -> None:
        """Let the head read the embedding's own bytes, in the shape that its operator wants."""
        form = self.forms["embedding"]
        self.forms["head"] = form
        if not form.block:
            dense = np.concatenate([self._values(*piece) for piece in self._pieces("token_embd.weight")])
            self._put("head.weight", np.ascontiguousarray(dense.T), streamed=True)
            return
        rows, columns = self._gguf.tensors["token_embd.weight"].shape
        blocks = (rows, columns // form.block, form.block * form.bits // 8)
        for part, shape in (("codes", blocks), ("scales", (rows, columns // form.block))):
            stored = self.stored[f"embedding.{part}"]
            self.stored[f"head.{part}"] = Stored(
                name=f"head.{part}", element=stored.element, shape=shape, offset=stored.offset
            )

    def _count(self, weights: int, nbytes: int) -> None:
        self.matrix_weights += weights
        self.matrix_bytes += nbytes

    def _stored_as(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scales as they are stored, before the error that they make is counted."""
        return values

    def _put(self, name: str, values: NDArray[np.uint8] | NDArray[np.float32], *, streamed: bool) -> None:
        position = self._file.tell()
        self._file.write(b"\0" * (-position % _ALIGNMENT))
        element = _ELEMENTS[values.dtype.name]
        self.stored[name] = Stored(name=name, element=element, shape=values.shape, offset=self._file.tell())
        self._file.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
        self.unique_bytes += values.nbytes
        self.streamed_bytes += values.nbytes if streamed else 0
