"""Checkpoint folders: read in the terms of GGUF, refused when they are not whole, not safe or not understood."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from reference import tiny_folder

from perjoule.errors import InputError
from perjoule_backends.checkpoints import resolve
from perjoule_backends.checkpoints.folder import checkpoint_files, digest_of, read_folder
from perjoule_backends.checkpoints.hf_config import published_name, read_config
from perjoule_backends.checkpoints.source import open_weights
from perjoule_backends.checkpoints.tokenizer import load_tokenizer, write_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


def silent(_text: str, _share: float | None) -> None:
    return None


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return tiny_folder.write_folder(tmp_path / "tiny", "qwen2", shards=3)


def rewrite(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None takes a key away."""
    table = json.loads(path.read_text(encoding="utf-8")) | changes
    kept = {key: value for key, value in table.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("kind", tiny_folder.CONFIGS)
def test_every_tensor_comes_under_its_gguf_name(kind: str, dtype: str, tmp_path: Path):
    folder = open_weights(tiny_folder.write_folder(tmp_path / "tiny", kind, dtype=dtype, shards=2))
    config = tiny_folder.config_of(kind)
    decoder = read_config(config, "tiny")
    expected = tiny_folder.random_tensors(config)
    for name, tensor in folder.tensors.items():
        if name == "rope_freqs.weight":
            continue
        values = expected[published_name(decoder, name)]
        values = values.astype({"F16": np.float16}.get(dtype, np.float32)).astype(np.float32)
        if kind == "gemma3_text" and name.endswith("norm.weight"):
            values = values + np.float32(1)  # as GGUF files hold it
        found = folder.dequantize(name)
        np.testing.assert_array_equal(found.reshape(values.shape), values)
        np.testing.assert_array_equal(folder.dequantize(name, slice(0, 1)), found[:1])
        assert folder.raw(name).nbytes == tensor.nbytes


def test_metadata_say_how_the_rotary_pairs_lie(tiny: Path):
    folder = read_folder(tiny)
    assert folder.metadata["general.architecture"] == "qwen2"
    assert folder.metadata["perjoule.rotary_interleaved"] is False
    assert folder.metadata["qwen2.attention.head_count_kv"] == 2
    assert "output.weight" not in folder.tensors
    assert folder.stored_as == "BF16"


def test_the_rotary_factors_of_llama_3_follow_the_formula(tmp_path: Path):
    folder = read_folder(tiny_folder.write_folder(tmp_path / "tiny", "llama"))
    factors = folder.dequantize("rope_freqs.weight")[0]
    wavelengths = 2 * np.pi * 10000.0 ** (np.arange(8) / 8)
    np.testing.assert_allclose(factors[wavelengths < 32 / 4], 1.0)
    np.testing.assert_allclose(factors[wavelengths > 32 / 1], 8.0)
    between = (wavelengths > 8) & (wavelengths < 32)
    assert between.any()
    assert ((factors[between] > 1) & (factors[between] < 8)).all()
    assert "llama.rope.scaling.type" not in folder.metadata  # the tensor says it all, as in GGUF files


def test_a_plain_llama_has_no_rotary_factors(tmp_path: Path):
    folder = read_folder(tiny_folder.write_folder(tmp_path / "tiny", "llama", rope_scaling=None))
    assert "rope_freqs.weight" not in folder.tensors


def test_newer_and_older_spellings_of_the_rotary_keys_mean_the_same():
    old = tiny_folder.config_of("llama")
    scaling = dict(old["rope_scaling"])
    new = {key: value for key, value in old.items() if key not in ("rope_scaling", "rope_theta")}
    new["rope_parameters"] = scaling | {"rope_theta": old["rope_theta"]}
    assert read_config(new, "new") == read_config(old, "old")
    gemma = tiny_folder.config_of("gemma3_text")
    newer = {
        k: v for k, v in gemma.items() if k not in ("rope_theta", "rope_local_base_freq", "sliding_window_pattern")
    }
    newer["layer_types"] = ["sliding_attention", "full_attention"]
    newer["rope_parameters"] = {
        "full_attention": {"rope_type": "default", "rope_theta": gemma["rope_theta"]},
        "sliding_attention": {"rope_type": "default", "rope_theta": gemma["rope_local_base_freq"]},
    }
    assert read_config(newer, "newer") == read_config(gemma, "gemma")


@pytest.mark.parametrize(
    ("kind", "changes", "why"),
    [
        ("qwen2", {"auto_map": {"AutoModel": "modeling.X"}}, "code of its own"),
        ("qwen2", {"model_type": "gpt_oss"}, "model type 'gpt_oss'"),
        ("qwen2", {"model_type": None}, "model type None"),
        ("qwen2", {"quantization_config": {"quant_method": "awq"}}, "quantized by 'awq'"),
        ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rotary scaling 'yarn'"),
        ("qwen2", {"rope_scaling": [1]}, "expected a table"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window"),
        ("qwen2", {"hidden_act": "relu"}, "activation 'relu'"),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "do not see everything"),
        ("qwen2", {"num_key_value_heads": 3}, "do not share 3"),
        ("qwen2", {"hidden_size": "64"}, "hidden_size is '64'"),
        ("qwen2", {"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ("qwen2", {"rms_norm_eps": -1.0}, "rms_norm_eps"),
        ("qwen2", {"tie_word_embeddings": "yes"}, "expected true or false"),
        ("llama", {"attention_bias": True}, "attention_bias"),
        ("llama", {"partial_rotary_factor": 0.5}, "a part of each head"),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor is None"),
        ("gemma3_text", {"query_pre_attn_scalar": 99}, "scaled by 99"),
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ("gemma3_text", {"layer_types": ["full_attention"]}, "layer_types"),
    ],
)
def test_configurations_that_would_run_and_be_wrong_are_refused(kind: str, changes: dict[str, Any], why: str):
    config = {k: v for k, v in (tiny_folder.config_of(kind) | changes).items() if v is not None}
    with pytest.raises(InputError, match=why) as caught:
        read_config(config, "tiny")
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_shards_that_are_missing_strange_or_wrong_are_refused(tiny: Path):
    shard = tiny / "model-00002-of-00003.safetensors"
    content = shard.read_bytes()
    shard.unlink()
    with pytest.raises(InputError, match="shard model-00002-of-00003"):
        read_folder(tiny)
    shard.write_bytes((tiny / "model-00001-of-00003.safetensors").read_bytes())
    with pytest.raises(InputError, match="is in two shards"):
        read_folder(tiny)
    shard.write_bytes(content)
    read_folder(tiny)


@pytest.mark.parametrize(
    ("index", "why"),
    [
        ({"weight_map": {"a": "../up.safetensors"}}, "names the shard"),
        ({"weight_map": {"a": "/etc/passwd"}}, "names the shard"),
        ({"weight_map": {"a": 3}}, "names the shard"),
        ({"weight_map": {}}, "no weight_map"),
        ({"weight_map": ["a"]}, "no weight_map"),
        ([1], "not a table"),
    ],
)
def test_an_index_cannot_point_elsewhere(tiny: Path, index: Any, why: str):
    (tiny / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(InputError, match=why):
        read_folder(tiny)


def test_tensors_that_are_missing_misshapen_unknown_or_of_another_type_are_refused(tmp_path: Path):
    path = tiny_folder.write_folder(tmp_path / "tiny", "qwen2")
    config = tiny_folder.config_of("qwen2")
    whole = {name: ("F32", values) for name, values in tiny_folder.random_tensors(config).items()}
    norm = "model.norm.weight"
    for change, why in (
        ({norm: None}, "tensor model.norm.weight is missing"),
        ({norm: ("F32", np.zeros(32, np.float32))}, "has shape"),
        ({norm: ("I32", np.zeros(64, np.int32))}, "stored as I32"),
        ({"model.layers.0.mlp.gate.weight": ("F32", np.zeros(4, np.float32))}, "has no place"),
    ):
        tensors = {name: stored for name, stored in (whole | change).items() if stored is not None}
        tiny_folder.write_safetensors(path / "model.safetensors", tensors)
        with pytest.raises(InputError, match=why):
            read_folder(path)
    tied = whole | {"lm_head.weight": whole["model.embed_tokens.weight"]}  # a copy that transformers drops as well
    tiny_folder.write_safetensors(path / "model.safetensors", tied)
    assert "output.weight" not in read_folder(path).tensors


def test_pickled_weights_are_never_opened(tmp_path: Path):
    path = tiny_folder.write_folder(tmp_path / "tiny", "qwen2")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(InputError, match="never opened"):
        read_folder(path)
    (path / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match="no safetensors files"):
        read_folder(path)


def test_tokenizers_that_are_missing_foreign_or_damaged_are_refused(tiny: Path):
    tokenizer = tiny / "tokenizer.json"
    for content, why in (
        (json.dumps(tiny_folder.tokenizer_json(301)), "301 tokens, but the embedding has 300 rows"),
        ("{", "not JSON"),
        ("[]", "not a tokenizer"),
        ('{"model": {"type": "none"}}', "tokenizer.json: "),
    ):
        tokenizer.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=why):
            read_folder(tiny)
    tokenizer.unlink()
    with pytest.raises(InputError, match=r"tokenizer.json is missing"):
        read_folder(tiny)


def test_a_tokenizer_of_far_fewer_tokens_is_another_models(tmp_path: Path):
    path = tiny_folder.write_folder(tmp_path / "tiny", "qwen2", vocab_size=4096)
    with pytest.raises(InputError, match="300 tokens, but the embedding has 4096 rows"):
        read_folder(path)


def test_a_tokenizer_that_brings_code_is_refused(tiny: Path):
    rewrite(tiny / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tok.X", None]})
    with pytest.raises(InputError, match="code of its own"):
        read_folder(tiny)


def test_a_published_tokenizer_is_used_as_it_is(tiny: Path, tmp_path: Path):
    (tiny / "generation_config.json").write_text('{"eos_token_id": [299, 256]}', encoding="utf-8")
    write_tokenizer(read_folder(tiny).metadata, tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["stop_ids"] == [256, 299]
    assert (config["eos_token"], config["bos_token_id"], config["add_bos_token"]) == ("<|endoftext|>", None, False)
    assert config["chat_template"] == "{{ messages[0].content }}"
    assert config["vocabulary"] == 300
    tokenizer = load_tokenizer(tmp_path)
    ids = tokenizer.encode("ab ab ab ab ab ab")
    assert len(ids) == 11  # the file's own truncation to 4 tokens is off
    assert tokenizer.decode(ids) == "ab ab ab ab ab ab"


def test_a_stop_token_out_of_the_vocabulary_is_refused(tiny: Path):
    (tiny / "generation_config.json").write_text('{"eos_token_id": 300}', encoding="utf-8")
    with pytest.raises(InputError, match="eos_token_id 300"):
        read_folder(tiny)


@pytest.mark.parametrize(
    ("beside", "file", "expected"),
    [
        ({"chat_template": [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]}, None, "d"),
        ({"chat_template": "inline"}, "own file", "own file"),
        ({"chat_template": 3}, None, None),
    ],
)
def test_chat_templates_are_found_where_they_are_kept(tiny: Path, beside: Any, file: str | None, expected: str | None):
    rewrite(tiny / "tokenizer_config.json", **beside)
    if file:
        (tiny / "chat_template.jinja").write_text(file, encoding="utf-8")
    assert read_folder(tiny).metadata["perjoule.tokenizer_files"].config["chat_template"] == expected


def test_gemmas_image_token_without_a_row_is_left_out(tmp_path: Path):
    path = tiny_folder.write_folder(tmp_path / "tiny", "gemma3_text")
    table = tiny_folder.tokenizer_json()
    extra = table["added_tokens"][0] | {"id": 300, "content": "<image_soft_token>"}
    (path / "tokenizer.json").write_text(json.dumps(table | {"added_tokens": [*table["added_tokens"], extra]}))
    assert read_folder(path).metadata["perjoule.tokenizer_files"].config["vocabulary"] == 300


def test_a_folder_is_a_reference_and_its_digest_covers_every_file(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    found = resolve.resolve(str(tiny), silent)
    assert (found.format, found.weights, found.source_quantization) == ("safetensors", "trained", "BF16")
    names = [path.name for path in checkpoint_files(tiny)]
    assert len(names) == 3 + 4  # shards; config, index, tokenizer and what stands beside it
    rewrite(tiny / "config.json", rope_theta=5000.0)
    assert resolve.resolve(str(tiny), silent).sha256 != found.sha256
    monkeypatch.chdir(tiny.parent)
    assert resolve.resolve("./tiny", silent).name == "tiny"


def test_the_digest_is_that_of_the_list_of_hashes():
    assert digest_of({"b": "2" * 64, "a": "1" * 64}) == digest_of({"a": "1" * 64, "b": "2" * 64})
    assert digest_of({"a": "1" * 64}) != digest_of({"b": "1" * 64})
