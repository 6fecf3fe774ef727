"""A checkpoint written out as a Hugging Face folder: names, values, configuration, cache. No torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from reference.tiny_checkpoint import CONTEXT, HIDDEN, VOCABULARY, write_tiny

from perjoule.errors import InputError
from perjoule_backends.checkpoints import dequantized
from perjoule_backends.checkpoints.dequantized import dequantized_folder, read_note
from perjoule_backends.checkpoints.folder import read_folder
from perjoule_backends.checkpoints.gguf import read_gguf
from perjoule_backends.checkpoints.safetensors import read_safetensors
from perjoule_backends.checkpoints.tokenizer import load_tokenizer, write_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))


def silent(_text: str, _share: float | None) -> None:
    """Say nothing."""


def unpermuted(values: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows 0, 2, 4, ... of each head, then 1, 3, 5, ...: pairs half a head apart."""
    heads = values.reshape(-1, head_dim, values.shape[1])
    return np.concatenate([heads[:, ::2], heads[:, 1::2]], axis=1).reshape(values.shape)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_reader_of_published_folders_finds_the_same_weights(tmp_path: Path, architecture: str, tied: bool) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", architecture, tied=tied, kind=gguf.GGMLQuantizationType.Q8_0)
    source = read_gguf(path)
    folder, _ = dequantized_folder(str(path), "fp32", silent)
    found = read_folder(folder)
    assert set(found.tensors) == set(source.tensors)
    for name in source.tensors:
        expected = source.dequantize(name)
        if architecture == "llama" and name.endswith(("attn_q.weight", "attn_k.weight")):
            expected = unpermuted(expected, HIDDEN // 4)
        np.testing.assert_array_equal(found.dequantize(name), expected, err_msg=name)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_reader_of_published_folders_finds_the_same_shape(tmp_path: Path, architecture: str) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", architecture, keys={"rope.scaling.factor": 4.0})
    source, found = read_gguf(path).metadata, read_folder(dequantized_folder(str(path), "fp32", silent)[0]).metadata
    keys = [key for key in source if key.startswith(f"{architecture}.")]
    assert len(keys) > 8
    for key in keys:
        assert found[key] == pytest.approx(source[key]), key
    assert found["perjoule.rotary_interleaved"] is False


def test_rows_written_in_several_parts_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    whole = (dequantized_folder(str(path), "fp32", silent)[0] / "model.safetensors").read_bytes()
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "another"))
    monkeypatch.setattr(dequantized, "_ROWS_AT_ONCE_BYTES", 4 * HIDDEN * 7)  # seven rows: no whole head
    assert (dequantized_folder(str(path), "fp32", silent)[0] / "model.safetensors").read_bytes() == whole


@given(arrays.arrays(np.float32, 16, elements=st.floats(-(2.0**59), 2.0**59, width=32)))
def test_bfloat16_is_the_nearest(values: np.ndarray) -> None:
    bits = dequantized._stored(values, "bf16").astype(np.uint32)
    written = (bits << 16).view(np.float32)
    low = ((values.view(np.uint32) >> 16) << 16).view(np.float32)
    high = (((values.view(np.uint32) >> 16) + 1) << 16).view(np.float32)  # the next one away from zero
    nearest = np.minimum(np.abs(values.astype(np.float64) - low), np.abs(values.astype(np.float64) - high))
    np.testing.assert_array_equal(np.abs(values.astype(np.float64) - written), nearest)
    ties = np.abs(values.astype(np.float64) - low) == np.abs(values.astype(np.float64) - high)
    assert not (bits[ties] & 1).any()


