"""A GGUF file for engines that read it themselves: what is known of it, and a folder with our tokenizer beside it.

The folder holds a link to the file, so that whoever drops a model's files from the page cache finds it, the tokenizer
(token ids must be the same whichever engine runs), and a note that is written last.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from perjoule.errors import InputError
from perjoule.records import Record
from perjoule_backends.checkpoints.cache import cache_root, locked, refused_by_disk, remove_scrap
from perjoule_backends.checkpoints.facts import model_facts
from perjoule_backends.checkpoints.gguf import read_gguf
from perjoule_backends.checkpoints.resolve import Checkpoint, resolve
from perjoule_backends.checkpoints.tokenizer import CONFIG_FILE, write_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perjoule.protocols import Progress
    from perjoule.records import ModelFacts
    from perjoule_backends.checkpoints.gguf import GgufFile

GGUF_LINK, NOTE_FILE = "model.gguf", "file.json"
FORMAT = 2  # part of the cache key: raise it whenever a folder would differ
_SCRATCH = ".linking-"
_STEM_BYTES = 80
_MOST = 1 << 24  # of a count in the metadata: layers, heads, widths
# Tables that a token takes a row of; the first is also the output matrix where the file has none of its own.
_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"
_LOOKED_UP = frozenset({_EMBEDDING, "per_layer_token_embd.weight", "position_embd.weight", "token_types.weight"})


class FileModel(Record, frozen=True, kw_only=True):
    """What a file holds. Bytes are as stored; a string in place of a number is the reason why it is not known.

    ``kv_values_per_position``: keys and values that one position adds, all layers, whatever type an engine keeps them
    in; a layer that sees only a window reads fewer of them than there are. ``context``: the tokens it was trained for;
    0 where the file does not say.
    """

    file: str
    checkpoint: Checkpoint
    architecture: str
    parameters: int
    body_parameters: int | None
    weights_bytes: int
    matrix_bytes: int
    matrix_weights: int
    streamed_bytes_per_token: int | str
    kv_values_per_position: int | str
    context: int
    vocabulary: int
    tokenizer_sha256: str
    stop_ids: tuple[int, ...]

    @property
    def bits_per_weight(self) -> float:
        """Return the bits of a weight of the matrices, their scales shared out."""
        return 8 * self.matrix_bytes / self.matrix_weights if self.matrix_weights else 0.0

    def facts(self, ref: str, *, quant: str, kv_value_bytes: float | None) -> ModelFacts:
        """Return the facts of the model run from the file as it is, its keys and values ``kv_value_bytes`` each."""
        return model_facts(
            ref,
            self.checkpoint,
            architecture=self.architecture,
            parameters=self.parameters,
            body_parameters=self.body_parameters,
            tokenizer_sha256=self.tokenizer_sha256,
            runtime_quantization=quant,
            bits_per_weight=self.bits_per_weight,
            weights_bytes=self.weights_bytes,
            streamed_bytes_per_token=self.streamed_bytes_per_token,
            kv_bytes_per_position=self.kv_bytes_per_position(kv_value_bytes),
        )

    def kv_bytes_per_position(self, value_bytes: float | None) -> int | str:
        """Return the bytes that a position adds where a key or value takes ``value_bytes``, or why it is not known."""
        values = self.kv_values_per_position
        if isinstance(values, str):
            return values
        if value_bytes is None:
            return "the engine does not say how it keeps keys and values"
        return math.ceil(values * value_bytes)


def file_folder(ref: str, progress: Progress) -> tuple[Path, FileModel]:
    """Resolve a reference to a GGUF file; return its folder, made first if need be, and what the file holds.

    Raises ``InputError`` for a file that is damaged or whose tokenizer is not known here, ``HostError`` where it cannot
    be fetched or the cache cannot be written. The architecture is the engine's business.
    """
    checkpoint = resolve(ref, progress)
    path = Path(checkpoint.path)
    if checkpoint.format != "gguf":
        raise InputError(
            f"{path.name} is a checkpoint of the format {checkpoint.format}; this backend reads GGUF files",
            hint="give the path of a .gguf file, or use --backend onnxruntime",
        )
    key = hashlib.sha256(f"{checkpoint.sha256} {path} {FORMAT}".encode()).hexdigest()[:24]
    stem = path.stem.encode()[:_STEM_BYTES].decode(errors="ignore")
    target = cache_root() / "as-file" / f"{stem}-{key}"
    if known := _whole(target):
        return target, known  # a cache that can only be read is enough
    gguf = read_gguf(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent, progress):
            if known := _whole(target):
                return target, known  # another process was first
            remove_scrap(target.parent, _SCRATCH)
            shutil.rmtree(target, ignore_errors=True)  # damaged; if it cannot be removed, the rename says so
            with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=target.parent) as folder:
                scratch = Path(folder) / "whole"
                scratch.mkdir()
                (scratch / GGUF_LINK).symlink_to(path)
                found = _described(gguf, checkpoint, write_tokenizer(gguf.metadata, scratch), scratch)
                (scratch / NOTE_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
                scratch.rename(target)
    except OSError as error:
        raise refused_by_disk("cannot write the model's folder", error) from error
    return target, found


def read_note(folder: Path) -> FileModel:
    """Return what ``file_folder`` noted."""
    return msgspec.json.decode((folder / NOTE_FILE).read_bytes(), type=FileModel)


def _whole(folder: Path) -> FileModel | None:
    try:
        note = read_note(folder)
        return note if (folder / GGUF_LINK).samefile(note.file) else None
    except (OSError, msgspec.MsgspecError, ValueError):
        return None


def _described(gguf: GgufFile, checkpoint: Checkpoint, tokenizer_sha256: str, folder: Path) -> FileModel:
    meta, tensors = gguf.metadata, gguf.tensors
    architecture = meta.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise InputError(f"{gguf.path.name}: no architecture is named", hint="the file is damaged: download it again")
    sizes = {name: math.prod(tensor.shape) for name, tensor in tensors.items()}
    matrices = [t for t in tensors.values() if len(t.shape) > 1]
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    return FileModel(
        file=str(gguf.path),
        checkpoint=checkpoint,
        architecture=architecture,
        parameters=sum(sizes.values()),
        body_parameters=_body_parameters(sizes, meta, architecture),
        weights_bytes=sum(tensor.nbytes for tensor in tensors.values()),
        matrix_bytes=sum(tensor.nbytes for tensor in matrices),
        matrix_weights=sum(sizes[tensor.name] for tensor in matrices),
        streamed_bytes_per_token=_streamed(gguf, architecture),
        kv_values_per_position=_kv_values(meta, architecture),
        context=_count(meta, f"{architecture}.context_length", 0),
        vocabulary=config["vocabulary"],
        tokenizer_sha256=tokenizer_sha256,
        stop_ids=tuple(config["stop_ids"]),
    )


def _body_parameters(sizes: Mapping[str, int], meta: Mapping[str, Any], architecture: str) -> int | None:
    """Return how many parameters every prompt token is multiplied with; ``None`` where experts are picked."""
    if meta.get(f"{architecture}.expert_count"):
        return None
    return sum(size for name, size in sizes.items() if name not in {*_LOOKED_UP, _HEAD})


def _streamed(gguf: GgufFile, architecture: str) -> int | str:
    """Return the bytes of all tensors that are read for a token, or why that is not known."""
    if gguf.metadata.get(f"{architecture}.expert_count"):
        return "which experts are read depends on the tokens"
    tied = _HEAD not in gguf.tensors
    looked_up = _LOOKED_UP - {_EMBEDDING} if tied else _LOOKED_UP
    return sum(tensor.nbytes for name, tensor in gguf.tensors.items() if name not in looked_up)


def _kv_values(meta: Mapping[str, Any], architecture: str) -> int | str:
    """Return how many numbers a position adds to the cache: keys and values of every key-value head of every layer.

    Metadata keys are those of the GGUF specification (ggml, docs/gguf.md).
    """
    for key, what in (("ssm.state_size", "recurrent layers keep one state, whatever the length"),
                      ("attention.kv_lora_rank", "keys and values are kept in a compressed form"),
                      ("attention.shared_kv_layers", "some layers share their keys and values")):  # fmt: skip
        if meta.get(f"{architecture}.{key}"):
            return what
    layers = _count(meta, f"{architecture}.block_count", 0)
    heads = _per_layer(meta.get(f"{architecture}.attention.head_count"), layers)
    kv_heads = _per_layer(meta.get(f"{architecture}.attention.head_count_kv"), layers) or heads
    width = _count(meta, f"{architecture}.embedding_length", 0)
    if not layers or not heads or not kv_heads or not width:
        return "the file does not say how many heads its layers have"
    of_head = width // max(heads)
    key_width = _count(meta, f"{architecture}.attention.key_length", of_head)
    value_width = _count(meta, f"{architecture}.attention.value_length", of_head)
    return sum(kv_heads) * (key_width + value_width)


def _per_layer(value: object, layers: int) -> list[int]:
    """Return a count for each layer, which a file gives once or as a list; empty where it gives neither."""
    values: list[Any] = value if isinstance(value, list) else [value] * layers
    sound = len(values) == layers and all(type(v) is int and 0 <= v <= _MOST for v in values)
    return values if sound and any(values) else []


def _count(meta: Mapping[str, Any], key: str, default: int) -> int:
    value = meta.get(key)
    return value if type(value) is int and 0 < value <= _MOST else default
