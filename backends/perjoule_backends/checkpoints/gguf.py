"""A bounded reader of GGUF files (versions 2 and 3): header, metadata and tensor table.

Every count, length and offset is checked before anything is allocated: against the bytes that are left, and, since
a sparse file can claim any size, against limits that no real header comes near. Format: the GGUF specification in the
ggml repository, docs/gguf.md. Dequantizing is left to the ``gguf`` package.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING, Any

from perjoule.errors import HostError, InputError
from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_NESTING = 4
MAX_DIMENSIONS = 4
MAX_STRING_BYTES = 16 << 20  # chat templates have some 20 kB
MAX_HEADER_BYTES = 256 << 20  # a vocabulary of 262,144 tokens takes 6 MB
MAX_ITEMS = 4 << 20  # of all arrays together; the same vocabulary takes 1.3 million
MAX_ENTRIES = 1 << 16  # metadata keys, and tensors; files have some dozens, and some thousands at most
MAX_TRAILING_BYTES = 1 << 20  # after the last tensor nothing is expected but padding
DEFAULT_ALIGNMENT = 32
_DAMAGED = "the file is damaged or not a checkpoint: download it again"

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_SHOWN = 200  # characters of an error; names come from the file
_STRING_HEAD = 8  # a length of 64 bits
_ARRAY_HEAD = 12  # an item type of 32 bits and a count of 64
_MIN_TENSOR_ENTRY = 8 + 4 + 8 + 4 + 8  # empty name, one dimension


class TensorInfo(Record, frozen=True, kw_only=True):
    """One row of the tensor table. ``shape`` is in numpy order (rows first); ``offset`` is from the file's start."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    offset: int
    nbytes: int


