"""Synthetic models: true shapes, the same numbers everywhere, never whole in memory, and marked as what they are."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from perjoule.errors import InputError
from perjoule_backends.checkpoints import synthetic
from perjoule_backends.checkpoints.facts import model_facts
from perjoule_backends.checkpoints.resolve import resolve
from perjoule_backends.checkpoints.source import open_weights
from perjoule_backends.checkpoints.tokenizer import load_tokenizer, write_tokenizer


def silent(_text: str, _share: float | None) -> None:
    return None


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))


def opened(name: str = "smollm2-360m") -> synthetic.SyntheticWeights:
    weights = open_weights(Path(resolve(f"synthetic:{name}", silent).path))
    assert isinstance(weights, synthetic.SyntheticWeights)
    return weights


@pytest.mark.parametrize("name", synthetic.shapes())
def test_every_shape_can_be_opened(name: str):
    weights = opened(name)
    shape = synthetic.shapes()[name]
    assert weights.tensors["token_embd.weight"].shape == (shape.config["vocab_size"], shape.config["hidden_size"])
    assert shape.source.startswith("https://huggingface.co/")
    assert shape.certainty == "config.json" or shape.certainty.startswith("parameter count: ")


def test_numbers_are_the_same_in_any_order_and_slice():
    weights = opened()
    name = "blk.7.ffn_down.weight"
    whole = weights.dequantize(name)
    assert whole.shape == (960, 2560)
    for rows in (slice(0, 1), slice(405, 415), slice(959, 2000), slice(-3, None), slice(5, 5)):
        np.testing.assert_array_equal(opened().dequantize(name, rows), whole[rows])
    assert not np.array_equal(whole, weights.dequantize("blk.8.ffn_down.weight"))
    # pinned: another number here means results of the same name can no longer be compared
    digest = hashlib.sha256(np.round(whole[:4], 4).tobytes()).hexdigest()
    assert digest[:16] == "24296691d67cb9c5"


def test_scales_keep_the_residual_stream_in_bounds():
    weights = opened()
    assert weights.dequantize("blk.0.attn_q.weight").std() == pytest.approx(960**-0.5, rel=0.02)
    assert weights.dequantize("blk.0.ffn_down.weight").std() == pytest.approx((2560 * 64) ** -0.5, rel=0.02)
    assert (weights.dequantize("output_norm.weight") == 1).all()
    assert (opened("qwen2.5-1.5b").dequantize("blk.0.attn_q.bias") == 0).all()


def test_rows_are_made_without_the_rest_of_the_model():
    weights = opened("llama-3.1-8b")
    tracemalloc.start()
    rows = weights.dequantize("token_embd.weight", slice(100_000, 100_256))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows.shape == (256, 4096)
    assert peak < 64 << 20


def test_true_rotary_factors_are_given():
    factors = opened("llama-3.1-8b").dequantize("rope_freqs.weight")
    assert factors.shape == (1, 64)
    assert (factors[0, 0], factors[0, -1]) == (1.0, 8.0)


def test_the_tokenizer_has_the_true_size_and_says_what_it_is(tmp_path: Path):
    write_tokenizer(opened("qwen3-0.6b").metadata, tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["vocabulary"] == 151936
    assert config["synthetic"] is True
    assert config["stop_ids"] == [151935]
    tokenizer = load_tokenizer(tmp_path)
    text = "h\u00e9llo \u4e16\u754c\n"
    ids = tokenizer.encode(text)
    assert ids == list(text.encode())
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([150_000]) == "<|filler-150000|>"


def test_facts_say_what_is_synthetic_and_what_is_left_out():
    checkpoint = resolve("synthetic:kanana-1.5-2.1b", silent)
    facts = model_facts(
        "synthetic:kanana-1.5-2.1b",
        checkpoint,
        architecture="llama",
        parameters=1,
        body_parameters=None,
        tokenizer_sha256="0" * 64,
        runtime_quantization="int8",
        bits_per_weight=8.5,
        weights_bytes=1,
        streamed_bytes_per_token=1,
        kv_bytes_per_position=1,
    )
    assert (facts.weights, facts.source_format, facts.vendor) == ("synthetic", "synthetic", "Kakao")
    assert facts.file_bytes is None
    assert "no file" in str(facts.file_bytes_missing)
    assert any("tokenizer" in part for part in facts.left_out)
    assert any("certainty" in part for part in facts.left_out)


def test_a_folder_that_was_tampered_with_or_is_of_another_version_is_refused():
    path = Path(resolve("synthetic:qwen3-0.6b", silent).path)
    note = path / synthetic.NOTE_FILE
    table = json.loads(note.read_bytes())
    note.write_text(json.dumps(table | {"version": 99}), encoding="utf-8")
    with pytest.raises(InputError, match="another version"):
        open_weights(path)
    note.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read"):
        open_weights(path)
    with pytest.raises(InputError, match="folder of a synthetic model"):
        resolve(str(path), silent)


def test_a_vocabulary_needs_room_for_all_bytes():
    with pytest.raises(InputError, match="256 tokens"):
        synthetic.byte_tokenizer(256)
