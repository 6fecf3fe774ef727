"""A bounded reader of safetensors files: the table of tensors, with every length and offset checked before use.

Format: the ``safetensors`` README. Eight bytes give the length of a JSON header, which gives type, shape and place of
each tensor in the rest of the file; the tensors lie next to each other and fill it. The ``safetensors`` library reads
the same files (a test holds this reader against it) but gives no bfloat16 without torch or further packages.
"""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any

from perjoule.errors import HostError, InputError
from perjoule_backends.checkpoints.gguf import TensorInfo

if TYPE_CHECKING:
    from pathlib import Path

MAX_HEADER_BYTES = 100_000_000  # the library's own limit
MAX_DIMENSIONS = 8
MAX_TENSORS = 1 << 18
_LENGTH_BYTES = 8
_DAMAGED = "the file is damaged or not a checkpoint: download it again"
_SHOWN = 200  # characters of an error; names come from the file
_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip


def read_safetensors(path: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a file by name; offsets are from the file's start.

    Raises ``InputError`` for anything that is not a whole, consistent file; ``HostError`` if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            head = file.read(_LENGTH_BYTES)
            if len(head) < _LENGTH_BYTES:
                raise _error(path, "too short to be a safetensors file")
            (length,) = struct.unpack("<Q", head)
            if length > min(MAX_HEADER_BYTES, size - _LENGTH_BYTES):
                raise _error(path, f"a header of {length} bytes does not fit into the file")
            text = file.read(length)
    except OSError as error:
        raise HostError(f"{path.name}: {error.strerror}", hint="check the path and its permissions") from error
    entries = _header(path, text)
    start = _LENGTH_BYTES + length
    tensors = [_tensor(path, name, entry, start, size - start) for name, entry in entries.items()]
    _check_places(path, tensors, start, size)
    return {tensor.name: tensor for tensor in tensors}


def _header(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _error(path, f"its header is no JSON ({str(error)[:60]})") from error
    if not isinstance(header, dict):
        raise _error(path, "its header is not a table")
    header.pop("__metadata__", None)
    if not header or len(header) > MAX_TENSORS:
        raise _error(path, f"{len(header)} tensors")
    return header


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        repeated = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        msg = f"{repeated[:40]!r} stands twice"
        raise ValueError(msg)
    return table


def _no_constant(word: str) -> float:
    msg = f"{word} is no number"
    raise ValueError(msg)


def _tensor(path: Path, name: str, entry: Any, start: int, room: int) -> TensorInfo:
    if not isinstance(entry, dict):
        raise _error(path, f"tensor {name!r} is not described by a table")
    kind = entry.get("dtype")
    shape, place = _whole_numbers(entry.get("shape")), _whole_numbers(entry.get("data_offsets"))
    if not isinstance(kind, str) or kind not in _BYTES:
        raise _error(path, f"tensor {name!r} has the unknown type {str(kind)[:20]!r}")
    if shape is None or len(shape) > MAX_DIMENSIONS or not math.prod(shape):
        raise _error(path, f"tensor {name!r} has shape {str(entry.get('shape'))[:60]}")
    if place is None or len(place) != 2 or not place[0] <= place[1] <= room:  # noqa: PLR2004
        raise _error(path, f"tensor {name!r} lies outside the file")
    nbytes = math.prod(shape) * _BYTES[kind]
    if place[1] - place[0] != nbytes:
        raise _error(path, f"tensor {name!r}: {place[1] - place[0]} bytes for a {kind} of shape {tuple(shape)}")
    return TensorInfo(name=name, shape=tuple(shape), type_name=kind, offset=start + place[0], nbytes=nbytes)


def _whole_numbers(values: Any) -> list[int] | None:
    whole = isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
    return values if whole else None


def _check_places(path: Path, tensors: list[TensorInfo], start: int, size: int) -> None:
    at = start
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.offset != at:
            how = "overlaps the one before it" if tensor.offset < at else "leaves a gap before it"
            raise _error(path, f"tensor {tensor.name!r} {how}")
        at += tensor.nbytes
    if at != size:
        raise _error(path, f"{size - at} bytes follow the last tensor")


def _error(path: Path, what: str) -> InputError:
    shown = what if len(what) <= _SHOWN else f"{what[:_SHOWN]}..."
    return InputError(f"{path.name}: {shown}", hint=_DAMAGED)