class GgufFile:
    """A parsed file: ``metadata`` by key, ``tensors`` by name; tensor data is read only when asked for."""

    def __init__(self, path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> None:
        self.path = path
        self.metadata = metadata
        self.tensors = tensors

    def raw(self, name: str) -> NDArray[np.uint8]:
        """Return the stored bytes of a tensor, shape (rows, bytes per row), mapped from the file."""
        import numpy as np  # noqa: PLC0415 - reading a header needs no numpy

        tensor = self.tensors[name]
        data = np.memmap(self.path, dtype=np.uint8, mode="r", offset=tensor.offset, shape=(tensor.nbytes,))
        rows = 1
        for size in tensor.shape[:-1]:
            rows *= size
        return data.reshape(rows, -1)

    def dequantize(self, name: str, rows: slice = slice(None)) -> NDArray[np.float32]:
        """Return rows of a tensor as float32, shape (rows, columns), by the reference code of ``gguf``.

        A one-dimensional tensor comes as one row. Reading a few rows at a time bounds the memory.
        """
        import numpy as np  # noqa: PLC0415
        from gguf import GGMLQuantizationType, dequantize  # noqa: PLC0415

        tensor = self.tensors[name]
        stored = self.raw(name)[rows]
        try:
            values = dequantize(stored, GGMLQuantizationType[tensor.type_name])
        except NotImplementedError as error:
            raise InputError(
                f"{self.path.name}: tensor {name!r} is stored as {tensor.type_name}, which cannot be read",
                hint="use a file of another quantization, such as Q4_K_M or Q8_0",
            ) from error
        return np.ascontiguousarray(values, dtype=np.float32).reshape(-1, tensor.shape[-1])


def read_gguf(path: Path) -> GgufFile:
    """Read header, metadata and tensor table.

    Raises ``InputError`` for anything that is not a whole, consistent file; ``HostError`` if it cannot be read.
    """
    if path.is_dir():
        raise InputError(
            f"{path.name}: a folder; this engine reads GGUF files only",
            hint="give a .gguf file, or use another --backend",
        )
    try:
        with path.open("rb") as file:
            if path.stat().st_size < len(MAGIC):
                raise InputError(f"{path.name}: too short to be a GGUF file", hint=_DAMAGED)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                return _Reader(view, path).read()
    except OSError as error:
        raise HostError(f"{path.name}: {error.strerror}", hint="check the path and its permissions") from error


def physical_memory() -> int:
    """Return the machine's memory in bytes: what does not fit into it cannot be run, whatever a header claims."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class _Reader:
    def __init__(self, view: mmap.mmap, path: Path) -> None:
        self._view, self._path = view, path
        self._size = len(view)
        self._at = 0
        self._items_left = MAX_ITEMS

    def read(self) -> GgufFile:
        if self._take(4) != MAGIC:
            raise self._error("not a GGUF file")
        version = self._scalar("I")
        if version not in VERSIONS:
            raise self._error(f"GGUF version {version} is not supported (2 and 3 are)")
        tensor_count, key_count = self._scalar("Q"), self._scalar("Q")
        self._fits(tensor_count, _MIN_TENSOR_ENTRY, "tensors", MAX_ENTRIES)
        self._fits(key_count, _STRING_HEAD + 4 + 1, "metadata keys", MAX_ENTRIES)
        metadata: dict[str, Any] = {}
        for _ in range(key_count):
            key = self._string()
            if key in metadata:
                raise self._error(f"metadata key {key!r} stands twice")
            metadata[key] = self._value(self._scalar("I"), 0)
        rows = [self._tensor_row() for _ in range(tensor_count)]
        tensors: dict[str, TensorInfo] = {}
        start = self._data_start(metadata)
        for name, shape, type_id, offset in rows:
            if name in tensors:
                raise self._error(f"tensor {name!r} stands twice")
            tensors[name] = self._tensor(name, shape, type_id, start + offset)
        end = max((t.offset + t.nbytes for t in tensors.values()), default=self._at)
        if self._size - end > MAX_TRAILING_BYTES:
            raise self._error(f"{self._size - end} bytes follow the last tensor")
        return GgufFile(self._path, metadata, tensors)

    def _data_start(self, metadata: Mapping[str, Any]) -> int:
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1) or alignment > self._size:
            raise self._error(f"alignment {alignment!r} is not a power of two within the file")
        return -(-self._at // alignment) * alignment

    def _tensor_row(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        dimensions = self._scalar("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise self._error(f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self._scalar("Q") for _ in range(dimensions))
        return name, tuple(reversed(shape)), self._scalar("I"), self._scalar("Q")

    def _tensor(self, name: str, shape: tuple[int, ...], type_id: int, offset: int) -> TensorInfo:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType  # noqa: PLC0415

        try:
            kind = GGMLQuantizationType(type_id)
        except ValueError:
            raise self._error(f"tensor {name!r} has the unknown type {type_id}") from None
        block, block_bytes = GGML_QUANT_SIZES[kind]
        elements = 1
        for size in shape:
            elements *= size
        if not elements or shape[-1] % block:
            raise self._error(f"tensor {name!r}: shape {shape} does not hold whole blocks of {block}")
        nbytes = elements // block * block_bytes
        if offset + nbytes > self._size:
            raise self._error(f"tensor {name!r} reaches beyond the end of the file")
        return TensorInfo(name=name, shape=shape, type_name=kind.name, offset=offset, nbytes=nbytes)

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            raise self._error(f"unknown metadata type {kind}")
        if depth >= MAX_NESTING:
            raise self._error(f"arrays are nested deeper than {MAX_NESTING}")
        item, count = self._scalar("I"), self._scalar("Q")
        if item in _SCALARS:
            self._fits(count, struct.calcsize("<" + _SCALARS[item]), "array items")
            return list(
                struct.unpack(f"<{count}{_SCALARS[item]}", self._take(count * struct.calcsize("<" + _SCALARS[item])))
            )
        self._fits(count, _STRING_HEAD if item == _STRING else _ARRAY_HEAD, "array items")
        return [self._value(item, depth + 1) for _ in range(count)]

    def _string(self) -> str:
        length = self._scalar("Q")
        if length > self._size - self._at:
            raise self._error(f"a string of {length} bytes reaches beyond the end of the file")
        if length > MAX_STRING_BYTES:
            raise self._error(f"a string of {length} bytes is too long")
        return self._take(length).decode("utf-8", errors="replace")

    def _scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self._take(struct.calcsize("<" + code)))[0]

    def _fits(self, count: int, item_bytes: int, what: str, most: int = MAX_ITEMS) -> None:
        if count * item_bytes > self._size - self._at:
            raise self._error(f"{count} {what} do not fit into the file")
        self._items_left -= count
        if count > most or self._items_left < 0:
            raise self._error(f"more than {most} {what}")

    def _take(self, count: int) -> bytes:
        if count > self._size - self._at:
            raise self._error("the file ends too early")
        if self._at + count > MAX_HEADER_BYTES:
            raise self._error(f"the header is larger than {MAX_HEADER_BYTES} bytes")
        data = self._view[self._at : self._at + count]
        self._at += count
        return data

    def _error(self, what: str) -> InputError:
        shown = what if len(what) <= _SHOWN else f"{what[:_SHOWN]}..."
        return InputError(f"{self._path.name}: {shown} (at byte {self._at})", hint=_DAMAGED)
