"""From a GGUF file to a folder that ONNX Runtime loads: weights tensor by tensor, graphs, tokenizer, manifest.

Folders are cached by (file hash, quantization, converter version) and appear under their name only when complete.
One process converts at a time; what a killed one left is removed by the next.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec
import numpy as np
from onnx import TensorProto

from perjoule.errors import InputError
from perjoule_backends.checkpoints.cache import cache_root, locked, need_space, refused_by_disk, remove_scrap
from perjoule_backends.checkpoints.gguf import physical_memory
from perjoule_backends.checkpoints.tokenizer import write_tokenizer
from perjoule_backends.onnxruntime import graph
from perjoule_backends.onnxruntime.architecture import check_tensors, expected_shapes
from perjoule_backends.onnxruntime.manifest import (
    FLOAT32,
    MANIFEST_FILE,
    MODEL_ALL_POSITIONS_FILE,
    MODEL_FILE,
    Form,
    Manifest,
    is_whole,
)
from perjoule_backends.onnxruntime.quantize import block_for, dequantize, quantize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from perjoule.protocols import Progress
    from perjoule_backends.checkpoints.gguf import GgufFile
    from perjoule_backends.onnxruntime.architecture import Architecture

CONVERTER_VERSION = 5  # part of the cache key: raise it whenever a converted folder would differ
_ALIGNMENT = 4096  # a page: ONNX Runtime maps external data instead of reading it
_ROWS_AT_ONCE_BYTES = 64 << 20
_SCRATCH = ".converting-"
_LARGEST = 1e18  # of a weight: its square is still finite in float32
_SLACK_BYTES = 64 << 20  # graphs, tokenizer, padding
_STEM_BYTES = 80
_NARROW_BLOCK, _WIDE_BLOCK = 32, 256  # columns per scale; 256 is the widest that MatMulNBits has fast code for


def converted_folder(gguf: GgufFile, sha256: str, arch: Architecture, quant: str, progress: Progress) -> Path:
    """Return the converted folder, converting first if it is not cached.

    Raises ``InputError`` for a file whose tensors do not fit, ``HostError`` when the cache cannot be written.
    """
    check_tensors(gguf, arch)
    key = hashlib.sha256(f"{sha256} {quant} {CONVERTER_VERSION}".encode()).hexdigest()[:24]
    target = cache_root() / "converted" / f"{_shortened(gguf.path.stem)}-{quant}-{key}"
    if is_whole(target):
        return target  # a cache that can only be read is enough
    need = needed_bytes(arch, quant)
    if need > physical_memory():
        raise InputError(
            f"{gguf.path.name}: its weights take {need / 1e9:,.1f} GB at --quant {quant}; this machine has "
            f"{physical_memory() / 1e9:,.1f} GB of memory",
            hint="use a smaller model or a lower --quant",
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent, progress):
            if is_whole(target):
                return target  # another process was first
            remove_scrap(target.parent, _SCRATCH)
            shutil.rmtree(target, ignore_errors=True)  # damaged; if it cannot be removed, the rename says so
            need_space(target.parent, need + _SLACK_BYTES, f"the converted {gguf.path.name}")
            with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=target.parent) as folder:
                scratch = Path(folder) / "whole"
                scratch.mkdir()
                _convert(gguf, arch, quant, scratch, progress)
                _to_disk(scratch)
                scratch.rename(target)
    except OSError as error:
        raise refused_by_disk("cannot write the converted model", error) from error
    return target


def _shortened(stem: str) -> str:
    """Keep a name short enough for every file system, with room for what is added to it."""
    return stem.encode()[:_STEM_BYTES].decode(errors="ignore")


def needed_bytes(arch: Architecture, quant: str) -> int:
    """Return about how many bytes the weights file takes; known before anything is read or written."""
    total = 4 * arch.context * arch.head_dim
    for name, shape in expected_shapes(arch).items():
        elements = math.prod(shape)
        if len(shape) == 1:
            total += 4 * elements
            continue
        copies = 2 if quant == "fp32" and arch.tied_head and name == "token_embd.weight" else 1
        total += int(copies * elements * _form(quant, shape[1]).bits_per_weight / 8)
    return total


def _to_disk(folder: Path) -> None:
    """Make the bytes durable before the folder gets its name: after a power cut it is whole or not there."""
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _convert(gguf: GgufFile, arch: Architecture, quant: str, folder: Path, progress: Progress) -> None:
    with (folder / graph.WEIGHTS_FILE).open("wb") as file:
        writer = _Writer(gguf, arch, quant, file)
        for done in writer.write_all():
            progress("converting", done)
    layout = graph.Layout(stored=writer.stored, forms=writer.forms)
    graph.save(graph.build(arch, layout, all_positions=False), folder / MODEL_FILE)
    graph.save(graph.build(arch, layout, all_positions=True), folder / MODEL_ALL_POSITIONS_FILE)
    tokenizer_sha256 = write_tokenizer(gguf.metadata, folder)
    config = msgspec.json.decode((folder / "tokenizer_config.json").read_bytes())
    manifest = Manifest(
        architecture=arch,
        quant=quant,
        weights_bytes=writer.unique_bytes,
        streamed_bytes_per_token=writer.streamed_bytes,
        bits_per_weight=8 * writer.matrix_bytes / writer.matrix_weights,
        tokenizer_sha256=tokenizer_sha256,
        stop_ids=tuple(config["stop_ids"]),
        forms=writer.forms,
        relative_error=writer.relative_error,
        worst_error=max(writer.relative_error.values(), default=0.0),
    )
    (folder / MANIFEST_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))


def _form(quant: str, columns: int) -> Form:
    """Choose bits and block width. docs/adr/0002: wide blocks stream and compute less, and lose little."""
    if quant == "fp32":
        return FLOAT32
    bits = 4 if quant == "int4" else 8
    return Form(bits=bits, block=block_for(columns, _WIDE_BLOCK if quant == "faithful" else _NARROW_BLOCK))


class _Writer:
    """Writes the weights file, a few rows of one tensor at a time."""

    def __init__(self, gguf: GgufFile, arch: Architecture, quant: str, file: BinaryIO) -> None:
        self._gguf, self._arch, self._quant, self._file = gguf, arch, quant, file
        self.stored: dict[str, graph.Stored] = {}
        self.forms: dict[str, Form] = {}
        self.relative_error: dict[str, float] = {}
        self.unique_bytes = self.streamed_bytes = self.matrix_bytes = self.matrix_weights = 0

    def write_all(self) -> Iterator[float]:
        """Write everything; yield the share done after each part."""
        arch = self._arch
        total = sum(np.prod(shape) for shape in expected_shapes(arch).values())
        self._rotary()
        for part, sources, bias in self._parts():
            self._matrix(part, sources)
            if bias:
                values = np.concatenate([self._values(name)[0] for name in bias])
                self._put(f"{part}.bias", values, streamed=True)
            yield float(min(1.0, self.matrix_weights / total))
        if arch.tied_head:
            self._tie_head()
        for name in (
            "output_norm",
            *(f"blk.{i}.{n}" for i in range(arch.layers) for n in ("attn_norm", "ffn_norm")),
        ):
            short = name.replace("blk.", "l")
            self._put(f"{short}.weight", self._values(f"{name}.weight")[0], streamed=True)

    def _parts(self) -> Iterator[tuple[str, list[str], list[str]]]:
        yield "embedding", ["token_embd.weight"], []
        if not self._arch.tied_head:
            yield "head", ["output.weight"], []
        for layer in range(self._arch.layers):
            stem, short = f"blk.{layer}.", f"l{layer}."
            qkv = [f"{stem}attn_{x}" for x in "qkv"]
            bias = [f"{name}.bias" for name in qkv] if self._arch.attention_bias else []
            yield short + "qkv", [f"{name}.weight" for name in qkv], bias
            for part, source in (
                ("attn_output", "attn_output"),
                ("gate", "ffn_gate"),
                ("up", "ffn_up"),
                ("down", "ffn_down"),
            ):
                yield short + part, [f"{stem}{source}.weight"], []

    def _rotary(self) -> None:
        """Write cosine and sine of position / base^(2 i / head_dim), shape (context, head_dim / 2)."""
        arch = self._arch
        rates = arch.rope_base ** (-np.arange(0, arch.head_dim, 2, dtype=np.float64) / arch.head_dim)
        angles = np.outer(np.arange(arch.context, dtype=np.float64), rates)
        self._put("rotary.cos", np.cos(angles).astype(np.float32), streamed=False)
        self._put("rotary.sin", np.sin(angles).astype(np.float32), streamed=False)

    def _matrix(self, part: str, sources: list[str]) -> None:
        columns = self._gguf.tensors[sources[0]].shape[1]
        form = self._form_of(part, columns)
        self.forms[part] = form
        # One row of the embedding is read per token, all of it where the head reads the same bytes.
        streamed = part != "embedding" or (self._arch.tied_head and form.block > 0)
        if not form.block:
            dense = np.concatenate([self._values(name) for name in sources])
            # MatMul wants columns first; the embedding and a tied head are looked up by row
            self._put(
                f"{part}.weight",
                dense if part == "embedding" else np.ascontiguousarray(dense.T),
                streamed=streamed,
            )
            self._count(dense.size, dense.nbytes)
            return
        codes, scales, weights = self._quantized(part, sources, form)
        if part == "embedding":
            codes = codes.reshape(codes.shape[0], -1)
        self._put(f"{part}.codes", codes, streamed=streamed)
        self._put(f"{part}.scales", scales, streamed=streamed)
        self._count(weights, codes.nbytes + scales.nbytes)

    def _form_of(self, part: str, columns: int) -> Form:
        if self._quant == "int4" and part in ("embedding", "head"):
            return _form("int8", columns)  # the head decides the words: 4 bits there cost more than they save
        return _form(self._quant, columns)

    def _quantized(
        self, part: str, sources: list[str], form: Form
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], int]:
        codes, scales, weights = [], [], 0
        lost = kept = 0.0
        for dense in (chunk for name in sources for chunk in self._chunks(name)):
            chunk_codes, chunk_scales = quantize(dense, form)
            lost += float(np.square(dequantize(chunk_codes, chunk_scales, form) - dense).sum(dtype=np.float64))
            kept += float(np.square(dense).sum(dtype=np.float64))
            weights += dense.size
            codes.append(chunk_codes)
            scales.append(chunk_scales)
        self.relative_error[part] = (lost / kept) ** 0.5 if kept else 0.0
        return np.concatenate(codes), np.concatenate(scales), weights

    def _chunks(self, name: str) -> Iterator[NDArray[np.float32]]:
        rows, columns = self._gguf.tensors[name].shape
        step = max(1, _ROWS_AT_ONCE_BYTES // (4 * columns))
        for start in range(0, rows, step):
            yield self._values(name, slice(start, start + step))

    def _values(self, name: str, rows: slice = slice(None)) -> NDArray[np.float32]:
        """Return rows of a tensor. Raises ``InputError`` where a damaged file gives numbers that are none."""
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
            dense = np.concatenate(list(self._chunks("token_embd.weight")))
            self._put("head.weight", np.ascontiguousarray(dense.T), streamed=True)
            return
        rows, columns = self._gguf.tensors["token_embd.weight"].shape
        blocks = (rows, columns // form.block, form.block * form.bits // 8)
        for part, shape in (("codes", blocks), ("scales", (rows, columns // form.block))):
            stored = self.stored[f"embedding.{part}"]
            self.stored[f"head.{part}"] = graph.Stored(
                name=f"head.{part}", element=stored.element, shape=shape, offset=stored.offset
            )

    def _count(self, weights: int, nbytes: int) -> None:
        self.matrix_weights += weights
        self.matrix_bytes += nbytes

    def _put(self, name: str, values: NDArray[np.uint8] | NDArray[np.float32], *, streamed: bool) -> None:
        position = self._file.tell()
        self._file.write(b"\0" * (-position % _ALIGNMENT))
        element = TensorProto.UINT8 if values.dtype == np.uint8 else TensorProto.FLOAT
        self.stored[name] = graph.Stored(name=name, element=element, shape=values.shape, offset=self._file.tell())
        self._file.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
        self.unique_bytes += values.nbytes
        self.streamed_bytes += values.nbytes if streamed else 0
