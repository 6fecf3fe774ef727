"""Writes tiny random GGUF checkpoints with the ``gguf`` package: whole files, tokenizer and all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gguf
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

VOCABULARY, HIDDEN, HEADS, KV_HEADS, FEED_FORWARD, LAYERS, CONTEXT = 128, 64, 4, 2, 96, 2, 64
HEAD_DIM = 32  # where it is stated; elsewhere HIDDEN / HEADS
WINDOW, GEMMA_LAYERS = 8, 6  # five that see the window, one that sees all
EXPLICIT_HEADS = ("qwen3", "gemma3")


def write_tiny(
    path: Path,
    architecture: str,
    *,
    tied: bool = True,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    seed: int = 0,
    rope_factors: bool = False,
    keys: dict[str, Any] | None = None,
) -> Path:
    """Write a checkpoint of 2 layers (gemma3: 6); matrices stored as ``kind``, the rest as float32.

    ``keys`` are further metadata of the architecture; ``rope_factors`` adds a divisor for each rotary frequency.
    """
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture)
    explicit, gemma = architecture in EXPLICIT_HEADS, architecture == "gemma3"
    head_dim = HEAD_DIM if explicit else HIDDEN // HEADS
    writer.add_block_count(GEMMA_LAYERS if gemma else LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    if explicit:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if gemma:
        writer.add_sliding_window(WINDOW)
    adders = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32, list: writer.add_array}
    for key, value in (keys or {}).items():
        adders[type(value)](f"{architecture}.{key}", value)
    _add_tokenizer(writer)
    writer.add_file_type(getattr(gguf.LlamaFileType, f"MOSTLY_{kind.name}", gguf.LlamaFileType.ALL_F32))
    if rope_factors:
        writer.add_tensor("rope_freqs.weight", np.geomspace(1, 8, head_dim // 2).astype(np.float32))
    for name, shape in shapes(architecture, tied=tied).items():
        if len(shape) == 2:
            values = (random.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32)
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            middle = 1.0 if name.endswith(".weight") else 0.0  # norms, or biases
            writer.add_tensor(name, (middle + 0.1 * random.standard_normal(shape)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def shapes(architecture: str, *, tied: bool) -> dict[str, tuple[int, ...]]:
    """Return every tensor by its name, rows first."""
    explicit, gemma = architecture in EXPLICIT_HEADS, architecture == "gemma3"
    head_dim = HEAD_DIM if explicit else HIDDEN // HEADS
    q, kv = HEADS * head_dim, KV_HEADS * head_dim
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCABULARY, HIDDEN)}
    if not tied:
        found["output.weight"] = (VOCABULARY, HIDDEN)
    found["output_norm.weight"] = (HIDDEN,)
    norms = ["attn_norm", "ffn_norm", *(["post_attention_norm", "post_ffw_norm"] if gemma else [])]
    for layer in range(GEMMA_LAYERS if gemma else LAYERS):
        stem = f"blk.{layer}."
        found |= {f"{stem}{norm}.weight": (HIDDEN,) for norm in norms}
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            found[f"{stem}attn_{name}.weight"] = (rows, HIDDEN)
            if architecture == "qwen2":
                found[f"{stem}attn_{name}.bias"] = (rows,)
            if explicit and name != "v":
                found[f"{stem}attn_{name}_norm.weight"] = (head_dim,)
        found[stem + "attn_output.weight"] = (HIDDEN, q)
        found[stem + "ffn_gate.weight"] = (FEED_FORWARD, HIDDEN)
        found[stem + "ffn_up.weight"] = (FEED_FORWARD, HIDDEN)
        found[stem + "ffn_down.weight"] = (HIDDEN, FEED_FORWARD)
    return found


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
