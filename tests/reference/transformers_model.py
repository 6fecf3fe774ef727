"""The same dequantized weights in Hugging Face transformers, as an oracle. Needs torch and transformers."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule_backends.checkpoints.gguf import GgufFile

_CLASSES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM),
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
}
_GEMMA_LAYER = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_GLOBAL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def load(gguf: GgufFile) -> Any:
    """Build the model in float32 from the file's dequantized tensors."""
    name = gguf.metadata["general.architecture"]
    meta = {key.removeprefix(f"{name}."): value for key, value in gguf.metadata.items()}
    config_class, model_class = _CLASSES[name]
    config = config_class(
        vocab_size=gguf.tensors["token_embd.weight"].shape[0],
        hidden_size=meta["embedding_length"],
        intermediate_size=meta["feed_forward_length"],
        num_hidden_layers=meta["block_count"],
        num_attention_heads=meta["attention.head_count"],
        num_key_value_heads=meta["attention.head_count_kv"],
        max_position_embeddings=meta["context_length"],
        rope_theta=meta["rope.freq_base"],
        rms_norm_eps=meta["attention.layer_norm_rms_epsilon"],
        tie_word_embeddings="output.weight" not in gguf.tensors,
        **_stated_only(meta),
    )
    with torch.device("meta"):
        model = model_class(config)
    state = {
        _name(tensor, name): _value(gguf, tensor, name, meta)
        for tensor in gguf.tensors
        if tensor != "rope_freqs.weight"
    }
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True, assign=True)
    _build_what_is_no_parameter(model, config, name)
    if "rope_freqs.weight" in gguf.tensors:
        model.model.rotary_emb.inv_freq /= torch.tensor(gguf.dequantize("rope_freqs.weight")[0].tolist())
    return model.eval()


def logits(model: Any, ids: Sequence[int]) -> np.ndarray:
    """Return logits of every position, shape (len(ids), vocabulary)."""
    with torch.no_grad():
        found: np.ndarray = model(torch.tensor([list(ids)])).logits[0].numpy()
    return found


def _stated_only(meta: dict[str, Any]) -> dict[str, Any]:
    names = {"attention.key_length": "head_dim", "attention.sliding_window": "sliding_window"}
    stated = {argument: meta[key] for key, argument in names.items() if key in meta}
    if "rope.scaling.factor" in meta:
        stated["rope_scaling"] = {"rope_type": "linear", "factor": meta["rope.scaling.factor"]}
    if "attention.sliding_window" in meta:  # gemma3: heads of the small models are scaled by their width
        stated["query_pre_attn_scalar"] = meta["attention.key_length"]
    return stated


def _build_what_is_no_parameter(model: Any, config: Any, name: str) -> None:
    """Built on the meta device, rotary tables and scales (not in the state) have no values yet."""
    inner = model.model
    inner.rotary_emb = type(inner.rotary_emb)(config)
    if name == "gemma3":
        local = copy.deepcopy(config)
        local.rope_theta, local.rope_scaling = config.rope_local_base_freq, {"rope_type": "default"}
        inner.rotary_emb_local = type(inner.rotary_emb_local)(local)
        inner.embed_tokens.embed_scale = torch.tensor(config.hidden_size**0.5)


def greedy(model: Any, ids: Sequence[int], new_tokens: int) -> tuple[list[int], list[float]]:
    """Return the greedy continuation, and by how much the best logit led the second at each step."""
    out: list[int] = []
    leads: list[float] = []
    past, feed = None, torch.tensor([list(ids)])
    with torch.no_grad():
        for _ in range(new_tokens):
            step = model(feed, past_key_values=past, use_cache=True, logits_to_keep=1)
            past = step.past_key_values
            best = torch.topk(step.logits[0, -1], 2)
            out.append(int(best.indices[0]))
            leads.append(float(best.values[0] - best.values[1]))
            feed = torch.tensor([[out[-1]]])
    return out, leads


def _name(tensor: str, architecture: str) -> str:
    stem, _, suffix = tensor.rpartition(".")
    if stem in _GLOBAL:
        return f"{_GLOBAL[stem]}.{suffix}"
    _, layer, part = stem.split(".")
    names = _LAYER | _GEMMA_LAYER if architecture == "gemma3" else _LAYER
    return f"model.layers.{layer}.{names[part]}.{suffix}"


def _value(gguf: GgufFile, tensor: str, architecture: str, meta: dict[str, Any]) -> torch.Tensor:
    values = gguf.dequantize(tensor)
    if values.shape[0] == 1 and len(gguf.tensors[tensor].shape) == 1:
        values = values[0]
    if architecture == "gemma3" and tensor.endswith("norm.weight"):
        values = values - 1  # transformers adds it back
    if architecture == "llama" and ("attn_q." in tensor or "attn_k." in tensor):
        heads = meta["attention.head_count" if "attn_q." in tensor else "attention.head_count_kv"]
        size = values.shape[0] // heads
        # GGUF keeps rotary pairs side by side, transformers half a head apart
        values = values.reshape(heads, size // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)
    return torch.from_numpy(np.array(values))
