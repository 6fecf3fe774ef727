"""Writes tiny random GGUF checkpoints with the ``gguf`` package: whole files, tokenizer and all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gguf
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

VOCABULARY, HIDDEN, HEADS, KV_HEADS, FEED_FORWARD, LAYERS, CONTEXT = 128, 64, 4, 2, 96, 2, 64


def write_tiny(
    path: Path,
    architecture: str,
    *,
    tied: bool = True,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    seed: int = 0,
) -> Path:
    """Write a checkpoint of 2 layers; matrices stored as ``kind``, the rest as float32."""
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    _add_tokenizer(writer)

    def matrix(name: str, rows: int, columns: int) -> None:
        values = (random.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)

    def vector(name: str, size: int, middle: float) -> None:
        writer.add_tensor(name, (middle + 0.1 * random.standard_normal(size)).astype(np.float32))

    matrix("token_embd.weight", VOCABULARY, HIDDEN)
    if not tied:
        matrix("output.weight", VOCABULARY, HIDDEN)
    vector("output_norm.weight", HIDDEN, 1.0)
    kv = HIDDEN * KV_HEADS // HEADS
    for layer in range(LAYERS):
        stem = f"blk.{layer}."
        vector(stem + "attn_norm.weight", HIDDEN, 1.0)
        vector(stem + "ffn_norm.weight", HIDDEN, 1.0)
        for name, rows in (("q", HIDDEN), ("k", kv), ("v", kv)):
            matrix(f"{stem}attn_{name}.weight", rows, HIDDEN)
            if architecture == "qwen2":
                vector(f"{stem}attn_{name}.bias", rows, 0.0)
        matrix(stem + "attn_output.weight", HIDDEN, HIDDEN)
        matrix(stem + "ffn_gate.weight", FEED_FORWARD, HIDDEN)
        matrix(stem + "ffn_up.weight", FEED_FORWARD, HIDDEN)
        matrix(stem + "ffn_down.weight", HIDDEN, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, "ab", "<|im_end|>"]
    tokens += [f"<unused{i}>" for i in range(VOCABULARY - len(tokens))]
    kinds = [gguf.TokenType.NORMAL] * len(tokens)
    end = tokens.index("<|im_end|>")
    kinds[end] = gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(end)
