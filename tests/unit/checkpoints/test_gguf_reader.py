"""The GGUF reader: real-shaped files are read, hostile ones are refused in bounded memory."""

from __future__ import annotations

import struct
import tracemalloc
from datetime import timedelta
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
from fixtures_checkpoints import checkpoint_path
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from perjoule.errors import HostError, InputError
from perjoule_backends.checkpoints.gguf import MAX_ENTRIES, MAX_NESTING, MAX_TRAILING_BYTES, read_gguf

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "\u4e2d"])
    writer.add_array("numbers", [1, 2, 3])
    writer.add_tensor("dense", np.arange(12, dtype=np.float32).reshape(3, 4))
    weights = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64)
    packed = gguf.quantize(weights, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("packed", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_reads_what_the_gguf_package_wrote(small_file: Path):
    file = read_gguf(small_file)
    assert file.metadata["llama.block_count"] == 2
    assert file.metadata["tokenizer.ggml.tokens"] == ["a", "b", "\u4e2d"]
    assert file.metadata["numbers"] == [1, 2, 3]
    np.testing.assert_array_equal(file.dequantize("dense"), np.arange(12, dtype=np.float32).reshape(3, 4))
    assert file.tensors["packed"].shape == (2, 64)
    expected = gguf.dequantize(np.array(file.raw("packed")), gguf.GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(file.dequantize("packed", slice(1, 2)), expected[1:])


@settings(max_examples=300, deadline=timedelta(seconds=2), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_refused_or_read_but_never_crash(small_file: Path, tmp_path: Path, data: st.DataObject):
    content = bytearray(small_file.read_bytes())
    cut = data.draw(st.integers(0, len(content)))
    for _ in range(data.draw(st.integers(0, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content[:cut] if data.draw(st.booleans()) else content)
    tracemalloc.start()
    try:
        file = read_gguf(path)
        assert all(t.offset + t.nbytes <= path.stat().st_size for t in file.tensors.values())
    except (InputError, HostError) as error:
        refused = error
        assert refused.hint
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 << 20


@pytest.fixture(scope="module")
def real_header() -> tuple[bytes, int]:
    """Return header and tensor table of SmolLM2, and the size of the whole file."""
    path = checkpoint_path("smollm2")
    with path.open("rb") as file:
        return file.read(min(t.offset for t in read_gguf(path).tensors.values())), path.stat().st_size


@pytest.mark.checkpoint
@settings(
    max_examples=40,
    deadline=timedelta(seconds=10),  # one takes 0.2 s
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_mutated_real_header_is_refused_or_read_in_bounded_time(
    real_header: tuple[bytes, int], tmp_path: Path, data: st.DataObject
):
    header, size = real_header
    content = bytearray(header)
    fields = st.one_of(  # the keys that come first, the tensor table at the end, anywhere
        st.integers(0, 2000), st.integers(len(header) - 20_000, len(header) - 9), st.integers(0, len(header) - 9)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at, width = data.draw(fields), data.draw(st.sampled_from([1, 4, 8]))
        number = data.draw(st.one_of(st.sampled_from([0, 8, 9, 2**31, 2**32 - 1, 2**40, 2**63]), st.integers(0, 2**40)))
        content[at : at + width] = number.to_bytes(8, "little")[:width]
    path = tmp_path / "mutated.gguf"
    with path.open("wb") as file:
        file.write(content)
        file.truncate(size)  # sparse: as long as the real one
    try:
        assert all(t.offset + t.nbytes <= size for t in read_gguf(path).tensors.values())
    except InputError as error:
        refused = error
        assert refused.hint
        assert len(refused.message) < 300


def test_the_tensor_table_has_a_limit(tmp_path: Path):
    path = tmp_path / "long.gguf"
    rows = b"".join(_tensor(f"{number:05}", (1,), 0, 0) for number in range(MAX_ENTRIES + 1))
    path.write_bytes(_file(b"", 0, rows, MAX_ENTRIES) + bytes(64))
    assert len(read_gguf(path).tensors) == MAX_ENTRIES
    path.write_bytes(_file(b"", 0, rows, MAX_ENTRIES + 1) + bytes(64))
    with pytest.raises(InputError, match="more than"):
        read_gguf(path)


def test_bytes_that_belong_to_nothing_are_refused(small_file: Path, tmp_path: Path):
    path = tmp_path / "tail.gguf"
    path.write_bytes(small_file.read_bytes() + bytes(MAX_TRAILING_BYTES + 64))
    with pytest.raises(InputError, match="follow the last tensor"):
        read_gguf(path)


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def _file(keys: bytes, key_count: int = 1, tensors: bytes = b"", tensor_count: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensor_count, key_count) + keys + tensors


def _tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return (
        _text(name)
        + struct.pack("<I", len(shape))
        + struct.pack(f"<{len(shape)}Q", *shape)
        + struct.pack("<IQ", kind, offset)
    )


_NESTED = _text("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * (MAX_NESTING + 60)
HOSTILE = {
    "array of 2^40 entries": _file(_text("k") + struct.pack("<IIQ", 9, 4, 2**40)),
    "array of 2^61 strings": _file(_text("k") + struct.pack("<IIQ", 9, 8, 2**61)),
    "deep nesting": _file(_NESTED),
    "giant string": _file(struct.pack("<Q", 2**63) + b"x"),
    "giant key count": _file(b"", key_count=2**60),
    "giant tensor count": _file(b"", key_count=0, tensor_count=2**60),
    "unknown value type": _file(_text("k") + struct.pack("<I", 99)),
    "repeated key": _file((_text("k") + struct.pack("<IB", 0, 1)) * 2, key_count=2),
    "alignment not a power of two": _file(_text("general.alignment") + struct.pack("<II", 4, 3)),
    "tensor beyond the end": _file(b"", 0, _tensor("t", (32,), 0, 1 << 50), 1),
    "tensor of overflowing shape": _file(b"", 0, _tensor("t", (2**62, 2**62), 0, 0), 1),
    "tensor with a zero": _file(b"", 0, _tensor("t", (0,), 0, 0), 1),
    "tensor of unknown type": _file(b"", 0, _tensor("t", (32,), 4000, 0), 1),
    "tensor of broken blocks": _file(b"", 0, _tensor("t", (33,), 8, 0), 1),
    "seven dimensions": _file(b"", 0, _tensor("t", (1,) * 7, 0, 0), 1),
    "another version": b"GGUF" + struct.pack("<IQQ", 9, 0, 0),
    "another format": b"PK\x03\x04" + bytes(64),
    "empty": b"",
    "long names in errors": _file(_text("k" * 100_000) + struct.pack("<I", 99)),
    "the same long key": _file((_text("k" * 100_000) + struct.pack("<IB", 0, 1)) * 2, key_count=2),
    "a billion empty arrays": _file(_text("k") + struct.pack("<IIQ", 9, 9, 2**30)),
    "name that is not text": _file(b"", 0, struct.pack("<Q", 4) + b"\xff\n\x00\xfe" + struct.pack("<I", 9), 1),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_get_one_line_and_a_hint(tmp_path: Path, content: bytes):
    path = tmp_path / "hostile.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_gguf(path)
    assert "hostile.gguf" in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300
    assert caught.value.hint


def test_a_missing_file_is_the_hosts_error(tmp_path: Path):
    with pytest.raises(HostError):
        read_gguf(tmp_path / "none.gguf")


SPARSE = {
    "a string of 2^38 bytes": (_file(struct.pack("<Q", 2**38)), "too long"),
    "2^38 small numbers": (_file(_text("k") + struct.pack("<IIQ", 9, 0, 2**38)), "more than"),
    "2^35 empty strings": (_file(_text("k") + struct.pack("<IIQ", 9, 8, 2**35)), "more than"),
    "2^34 empty arrays": (_file(_text("k") + struct.pack("<IIQ", 9, 9, 2**34)), "more than"),
    "2^33 tensors": (_file(b"", 0, b"", 2**33), "more than"),
    "2^33 keys": (_file(b"", 2**33), "more than"),
}


@pytest.mark.parametrize(("content", "why"), SPARSE.values(), ids=SPARSE.keys())
def test_a_sparse_file_of_a_terabyte_buys_no_memory(tmp_path: Path, content: bytes, why: str):
    path = tmp_path / "sparse.gguf"
    with path.open("wb") as file:
        file.write(content)
        file.truncate(2**40)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=why):
            read_gguf(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_file_cut_anywhere_in_its_header_or_table_is_refused(small_file: Path, tmp_path: Path):
    content = small_file.read_bytes()
    end = max(t.offset + t.nbytes for t in read_gguf(small_file).tensors.values())
    path = tmp_path / "cut.gguf"
    for size in [*range(end - 300), end - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(InputError):
            read_gguf(path)


def test_a_type_that_cannot_be_dequantized_is_said(tmp_path: Path):
    path = tmp_path / "whole.gguf"
    head = _file(b"", 0, _tensor("t", (4,), int(gguf.GGMLQuantizationType.I32), 0), 1)
    path.write_bytes(head.ljust(-(-len(head) // 32) * 32, b"\0") + bytes(16))
    with pytest.raises(InputError, match="I32") as caught:
        read_gguf(path).dequantize("t")
    assert caught.value.hint
