"""A checkpoint folder as published on the hub: config.json, safetensors files, tokenizer.json.

Pickled weights (.bin, .pt, .pth) can run code when they are loaded: they are never opened. Names, shapes and norms
are given as a GGUF file has them; rows of Q and K stay as published, and the metadata says so.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from perjoule.errors import InputError
from perjoule_backends.checkpoints.gguf import TensorInfo
from perjoule_backends.checkpoints.hf_config import (
    ROPE_FACTORS,
    gguf_metadata,
    published_name,
    read_config,
    tensor_shapes,
)
from perjoule_backends.checkpoints.metadata_keys import TOKENIZER_FILES
from perjoule_backends.checkpoints.published_tokenizer import (
    CHAT_TEMPLATE,
    GENERATION_CONFIG,
    TOKENIZER_CONFIG,
    TOKENIZER_JSON,
    read_table,
    read_tokenizer_files,
)
from perjoule_backends.checkpoints.safetensors import read_safetensors
from perjoule_backends.checkpoints.tokenizer import END_OF_TURN

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from perjoule_backends.checkpoints.hf_config import Decoder

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
BESIDE = (CONFIG, GENERATION_CONFIG, TOKENIZER_JSON, TOKENIZER_CONFIG, CHAT_TEMPLATE)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MAX_SHARDS = 1024
_FLOATS = ("BF16", "F16", "F32")
_DAMAGED = "the folder is damaged or not whole: download it again"


class SafetensorsFolder:
    """A folder whose files have been checked: ``metadata`` by GGUF key, ``tensors`` by GGUF name."""

    def __init__(self, path: Path, decoder: Decoder, metadata: Mapping[str, Any], places: Mapping[str, _Place]) -> None:
        self.path = path
        self.metadata = metadata
        self.tensors = {name: _as_gguf(name, place, decoder) for name, place in places.items()}
        self._decoder = decoder
        self._places = dict(places)
        if decoder.rope_factors:
            self.tensors[ROPE_FACTORS] = _made(ROPE_FACTORS, (decoder.head_dim // 2,))

    @property
    def stored_as(self) -> str:
        """Return the types of the matrices, as a GGUF file would name them."""
        return ", ".join(sorted({stored.type_name for _, stored in self._places.values() if len(stored.shape) > 1}))

    def raw(self, name: str) -> NDArray[np.uint8]:
        """Return the stored bytes of a tensor, shape (rows, bytes per row); of one that is computed, its float32s."""
        import numpy as np  # noqa: PLC0415 - reading the folder's tables needs no numpy

        tensor = self.tensors[name]
        if self._is_computed(name):
            return self.dequantize(name).view(np.uint8)
        data = np.memmap(self._places[name][0], dtype=np.uint8, mode="r", offset=tensor.offset, shape=(tensor.nbytes,))
        return data.reshape(_rows(tensor.shape), -1)

    def dequantize(self, name: str, rows: slice = slice(None)) -> NDArray[np.float32]:
        """Return rows of a tensor as float32, shape (rows, columns). A one-dimensional tensor comes as one row."""
        import numpy as np  # noqa: PLC0415

        if name == ROPE_FACTORS:
            return np.array([self._decoder.rope_factors], dtype=np.float32)[rows]
        path, stored = self._places[name]
        data = np.memmap(path, dtype=np.uint8, mode="r", offset=stored.offset, shape=(stored.nbytes,))
        values = _floats(data.reshape(_rows(stored.shape), -1)[rows], stored.type_name)
        # Gemma multiplies by 1 + w, and GGUF files hold the sum
        return values + np.float32(1) if _is_gemma_norm(name, self._decoder) else values

    def _is_computed(self, name: str) -> bool:
        return name == ROPE_FACTORS or _is_gemma_norm(name, self._decoder)


def read_folder(path: Path) -> SafetensorsFolder:
    """Read the tables of a folder. Raises ``InputError`` for one that is not whole, consistent and safe to read."""
    _refuse_pickles(path)
    if not (path / CONFIG).is_file():
        raise InputError(f"{path.name}: {CONFIG} is missing", hint=_DAMAGED)
    config = read_table(path / CONFIG)
    beside = read_table(path / TOKENIZER_CONFIG)
    if beside.get("auto_map") is not None:
        raise InputError(
            f"{path.name}: the tokenizer brings code of its own, which is never run", hint="use another checkpoint"
        )
    decoder = read_config(config, path.name)
    places = _placed(path, decoder)
    tokenizer = read_tokenizer_files(path, config, decoder.vocabulary, frozenset(END_OF_TURN))
    metadata = gguf_metadata(decoder, path.name) | {TOKENIZER_FILES: tokenizer}
    return SafetensorsFolder(path, decoder, metadata, places)


def checkpoint_files(path: Path) -> tuple[Path, ...]:
    """Return the files that make up the checkpoint, in order of their names."""
    names = {name for name in (*BESIDE, INDEX) if (path / name).is_file()} | set(_shards(path))
    return tuple(path / name for name in sorted(names))


def digest_of(hashes: Mapping[str, str]) -> str:
    """Return the SHA-256 of a folder: over the lines that ``sha256sum`` prints for its files, in order of names."""
    return hashlib.sha256("".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)).encode()).hexdigest()


_Place = tuple["Path", TensorInfo]


def _refuse_pickles(path: Path) -> None:
    names = sorted(entry.name for entry in path.iterdir())
    if any(name.endswith(".safetensors") or name == INDEX for name in names):
        return
    pickled = next((name for name in names if name.endswith(PICKLES)), None)
    if pickled is not None:
        raise InputError(
            f"{path.name}: its weights are pickled ({pickled[:60]}), which can run code when loaded: never opened",
            hint="use a checkpoint in safetensors or GGUF",
        )
    raise InputError(f"{path.name}: no safetensors files in it", hint="give a checkpoint folder or a .gguf file")


def _shards(path: Path) -> tuple[str, ...]:
    """Return the names of the weight files: those of the index, or the only one."""
    if not (path / INDEX).is_file():
        if (path / WEIGHTS).is_file():
            return (WEIGHTS,)
        raise InputError(f"{path.name}: {WEIGHTS} and {INDEX} are missing", hint=_DAMAGED)
    names = sorted(set(_weight_map(path).values()))
    for name in names:
        if not (path / name).is_file():
            raise InputError(f"{path.name}: the shard {name[:80]} is missing", hint=_DAMAGED)
    return tuple(names)


def _weight_map(path: Path) -> dict[str, str]:
    table = read_table(path / INDEX).get("weight_map")
    if not isinstance(table, dict) or not table or len(set(map(str, table.values()))) > MAX_SHARDS:
        raise InputError(f"{path.name}: {INDEX} has no weight_map that could be one", hint=_DAMAGED)
    for name in table.values():
        if not isinstance(name, str) or not name.endswith(".safetensors") or "/" in name or "\\" in name:
            raise InputError(f"{path.name}: {INDEX} names the shard {str(name)[:60]!r}", hint=_DAMAGED)
    return table


def _placed(path: Path, decoder: Decoder) -> dict[str, _Place]:
    """Find every tensor of the model, in its shape, in exactly one shard, and nothing that would be left out."""
    found: dict[str, _Place] = {}
    for shard in _shards(path):
        for name, tensor in read_safetensors(path / shard).items():
            if name in found:
                raise InputError(f"{path.name}: tensor {name[:80]!r} is in two shards", hint=_DAMAGED)
            found[name] = (path / shard, tensor)
    places = {}
    for name, shape in tensor_shapes(decoder).items():
        if name == ROPE_FACTORS:
            continue
        published = published_name(decoder, name)
        place = found.pop(published, None)
        if place is None:
            raise InputError(f"{path.name}: tensor {published} is missing", hint=_DAMAGED)
        if place[1].shape != shape:
            raise InputError(
                f"{path.name}: tensor {published} has shape {place[1].shape}, expected {shape}", hint=_DAMAGED
            )
        if place[1].type_name not in _FLOATS:
            raise InputError(
                f"{path.name}: tensor {published} is stored as {place[1].type_name}; {', '.join(_FLOATS)} are read",
                hint="use the model's unquantized checkpoint, or a GGUF file",
            )
        places[name] = place
    _refuse_left_over(path, found, decoder)
    return places


def _refuse_left_over(path: Path, left: Mapping[str, _Place], decoder: Decoder) -> None:
    for name in left:
        tied = decoder.tied_head and name == "lm_head.weight"  # a copy of the embedding, which transformers drops too
        if not tied and not name.endswith("rotary_emb.inv_freq"):  # a table that old checkpoints carry along
            raise InputError(
                f"{path.name}: tensor {name[:80]!r} has no place in the architecture {decoder.architecture}",
                hint="it would be left out and the answers be wrong: use another checkpoint",
            )


def _is_gemma_norm(name: str, decoder: Decoder) -> bool:
    return decoder.is_gemma and name.endswith("norm.weight")


def _as_gguf(name: str, place: _Place, decoder: Decoder) -> TensorInfo:
    stored = place[1]
    if _is_gemma_norm(name, decoder):
        return _made(name, stored.shape)
    return TensorInfo(
        name=name, shape=stored.shape, type_name=stored.type_name, offset=stored.offset, nbytes=stored.nbytes
    )


def _made(name: str, shape: tuple[int, ...]) -> TensorInfo:
    return TensorInfo(name=name, shape=shape, type_name="F32", offset=0, nbytes=4 * shape[0])


def _rows(shape: tuple[int, ...]) -> int:
    rows = 1
    for size in shape[:-1]:
        rows *= size
    return rows


def _floats(stored: NDArray[np.uint8], kind: str) -> NDArray[np.float32]:
    """Return stored bytes as float32. A bfloat16 is the upper half of a float32."""
    import numpy as np  # noqa: PLC0415

    if kind == "BF16":
        return np.left_shift(stored.view("<u2").astype(np.uint32), 16).view(np.float32)
    return np.ascontiguousarray(stored.view("<f2" if kind == "F16" else "<f4"), dtype=np.float32)
