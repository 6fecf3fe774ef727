"""The same dequantized weights in Hugging Face transformers, as an oracle. Needs torch and transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule_backends.checkpoints.gguf import GgufFile

_CLASSES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
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
    )
    with torch.device("meta"):
        model = model_class(config)
    state = {_name(tensor): _value(gguf, tensor, name, meta) for tensor in gguf.tensors}
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True, assign=True)
    # Built on the meta device, the rotary table (no parameter, so not in the state) has no values yet.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval()


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


def _name(tensor: str) -> str:
    stem, _, suffix = tensor.rpartition(".")
    if stem in _GLOBAL:
        return f"{_GLOBAL[stem]}.{suffix}"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{_LAYER[part]}.{suffix}"


def _value(gguf: GgufFile, tensor: str, architecture: str, meta: dict[str, Any]) -> torch.Tensor:
    values = gguf.dequantize(tensor)
    if values.shape[0] == 1 and len(gguf.tensors[tensor].shape) == 1:
        values = values[0]
    if architecture == "llama" and ("attn_q." in tensor or "attn_k." in tensor):
        heads = meta["attention.head_count" if "attn_q." in tensor else "attention.head_count_kv"]
        size = values.shape[0] // heads
        # GGUF keeps rotary pairs side by side, transformers half a head apart
        values = values.reshape(heads, size // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)
    return torch.from_numpy(np.array(values))