def test_a_bf16_folder_takes_half(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "qwen2")
    full, half = (dequantized_folder(str(path), kind, silent) for kind in ("fp32", "bf16"))
    assert half[0] != full[0]
    assert 2 * half[1].weights_bytes == full[1].weights_bytes
    tensors = read_safetensors(half[0] / "model.safetensors")
    assert {tensor.type_name for tensor in tensors.values()} == {"BF16"}
    assert sum(tensor.nbytes for tensor in tensors.values()) == half[1].weights_bytes
    assert json.loads((half[0] / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_the_tokenizer_is_that_of_every_other_engine(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    folder, held = dequantized_folder(str(path), "fp32", silent)
    assert held.tokenizer_sha256 == write_tokenizer(read_gguf(path).metadata, tmp_path)
    assert load_tokenizer(folder).encode("abba") == load_tokenizer(tmp_path).encode("abba")
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == list(held.stop_ids)
    assert held.stop_ids


def test_what_is_noted_counts_the_file(tmp_path: Path) -> None:
    tied, untied = (
        dequantized_folder(str(write_tiny(tmp_path / f"{name}.gguf", "llama", tied=name == "tied")), "fp32", silent)[1]
        for name in ("tied", "untied")
    )
    assert (tied.looked_up_bytes, untied.looked_up_bytes) == (0, 4 * VOCABULARY * HIDDEN)
    assert untied.weights_bytes - tied.weights_bytes == 4 * VOCABULARY * HIDDEN
    assert tied.weights_bytes == 4 * tied.parameters
    facts = untied.facts(
        "untied.gguf", quant="fp32", bits_per_weight=32.0, weights_bytes=untied.weights_bytes,
        streamed_bytes_per_token=1, kv_value_bytes=4, context_tokens=CONTEXT,
    )  # fmt: skip
    assert facts.parameters == untied.parameters
    assert facts.kv_bytes_per_position == 2 * 2 * 2 * (HIDDEN // 4) * 4  # k and v, layers, heads, width, bytes


def test_layers_with_a_window_have_no_one_size_per_position(tmp_path: Path) -> None:
    held = dequantized_folder(str(write_tiny(tmp_path / "tiny.gguf", "gemma3")), "fp32", silent)[1]

    def kv(context: int) -> tuple[int | None, object]:
        facts = held.facts(
            "tiny.gguf", quant="fp32", bits_per_weight=32.0, weights_bytes=1, streamed_bytes_per_token=1,
            kv_value_bytes=4, context_tokens=context,
        )  # fmt: skip
        return facts.kv_bytes_per_position, facts.kv_bytes_per_position_missing

    assert kv(8)[0]
    assert kv(9)[0] is None
    assert "look back" in str(kv(9)[1])


def test_a_folder_is_written_once(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    folder, held = dequantized_folder(str(path), "fp32", silent)
    written = (folder / "model.safetensors").stat().st_ino
    again, same = dequantized_folder(str(path), "fp32", silent)
    assert (again, same) == (folder, held)
    assert (folder / "model.safetensors").stat().st_ino == written


def test_a_damaged_folder_is_written_anew_and_scrap_goes(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    folder, held = dequantized_folder(str(path), "fp32", silent)
    (folder / "dequantized.json").write_text("{")
    scrap = folder.parent / ".writing-left"
    scrap.mkdir()
    assert dequantized_folder(str(path), "fp32", silent) == (folder, held)
    assert read_note(folder) == held
    assert not scrap.exists()


def test_the_same_bytes_under_another_name_are_called_by_it(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "one.gguf", "llama")
    folder, one = dequantized_folder(str(path), "fp32", silent)
    _, other = dequantized_folder(str(path.rename(tmp_path / "one-b.gguf")), "fp32", silent)
    assert (one.checkpoint.name, other.checkpoint.name) == ("one", "one-b")
    assert folder.is_dir()


def test_weights_that_are_none_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    tensor = read_gguf(path).tensors["blk.1.ffn_up.weight"]
    with path.open("rb+") as file:
        file.seek(tensor.offset + 8)
        file.write(np.array([np.nan], dtype="<f4").tobytes())
    with pytest.raises(InputError, match=r"blk\.1\.ffn_up") as caught:
        dequantized_folder(str(path), "fp32", silent)
    assert caught.value.hint
    assert [p.name for p in (tmp_path / "cache" / "dequantized").iterdir()] == [".lock"]


def test_what_transformers_has_no_place_for_is_refused(tmp_path: Path) -> None:
    softcap = write_tiny(tmp_path / "softcap.gguf", "gemma3", keys={"attn_logit_softcapping": 30.0})
    with pytest.raises(InputError, match="softcapping") as caught:
        dequantized_folder(str(softcap), "fp32", silent)
    assert "onnxruntime backend" not in caught.value.message


def test_rotary_factors_become_lists_that_divide(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama", rope_factors=True)
    config = json.loads((dequantized_folder(str(path), "fp32", silent)[0] / "config.json").read_text())
    expected = read_gguf(path).dequantize("rope_freqs.weight")[0].tolist()
    scaling = config["rope_scaling"]
    assert scaling["short_factor"] == scaling["long_factor"] == pytest.approx(expected)
    assert scaling["attention_factor"] == 1.0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_published_folder_is_written_out_as_it_is(tmp_path: Path, architecture: str) -> None:
    """What we write is such a folder itself, so that what is written of it must be the same bytes."""
    first, held = dequantized_folder(str(write_tiny(tmp_path / "tiny.gguf", architecture)), "fp32", silent)
    second, again = dequantized_folder(str(first), "fp32", silent)
    assert second != first
    assert (second / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
    assert json.loads((second / "config.json").read_text()) == json.loads((first / "config.json").read_text())
    assert (held.checkpoint.format, again.checkpoint.format) == ("gguf", "safetensors")
    assert again.stop_ids == held.stop_ids
