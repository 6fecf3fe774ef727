"""Writes tiny random checkpoint folders as the hub publishes them, with nothing but numpy: the format is simple."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from perjoule_backends.checkpoints.hf_config import ROPE_FACTORS, published_name, read_config, tensor_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

VOCABULARY = 300
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
        "rope_theta": 10000.0, "tie_word_embeddings": False,
    },
    "qwen2": {"rope_theta": 10000.0, "tie_word_embeddings": True},
    "qwen3": {"head_dim": 32, "rope_theta": 10000.0, "tie_word_embeddings": True},
    "gemma3_text": {
        "head_dim": 16, "rope_theta": 10000.0, "rope_local_base_freq": 1000.0, "sliding_window": 16,
        "sliding_window_pattern": 2, "query_pre_attn_scalar": 16, "hidden_activation": "gelu_pytorch_tanh",
    },
}  # fmt: skip


def config_of(kind: str, **changes: Any) -> dict[str, Any]:
    """Return config.json of a model of 2 layers; a change to None takes the key away."""
    config = {
        "model_type": kind, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "eos_token_id": VOCABULARY - 1,
    } | CONFIGS[kind] | changes  # fmt: skip
    return {key: value for key, value in config.items() if value is not None}


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Return the upper halves of float32 numbers, cut off: what is lost does not matter here."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, np.ndarray]]) -> None:
    """Write arrays given as (type name, stored numbers)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (kind, values) in tensors.items():
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    text = json.dumps(header).encode()
    content = struct.pack("<Q", len(text)) + text + b"".join(values.tobytes() for _, values in tensors.values())
    path.write_bytes(content)


def random_tensors(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Return the float32 tensors of a model by their published names, cut to what bfloat16 can hold."""
    random = np.random.default_rng(seed)
    decoder = read_config(config, "tiny")
    found = {}
    for name, shape in tensor_shapes(decoder).items():
        if name != ROPE_FACTORS:
            values = random.standard_normal(shape).astype(np.float32) / np.float32(shape[-1] ** 0.5)
            halves = bfloat16(values).astype(np.uint32) << 16
            found[published_name(decoder, name)] = halves.view(np.float32)
    return found


def tokenizer_json(size: int = VOCABULARY) -> dict[str, Any]:
    """Return a byte-level tokenizer with one merge and an end of text."""
    printed = [*range(33, 127), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = [chr(c) for c in printed] + [chr(256 + i) for i in range(256 - len(printed))]
    tokens = [*letters, "ab", *(f"<unused{i}>" for i in range(size - 258)), "<|endoftext|>"]
    return {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [{"id": size - 1, "content": "<|endoftext|>", "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False, "special": True}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {token: i for i, token in enumerate(tokens)}, "merges": ["a b"]},
    }  # fmt: skip


def write_folder(path: Path, kind: str, *, shards: int = 1, dtype: str = "BF16", **changes: Any) -> Path:
    """Write a whole folder: configuration, weights in one or more files, tokenizer."""
    path.mkdir(parents=True, exist_ok=True)
    config = config_of(kind, **changes)
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    stored = {name: (dtype, as_stored(values, dtype)) for name, values in random_tensors(config).items()}
    names = list(stored)
    if shards == 1:
        write_safetensors(path / "model.safetensors", stored)
    else:
        files = {i: f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)}
        for i, file in files.items():
            write_safetensors(path / file, {name: stored[name] for name in names[i::shards]})
        table = {"metadata": {}, "weight_map": {name: files[n % shards] for n, name in enumerate(names)}}
        (path / "model.safetensors.index.json").write_text(json.dumps(table), encoding="utf-8")
    (path / "tokenizer.json").write_text(json.dumps(tokenizer_json()), encoding="utf-8")
    beside = {"eos_token": "<|endoftext|>", "bos_token": None, "chat_template": "{{ messages[0].content }}"}
    (path / "tokenizer_config.json").write_text(json.dumps(beside), encoding="utf-8")
    return path


def as_stored(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "BF16":
        return bfloat16(values)
    return values.astype({"F16": np.float16, "F32": np.float32}[dtype])
