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
from typing import TYPE_CHECKING

import msgspec

from perjoule.errors import InputError
from perjoule_backends.checkpoints.cache import cache_root, locked, need_space, refused_by_disk, remove_scrap
from perjoule_backends.checkpoints.gguf import physical_memory
from perjoule_backends.checkpoints.tokenizer import write_tokenizer
from perjoule_backends.onnxruntime import graph
from perjoule_backends.onnxruntime.forms import form_of, matrices
from perjoule_backends.onnxruntime.genai_config import MODEL_GENAI_FILE, write_genai_config
from perjoule_backends.onnxruntime.manifest import (
    MANIFEST_FILE,
    MODEL_ALL_POSITIONS_FILE,
    MODEL_FILE,
    Manifest,
    is_whole,
)
from perjoule_backends.onnxruntime.nodes import WEIGHTS_FILE, Layout
from perjoule_backends.onnxruntime.precision import FLOAT32_ACTIVATIONS
from perjoule_backends.onnxruntime.tensors import check_tensors, expected_shapes

if TYPE_CHECKING:
    from perjoule.protocols import Progress
    from perjoule_backends.checkpoints.source import Weights
    from perjoule_backends.onnxruntime.architecture import Architecture
    from perjoule_backends.onnxruntime.precision import Precision

CONVERTER_VERSION = 8  # part of the cache key: raise it whenever a converted folder would differ
_SCRATCH = ".converting-"
_SLACK_BYTES = 64 << 20  # graphs, tokenizer, padding
_STEM_BYTES = 80
_GRAPHS = {
    MODEL_FILE: {"all_positions": False},
    MODEL_ALL_POSITIONS_FILE: {"all_positions": True},
    MODEL_GENAI_FILE: {"all_positions": False, "lengths_from_mask": True},
}


def converted_folder(
    gguf: Weights,
    sha256: str,
    arch: Architecture,
    quant: str,
    progress: Progress,
    *,
    fused_mlp: bool = False,
    precision: Precision = FLOAT32_ACTIVATIONS,
) -> Path:
    """Return the converted folder, converting first if it is not cached.

    ``fused_mlp`` makes one product of gate and up of each layer; ``precision`` is that of activations.
    Raises ``InputError`` for a file whose tensors do not fit, ``HostError`` when the cache cannot be written.
    """
    check_tensors(gguf, arch)
    what = f"{sha256} {quant} {CONVERTER_VERSION}{' fused_mlp' if fused_mlp else ''}{precision.key}"
    key = hashlib.sha256(what.encode()).hexdigest()[:24]
    target = cache_root() / "converted" / f"{_shortened(gguf.path.stem)}-{quant}-{key}"
    if is_whole(target):
        return target  # a cache that can only be read is enough
    need = needed_bytes(gguf, arch, quant)
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
                _convert(gguf, arch, quant, scratch, progress, fused_mlp=fused_mlp, precision=precision)
                _to_disk(scratch)
                scratch.rename(target)
    except OSError as error:
        raise refused_by_disk("cannot write the converted model", error) from error
    return target


def _shortened(stem: str) -> str:
    """Keep a name short enough for every file system, with room for what is added to it."""
    return stem.encode()[:_STEM_BYTES].decode(errors="ignore")


def needed_bytes(gguf: Weights, arch: Architecture, quant: str) -> int:
    """Return about how many bytes the weights file takes; known before anything is read or written."""
    total = 4 * arch.context * arch.head_dim * len(arch.rotary_tables)
    total += sum(4 * shape[0] for shape in expected_shapes(arch).values() if len(shape) == 1)
    for matrix in matrices(arch, fused_mlp=False):
        elements = sum(math.prod(gguf.tensors[name].shape) for name in matrix.sources)
        copies = 2 if quant == "fp32" and arch.tied_head and matrix.part == "embedding" else 1
        total += int(copies * elements * form_of(gguf, arch, quant, matrix).bits_per_weight / 8)
    return total


def _to_disk(folder: Path) -> None:
    """Make the bytes durable before the folder gets its name: after a power cut it is whole or not there."""
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _convert(
    gguf: Weights,
    arch: Architecture,
    quant: str,
    folder: Path,
    progress: Progress,
    *,
    fused_mlp: bool,
    precision: Precision,
) -> None:
    with (folder / WEIGHTS_FILE).open("wb") as file:
        writer = precision.writer(gguf, arch, quant, file, fused_mlp=fused_mlp)
        for done in writer.write_all():
            progress("converting", done)
    layout = Layout(stored=writer.stored, forms=writer.forms)
    for file_name, kind in _GRAPHS.items():
        nodes = precision.nodes(layout, arch.norm_epsilon)
        graph.save(graph.build(arch, nodes, **kind), folder / file_name)
    tokenizer_sha256 = write_tokenizer(gguf.metadata, folder)
    config = msgspec.json.decode((folder / "tokenizer_config.json").read_bytes())
    write_genai_config(arch, tuple(config["stop_ids"]), folder)
    manifest = Manifest(
        architecture=arch,
        quant=quant,
        fused_mlp=fused_mlp,
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
