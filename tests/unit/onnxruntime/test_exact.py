"""Blocks that are kept as the file has them: equal to the last bit, and chosen only where they take no more bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from gguf import GGMLQuantizationType, dequantize
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reference.tiny_checkpoint import write_tiny

from perjoule.protocols import EngineOptions
from perjoule_backends.checkpoints.exact_forms import exact_codes, exact_form, exact_scales

pytest.importorskip("onnxruntime")
from perjoule_backends.onnxruntime import OnnxRuntimeBackend, quantize
from perjoule_backends.onnxruntime.manifest import Form, read_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from perjoule_backends.onnxruntime.manifest import Manifest

BLOCK = 32
Kind = GGMLQuantizationType


@given(data=st.data(), kind=st.sampled_from(["Q4_0", "Q8_0"]))
def test_blocks_kept_are_those_of_the_file(data: st.DataObject, kind: str) -> None:
    form = Form(bits=4 if kind == "Q4_0" else 8, block=BLOCK)
    rows, blocks = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    payload = data.draw(arrays(np.uint8, (rows, blocks, BLOCK * form.bits // 8)))
    scales = data.draw(arrays(np.float16, (rows, blocks, 1), elements=st.floats(width=16, allow_nan=False)))
    scales = np.where(np.isfinite(scales), scales, np.float16(1))
    raw: NDArray[np.uint8] = np.concatenate([scales.view(np.uint8), payload], axis=2).reshape(rows, -1)
    expected = dequantize(raw, Kind[kind]).astype(np.float32)
    kept = exact_scales(kind, raw)
    of_file = exact_form(kind)
    assert of_file is not None
    codes = quantize.pack(exact_codes(expected, kept, of_file).reshape(rows, blocks, BLOCK), form)
    assert codes.shape == payload.shape
    found = quantize.dequantize(codes, kept, form)
    np.testing.assert_array_equal(found.view(np.uint32)[found != 0], expected.view(np.uint32)[found != 0])
    assert not expected[found == 0].any()  # of either sign


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))


def converted(path: Path, quant: str) -> Manifest:
    options = EngineOptions(quant=quant)
    return read_manifest(OnnxRuntimeBackend().prepare(str(path), options, lambda _text, _share: None).path)


def test_four_bits_of_the_file_stay_four_bits_without_loss(tmp_path: Path) -> None:
    found = converted(write_tiny(tmp_path / "tiny.gguf", "llama", kind=Kind.Q4_0, tied=False), "faithful")
    assert set(found.forms.values()) == {Form(bits=4, block=32)}
    assert set(found.relative_error.values()) == {0.0}
    assert found.bits_per_weight == 5


def test_eight_bits_of_the_file_stay_where_wider_blocks_save_nothing(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama", kind=Kind.Q8_0)
    found = converted(path, "faithful")
    assert found.forms["l0.down"] == Form(bits=8, block=32)  # 96 columns
    assert found.relative_error["l0.down"] == 0
    assert found.forms["l0.up"] == Form(bits=8, block=64)
    assert 0 < found.relative_error["l0.up"] < 0.01
    assert set(converted(path, "int8").relative_error.values()) == {0.0}


def test_types_with_an_offset_are_rounded_and_say_so(tmp_path: Path) -> None:
    found = converted(write_tiny(tmp_path / "tiny.gguf", "llama", kind=Kind.Q4_1), "faithful")
    assert all(form.bits == 8 for form in found.forms.values())
    assert min(found.relative_error.values()) > 0


@pytest.mark.parametrize("tied", [True, False])
def test_logits_of_a_four_bit_file_are_those_of_its_own_weights(tmp_path: Path, tied: bool) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "gemma3", kind=Kind.Q4_0, tied=tied)
    ids, logits = [5, 17, 90, 3, 3, 64, 127, 0, 41, 8, 77, 12], {}
    for quant in ("faithful", "fp32"):
        options = EngineOptions(threads=1, quant=quant, context_tokens=64, extra={"spinning": False})
        backend = OnnxRuntimeBackend()
        engine = backend.load(backend.prepare(str(path), options, lambda _text, _share: None), options)
        logits[quant] = engine.logits(ids)
    # Weights are equal: what is left are activations in 8 bits inside MatMulNBits
    np.testing.assert_allclose(logits["faithful"], logits["fp32"], rtol=0, atol=0.2)
