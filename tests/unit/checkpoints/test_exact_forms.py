"""Every type that ``gguf`` can dequantize is read; those said to have an exact integer form have one, bit for bit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import _type_traits
from hypothesis import given, settings
from hypothesis import strategies as st

from perjoule_backends.checkpoints.exact_forms import exact_codes, exact_form, exact_scales, import_report
from perjoule_backends.checkpoints.gguf import TensorInfo, read_gguf

if TYPE_CHECKING:
    from pathlib import Path

Kind = gguf.GGMLQuantizationType
READ = sorted({*_type_traits, Kind.F32, Kind.F16}, key=lambda kind: kind.name)
AFFINE = {"Q4_1", "Q5_1", "Q2_K", "Q4_K", "Q5_K"}  # a minimum is added to each block
FLOATING = {"F32", "F16", "BF16"}
EXACT = [kind for kind in READ if kind.name not in AFFINE | FLOATING]
# Where a block keeps its float16 scale; the rest of its bytes may be anything.
SCALE_AT = {"TQ1_0": 52, "TQ2_0": 64, "Q3_K": 108, "Q6_K": 208, "Q2_K": 80}


def random_rows(kind: Kind, seed: int, rows: int = 3, blocks: int = 2) -> np.ndarray:
    """Return rows of random bytes whose scales are finite, as those of every real file are."""
    random = np.random.default_rng(seed)
    size, nbytes = GGML_QUANT_SIZES[kind]
    if kind.name in FLOATING:
        values = random.standard_normal((rows, 8 * blocks * size)).astype(np.float32)
        return gguf.quantize(values, kind).view(np.uint8)
    data = random.integers(0, 256, (rows * blocks, nbytes), dtype=np.uint8)
    scale = (random.standard_normal(rows * blocks) * 0.02).astype(np.float16).view(np.uint8).reshape(-1, 2)
    if kind.name == "IQ1_M":  # spread over the upper nibbles of four numbers
        numbers = data[:, 48:].view("<u2")
        for i in range(4):
            nibble = (scale.view("<u2")[:, 0] >> (4 * i)) & 15
            numbers[:, i] = (numbers[:, i] & 0x0FFF) | (nibble << 12)
    elif kind.name == "MXFP4":
        data[:, 0] = random.integers(0, 200, rows * blocks)
    elif kind.name != "NVFP4":
        at = SCALE_AT.get(kind.name, 0)
        data[:, at : at + 2] = scale
        if kind.name in ("Q4_1", "Q5_1", "Q4_K", "Q5_K", "Q2_K"):
            data[:, at + 2 : at + 4] = scale[::-1]
    return data.reshape(rows, -1)


@pytest.mark.parametrize("kind", READ, ids=lambda kind: kind.name)
def test_every_type_of_the_package_is_read_as_the_package_reads_it(kind: Kind, tmp_path: Path):
    stored = random_rows(kind, seed=kind.value)
    raw = stored.view({"F32": np.float32, "F16": np.float16}.get(kind.name, np.uint8))
    writer = gguf.GGUFWriter(tmp_path / "one.gguf", "llama")
    writer.add_tensor("one", raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = read_gguf(tmp_path / "one.gguf")
    expected = gguf.dequantize(raw, kind)
    assert file.tensors["one"].shape == expected.shape
    np.testing.assert_array_equal(file.raw("one"), stored)
    np.testing.assert_array_equal(file.dequantize("one"), expected.astype(np.float32))
    np.testing.assert_array_equal(file.dequantize("one", slice(1, 2)), expected[1:2].astype(np.float32))


def test_every_type_is_classified():
    assert {kind.name for kind in READ if exact_form(kind.name) is None} == AFFINE | FLOATING


def test_the_plain_types_have_the_expected_forms():
    four, eight = exact_form("Q4_0"), exact_form("Q8_0")
    assert four is not None
    assert eight is not None
    assert (four.bits, four.zero_point, four.block) == (4, 8, 32)
    assert (eight.bits, eight.zero_point, eight.block) == (8, 128, 32)


@pytest.mark.parametrize("kind", EXACT, ids=lambda kind: kind.name)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_an_exact_form_gives_back_every_bit(kind: Kind, seed: int):
    stored = random_rows(kind, seed)
    expected = gguf.dequantize(stored, kind).astype(np.float32)
    form = exact_form(kind.name)
    assert form is not None
    scales = exact_scales(kind.name, stored)
    assert scales.shape == (expected.shape[0], expected.shape[1] // form.block)
    codes = exact_codes(expected, scales, form)
    assert codes.max() < 1 << form.bits
    signed = codes.astype(np.float32) - np.float32(form.zero_point)
    again = signed.reshape(*scales.shape, form.block) * scales[..., None]
    np.testing.assert_array_equal(again.reshape(expected.shape), expected)


def test_the_report_groups_matrices_by_what_became_of_them():
    types = {"token_embd": "Q8_0", "blk.0.attn_q": "Q4_0", "blk.0.attn_k": "Q4_0", "blk.0.attn_v": "Q6_K",
             "blk.0.ffn_down": "Q4_1", "blk.1.ffn_down": "Q4_1"}  # fmt: skip
    tensors = {
        f"{name}.weight": TensorInfo(name=name, shape=(2, 32), type_name=kind, offset=0, nbytes=1)
        for name, kind in types.items()
    }
    forms = {"embedding": (8, 32), "head": (8, 32), "l0.qkv": (8, 16), "l0.down": (8, 32), "l1.down": (8, 32)}
    lost = {"embedding": 0.003, "l0.qkv": 0.0, "l0.down": 0.001, "l1.down": 0.002}
    rows = import_report(SimpleNamespace(tensors=tensors), forms, lost)  # type: ignore[arg-type]
    told = {row["matrix"]: row for row in rows}
    assert told["head"]["stored_as"] == "Q8_0"  # tied: the embedding's own
    assert told["head"]["exact"] == 0
    assert told["qkv"]["stored_as"] == "Q4_0, Q6_K"
    assert (told["qkv"]["exact"], told["qkv"]["count"]) == (1, 1)
    assert (told["down"]["exact"], told["down"]["count"]) == (0, 2)
    assert told["down"]["largest_relative_error"] == 0.002
