"""The safetensors reader: whole files are read, damaged and hostile ones refused with one line."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference.tiny_folder import bfloat16, write_safetensors

from perjoule.errors import HostError, InputError
from perjoule_backends.checkpoints.safetensors import MAX_HEADER_BYTES, read_safetensors

if TYPE_CHECKING:
    from pathlib import Path

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def file_of(path: Path, header: Any, data: bytes = bytes(24)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype: Any = "F32", shape: Any = (2, 3), offsets: Any = (0, 24)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_types_shapes_and_places_are_read(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"one": ("F32", VALUES), "two": ("BF16", bfloat16(VALUES)), "three": ("F32", VALUES[0])})
    tensors = read_safetensors(path)
    assert [(t.type_name, t.shape, t.nbytes) for t in tensors.values()] == [
        ("F32", (2, 3), 24), ("BF16", (2, 3), 12), ("F32", (3,), 12),
    ]  # fmt: skip
    at = tensors["one"].offset
    assert path.read_bytes()[at : at + 24] == VALUES.tobytes()


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ({}, "0 tensors"),
        ({"__metadata__": {}}, "0 tensors"),
        ([1], "not a table"),
        (b"{", "no JSON"),
        (b'{"a": NaN}', "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"a":' + json.dumps(entry()).encode() + b',"a":' + json.dumps(entry()).encode() + b"}", "stands twice"),
        ({"a": 1}, "not described"),
        ({"a": entry(dtype="Q9")}, "unknown type"),
        ({"a": entry(dtype=3)}, "unknown type"),
        ({"a": entry(shape=[2, -3])}, "has shape"),
        ({"a": entry(shape=[0, 3])}, "has shape"),
        ({"a": entry(shape=[True, 6])}, "has shape"),
        ({"a": entry(shape="23")}, "has shape"),
        ({"a": entry(shape=[1 << 62, 1 << 62])}, "24 bytes for a F32"),
        ({"a": entry(shape=[2, 2])}, "24 bytes for a F32"),
        ({"a": entry(offsets=[0, 25])}, "outside the file"),
        ({"a": entry(offsets=[-1, 23])}, "outside the file"),
        ({"a": entry(offsets=[24, 0])}, "outside the file"),
        ({"a": entry(offsets=[0])}, "outside the file"),
        ({"a": entry(shape=[2], offsets=[0, 8])}, "16 bytes follow"),
        ({"a": entry(shape=[4], offsets=[8, 24])}, "leaves a gap"),
        ({"a": entry(shape=[4], offsets=[0, 16]), "b": entry(shape=[4], offsets=[8, 24])}, "overlaps"),
    ],
)
def test_damaged_tables_are_refused_in_one_line(tmp_path: Path, header: Any, why: str):
    with pytest.raises(InputError, match=why) as caught:
        read_safetensors(file_of(tmp_path / "a.safetensors", header))
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300
    assert caught.value.hint


@pytest.mark.parametrize("content", [b"", b"1234567", struct.pack("<Q", 1 << 60), struct.pack("<Q", 10) + b"{}"])
def test_files_too_short_for_their_header_are_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"too short|does not fit"):
        read_safetensors(path)


def test_a_giant_header_is_refused_before_it_is_read(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER_BYTES + 1))
        file.truncate(MAX_HEADER_BYTES * 2)
    with pytest.raises(InputError, match="does not fit"):
        read_safetensors(path)


def test_a_missing_file_is_the_hosts_error(tmp_path: Path):
    with pytest.raises(HostError):
        read_safetensors(tmp_path / "none.safetensors")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_refused_or_read_but_never_crash(tmp_path: Path, data: st.DataObject):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"one": ("F32", VALUES), "two": ("BF16", bfloat16(VALUES))})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        tensors = read_safetensors(path)
    except InputError:
        return
    assert all(t.offset + t.nbytes <= len(content) for t in tensors.values())
