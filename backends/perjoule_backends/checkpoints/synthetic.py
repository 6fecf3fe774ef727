"""``synthetic:NAME``: the true shape of a published model with weights drawn at random, for machines without the model.

Speed, memory and energy of a dense decoder do not depend on the values of its weights; quality does, and there is none
here. Values are made when asked for, in blocks of rows that each have a seed of their own: the same name gives the
same numbers anywhere, and the model is never whole in memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec

from perjoule.errors import InputError
from perjoule.records import Record
from perjoule_backends.checkpoints.cache import cache_root, refused_by_disk
from perjoule_backends.checkpoints.gguf import TensorInfo
from perjoule_backends.checkpoints.hf_config import ROPE_FACTORS, gguf_metadata, read_config, tensor_shapes
from perjoule_backends.checkpoints.metadata_keys import TOKENIZER_FILES
from perjoule_backends.checkpoints.published_tokenizer import TokenizerFiles

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from perjoule_backends.checkpoints.hf_config import Decoder

SCHEME = "synthetic:"
NOTE_FILE = "synthetic.json"
MAKER_VERSION = 1  # part of the digest: raise it whenever the numbers or the tokenizer would differ
TOKENIZER_LEFT_OUT = "the model's own tokenizer: a byte-level one of the same size stands in"
_SEED = 20250101
_BLOCK_WEIGHTS = 1 << 20  # made at once; 4 MB
_END = "<|endoftext|>"
_BYTES = 256


class Shape(Record, frozen=True, kw_only=True):
    """The shape of a published model. ``config`` holds the keys of its config.json, as ``source`` has them.

    ``certainty`` says what the values rest on; ``left_out`` what the model has and the shape has not.
    """

    source: str
    certainty: str
    config: dict[str, Any]
    left_out: tuple[str, ...] = ()


class SyntheticNote(Record, frozen=True, kw_only=True):
    """What a synthetic model's folder holds: there is nothing else to keep."""

    name: str
    version: int
    config: dict[str, Any]
    left_out: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Stands for the file's hash: over all that the numbers follow from."""
        facts = {"name": self.name, "version": self.version, "seed": _SEED, "config": self.config}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class SyntheticWeights:
    """Weights made when asked for: ``metadata`` by GGUF key, ``tensors`` by GGUF name, all float32."""

    def __init__(self, path: Path, note: SyntheticNote, decoder: Decoder) -> None:
        tokenizer = byte_tokenizer(decoder.vocabulary)
        self.path = path
        self.metadata: Mapping[str, Any] = gguf_metadata(decoder, note.name) | {TOKENIZER_FILES: tokenizer}
        self.tensors = {
            name: TensorInfo(name=name, shape=shape, type_name="F32", offset=0, nbytes=4 * math.prod(shape))
            for name, shape in tensor_shapes(decoder).items()
        }
        self._note, self._decoder = note, decoder

    def raw(self, name: str) -> NDArray[np.uint8]:
        """Return the float32s of a whole tensor as bytes, shape (rows, bytes per row)."""
        import numpy as np  # noqa: PLC0415 - only who asks for numbers needs it

        return self.dequantize(name).view(np.uint8)

    def dequantize(self, name: str, rows: slice = slice(None)) -> NDArray[np.float32]:
        """Return rows of a tensor, shape (rows, columns). A one-dimensional tensor comes as one row."""
        import numpy as np  # noqa: PLC0415

        shape = self.tensors[name].shape
        if len(shape) == 1:
            return self._vector(name, shape[0])[None][rows]
        count, columns = shape
        first, last, step = rows.indices(count)
        if step != 1:
            msg = "rows are made one after the other"
            raise ValueError(msg)
        out = np.empty((max(0, last - first), columns), dtype=np.float32)
        height = max(1, _BLOCK_WEIGHTS // columns)
        for block in range(first // height, -(-last // height)):
            made = self._block(name, block, min(height, count - block * height), columns)
            low, high = max(first, block * height), min(last, (block + 1) * height)
            out[low - first : high - first] = made[low - block * height : high - block * height]
        return out

    def _block(self, name: str, block: int, rows: int, columns: int) -> NDArray[np.float32]:
        """Make a block of rows. Outputs that are added to the residual stream are kept small, as at initialisation."""
        import numpy as np  # noqa: PLC0415

        key = hashlib.sha256(f"{self._note.sha256} {name} {block}".encode()).digest()
        random = np.random.Generator(np.random.SFC64(int.from_bytes(key[:16], "little")))
        scale = columns**-0.5
        if name.endswith(("attn_output.weight", "ffn_down.weight")):
            scale /= (2 * self._decoder.layers) ** 0.5
        return random.standard_normal((rows, columns), dtype=np.float32) * np.float32(scale)

    def _vector(self, name: str, size: int) -> NDArray[np.float32]:
        """Make a vector: norms that change nothing, biases of 0, and the true rotary factors."""
        import numpy as np  # noqa: PLC0415

        if name == ROPE_FACTORS:
            return np.array(self._decoder.rope_factors, dtype=np.float32)
        return np.full(size, 0.0 if name.endswith(".bias") else 1.0, dtype=np.float32)


@cache
def shapes() -> dict[str, Shape]:
    """Return the shapes that are known, by name."""
    text = files("perjoule_backends.checkpoints").joinpath("shapes.toml").read_bytes()
    return msgspec.toml.decode(text, type=dict[str, Shape])


def make(name: str) -> tuple[Path, SyntheticNote]:
    """Return the folder of a synthetic model, making it if need be; it holds a note of some 500 bytes.

    Raises ``InputError`` for a name that is not known, ``HostError`` when the cache cannot be written.
    """
    shape = shapes().get(name.lower())
    if shape is None:
        raise InputError(f"{SCHEME}{name}: no shape of that name", hint=f"there are: {', '.join(shapes())}")
    left_out = (*shape.left_out, TOKENIZER_LEFT_OUT)
    if shape.certainty != "config.json":
        left_out += (f"certainty of the shape: {shape.certainty}",)
    note = SyntheticNote(name=name.lower(), version=MAKER_VERSION, config=shape.config, left_out=left_out)
    folder = cache_root() / "models" / "synthetic" / f"{note.name}-{note.sha256[:12]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / NOTE_FILE).is_file():
            part = folder / f".{NOTE_FILE}.{os.getpid()}"
            part.write_bytes(msgspec.json.encode(note))
            part.replace(folder / NOTE_FILE)
    except OSError as error:
        raise refused_by_disk("cannot use the model cache", error) from error
    return folder, note


def read_synthetic(path: Path) -> SyntheticWeights:
    """Open a folder that ``make`` has made. Raises ``InputError`` for one it cannot have made."""
    try:
        note = msgspec.json.decode((path / NOTE_FILE).read_bytes(), type=SyntheticNote)
    except (OSError, msgspec.MsgspecError) as error:
        raise InputError(f"{path.name}: {NOTE_FILE} cannot be read", hint="remove the folder") from error
    if note.version != MAKER_VERSION:
        raise InputError(f"{path.name}: made by another version", hint="name the model as synthetic:NAME")
    return SyntheticWeights(path, note, read_config(note.config, f"{SCHEME}{note.name}"))


def byte_tokenizer(size: int) -> TokenizerFiles:
    """Return a tokenizer of ``size`` tokens: one for each byte, fillers that no text gives, and an end of text.

    The fillers make the ids that a model gives readable. Raises ``InputError`` for fewer tokens than bytes.
    """
    if size <= _BYTES:
        raise InputError(f"a vocabulary of {size} tokens has no room for all bytes", hint="use another shape")
    vocabulary = {letter: index for index, letter in enumerate(_byte_letters())}
    vocabulary |= {f"<|filler-{index}|>": index for index in range(_BYTES, size - 1)}
    vocabulary[_END] = size - 1
    table = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{
            "id": size - 1, "content": _END, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True,
        }],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }  # fmt: skip
    config = {
        "bos_token_id": None,
        "bos_token": None,
        "eos_token_id": size - 1,
        "eos_token": _END,
        "add_bos_token": False,
        "stop_ids": [size - 1],
        "vocabulary": size,
        "chat_template": None,
        "synthetic": True,
    }
    return TokenizerFiles(text=json.dumps(table, ensure_ascii=False), config=config)


def _byte_letters() -> list[str]:
    """Return the letter that byte-level tokenizers write for each byte: itself if it can be printed, else one above.

    The rule is GPT-2's (``bytes_to_unicode`` in its encoder); the ``tokenizers`` library has it built in.
    """
    printed = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    above = iter(range(_BYTES, 2 * _BYTES))
    return [chr(byte) if byte in printed else chr(next(above)) for byte in range(_BYTES)]
