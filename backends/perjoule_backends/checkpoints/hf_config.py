"""A model's ``config.json`` as published on the hub, read into the terms of GGUF: metadata keys, tensor names, shapes.

Keys are those of the configuration classes of transformers (LlamaConfig, Qwen2Config, Qwen3Config, Gemma3TextConfig).
What a configuration asks for and is not built here is refused: it would run and be wrong.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from perjoule.errors import InputError
from perjoule.records import Record
from perjoule_backends.checkpoints.metadata_keys import ROTARY_INTERLEAVED

if TYPE_CHECKING:
    from collections.abc import Mapping

# model_type in config.json: architecture in GGUF
ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3"}
ROPE_FACTORS = "rope_freqs.weight"
MAX_LAYERS, MAX_EXTENT, MAX_CONTEXT = 1024, 1 << 24, 1 << 24
_OTHER = "use another checkpoint, such as a GGUF file of the model"
_DAMAGED = "config.json is damaged or not of this model: download it again"
_GEMMA3_PERIOD = 6  # where config.json does not say: Gemma3TextConfig's default

_GLOBAL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_q.bias": "self_attn.q_proj.bias",
    "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.bias": "self_attn.v_proj.bias",
    "attn_output.weight": "self_attn.o_proj.weight",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
_NORMS = {"ffn_norm.weight": "post_attention_layernorm.weight"}
_GEMMA3_NORMS = {
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_norm.weight": "pre_feedforward_layernorm.weight",
    "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
}


class Decoder(Record, frozen=True, kw_only=True):
    """Shapes and constants of a decoder, as config.json has them.

    ``rope_factors`` divide the rotary frequencies one by one (Llama 3), ``rope_linear`` divides the positions.
    ``window_layers`` says of each layer whether it sees only ``window`` positions (Gemma 3).
    """

    architecture: str
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    rope_base: float
    norm_epsilon: float
    tied_head: bool
    rope_linear: float = 1.0
    rope_factors: tuple[float, ...] = ()
    window: int = 0
    window_layers: tuple[bool, ...] = ()
    local_rope_base: float = 0.0

    @property
    def is_gemma(self) -> bool:
        return self.architecture == "gemma3"


def read_config(config: Mapping[str, Any], where: str) -> Decoder:
    """Read config.json; ``where`` names it in errors. Raises ``InputError`` for what is damaged or not built here."""
    keys = _Keys(config, where)
    architecture = _architecture(keys)
    hidden, heads = keys.whole("hidden_size", MAX_EXTENT), keys.whole("num_attention_heads", MAX_EXTENT)
    kv_heads = keys.whole("num_key_value_heads", heads, heads)
    if heads % kv_heads:
        raise keys.error(f"{heads} heads do not share {kv_heads} key-value heads evenly", _DAMAGED)
    head_dim = keys.whole("head_dim", MAX_EXTENT, hidden // heads)
    layers = keys.whole("num_hidden_layers", MAX_LAYERS)
    gemma = architecture == "gemma3"
    rope, local = _rope(keys, gemma=gemma)
    _refuse_variants(keys, architecture, head_dim)
    return Decoder(
        architecture=architecture,
        layers=layers,
        hidden=hidden,
        feed_forward=keys.whole("intermediate_size", MAX_EXTENT),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=keys.whole("vocab_size", MAX_EXTENT),
        context=keys.whole("max_position_embeddings", MAX_CONTEXT),
        rope_base=rope.real("rope_theta", 1e6 if gemma else 10000.0),
        norm_epsilon=keys.real("rms_norm_eps", 1e-6),
        tied_head=keys.flag("tie_word_embeddings", default=gemma),
        rope_linear=rope.real("factor") if rope.kind == "linear" else 1.0,
        rope_factors=_llama3_factors(rope, head_dim) if rope.kind == "llama3" else (),
        window=keys.whole("sliding_window", MAX_CONTEXT, 4096) if gemma else 0,
        window_layers=_window_layers(keys, layers) if gemma else (),
        local_rope_base=local,
    )


def gguf_metadata(decoder: Decoder, name: str) -> dict[str, Any]:
    """Return the metadata that a GGUF file of this model would carry, its tokenizer apart."""
    keys: dict[str, Any] = {
        "block_count": decoder.layers,
        "context_length": decoder.context,
        "embedding_length": decoder.hidden,
        "feed_forward_length": decoder.feed_forward,
        "attention.head_count": decoder.heads,
        "attention.head_count_kv": decoder.kv_heads,
        "attention.key_length": decoder.head_dim,
        "attention.value_length": decoder.head_dim,
        "attention.layer_norm_rms_epsilon": decoder.norm_epsilon,
        "rope.freq_base": decoder.rope_base,
        "rope.dimension_count": decoder.head_dim,
        "vocab_size": decoder.vocabulary,
    }
    if decoder.rope_linear != 1.0:
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": decoder.rope_linear}
    if decoder.is_gemma:
        keys |= {
            "attention.sliding_window": decoder.window,
            "attention.sliding_window_pattern": list(decoder.window_layers),
            "rope.freq_base_swa": decoder.local_rope_base,
        }
    stem = decoder.architecture
    return {
        "general.architecture": stem,
        "general.name": name,
        # Published weights keep the two halves of a head apart, also those of Llama, which GGUF files permute.
        ROTARY_INTERLEAVED: False,
    } | {f"{stem}.{key}": value for key, value in keys.items()}


def tensor_shapes(decoder: Decoder) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor by its GGUF name, rows first."""
    hidden, kv, q = decoder.hidden, decoder.kv_heads * decoder.head_dim, decoder.heads * decoder.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (decoder.vocabulary, hidden),
        "output_norm.weight": (hidden,),
    }
    if not decoder.tied_head:
        shapes["output.weight"] = (decoder.vocabulary, hidden)
    if decoder.rope_factors:
        shapes[ROPE_FACTORS] = (decoder.head_dim // 2,)
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (hidden,),
        "ffn_norm.weight": (hidden,),
        "attn_q.weight": (q, hidden),
        "attn_k.weight": (kv, hidden),
        "attn_v.weight": (kv, hidden),
        "attn_output.weight": (hidden, q),
        "ffn_gate.weight": (decoder.feed_forward, hidden),
        "ffn_up.weight": (decoder.feed_forward, hidden),
        "ffn_down.weight": (hidden, decoder.feed_forward),
    }
    if decoder.architecture == "qwen2":
        layer |= {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
    if decoder.architecture in ("qwen3", "gemma3"):
        layer |= {"attn_q_norm.weight": (decoder.head_dim,), "attn_k_norm.weight": (decoder.head_dim,)}
    if decoder.is_gemma:
        layer |= {"post_attention_norm.weight": (hidden,), "post_ffw_norm.weight": (hidden,)}
    return shapes | {f"blk.{i}.{name}": shape for i in range(decoder.layers) for name, shape in layer.items()}


def published_name(decoder: Decoder, tensor: str) -> str:
    """Return the name that transformers gives the tensor which a GGUF file calls ``tensor``."""
    if tensor in _GLOBAL:
        return _GLOBAL[tensor]
    _, layer, part = tensor.split(".", 2)
    names = _LAYER | (_GEMMA3_NORMS if decoder.is_gemma else _NORMS)
    return f"model.layers.{layer}.{names[part]}"


class _Keys:
    """Keys of config.json, checked as they are read."""

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        self._config, self._where = config, where

    def get(self, key: str, default: Any = None) -> Any:
        value = self._config.get(key)
        return default if value is None else value

    def whole(self, key: str, most: int, default: int | None = None) -> int:
        value = self.get(key, default)
        if type(value) is not int or not 0 < value <= most:
            raise self.error(f"{key} is {_shown(value)}, expected 1 to {most}", _DAMAGED)
        return value

    def real(self, key: str, default: float | None = None) -> float:
        value = self.get(key, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise self.error(f"{key} is {_shown(value)}, expected a number above 0", _DAMAGED)
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.error(f"{key} is {_shown(value)}, expected true or false", _DAMAGED)
        return value

    def table(self, key: str) -> Mapping[str, Any]:
        value = self.get(key, {})
        if not isinstance(value, dict):
            raise self.error(f"{key} is {_shown(value)}, expected a table", _DAMAGED)
        return value

    def error(self, what: str, hint: str = _OTHER) -> InputError:
        return InputError(f"{self._where}: {what}", hint=hint)


class _Rope(_Keys):
    """The rotary keys: ``kind`` is default, linear or llama3."""

    kind: str = "default"


def _architecture(keys: _Keys) -> str:
    if keys.get("auto_map") is not None or keys.get("trust_remote_code"):
        raise keys.error("the model brings code of its own, which is never run")
    quantized = keys.get("quantization_config")
    if quantized is not None:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
        raise keys.error(
            f"the weights are quantized by {_shown(method)}; bfloat16, float16 and float32 are read",
            "use the model's unquantized checkpoint, or a GGUF file",
        )
    kind = keys.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise keys.error(f"model type {_shown(kind)} is not read from safetensors (these are: {known})")
    return ARCHITECTURES[kind]


def _refuse_variants(keys: _Keys, architecture: str, head_dim: int) -> None:
    gemma = architecture == "gemma3"
    activation = keys.get("hidden_activation" if gemma else "hidden_act", "gelu_pytorch_tanh" if gemma else "silu")
    if activation != ("gelu_pytorch_tanh" if gemma else "silu"):
        raise keys.error(f"activation {_shown(activation)} in the architecture {architecture} is not built here")
    for key in ("mlp_bias", "attention_bias", "use_sliding_window", "use_bidirectional_attention", "use_mrope"):
        if keys.get(key):
            raise keys.error(f"{key} is not built here")
    for key in ("attn_logit_softcapping", "final_logit_softcapping", "logit_scale", "embedding_multiplier"):
        if keys.get(key) is not None:
            raise keys.error(f"{key} {_shown(keys.get(key))} is not built here")
    if keys.get("partial_rotary_factor", 1.0) != 1.0:
        raise keys.error("a rotary embedding of a part of each head is not built here")
    if not gemma and set(keys.get("layer_types", ())) - {"full_attention"}:
        raise keys.error(f"layers that do not see everything are not built for {architecture}")
    scaled_by = keys.get("query_pre_attn_scalar", head_dim if gemma else None)
    if gemma and scaled_by != head_dim:
        raise keys.error(f"attention scaled by {_shown(scaled_by)} in place of the width of a head is not built here")


def _rope(keys: _Keys, *, gemma: bool) -> tuple[_Rope, float]:
    """Return the rotary keys, and the base of Gemma's local layers (0 for others).

    Newer configurations keep them in ``rope_parameters`` (Gemma's by kind of layer), older ones beside the rest.
    """
    where = keys._where  # noqa: SLF001 - the same class
    parameters = keys.table("rope_parameters")
    local = keys.real("rope_local_base_freq", 10000.0) if gemma else 0.0
    if gemma and "full_attention" in parameters:
        sliding = _Rope(_Keys(parameters, where).table("sliding_attention"), where)
        local = sliding.real("rope_theta", 10000.0)
        if sliding.get("rope_type", "default") != "default":
            raise keys.error("scaled rotary embedding of local layers is not built here")
        parameters = _Keys(parameters, where).table("full_attention")
    scaling = keys.table("rope_scaling")
    beside = {"rope_theta": keys.get("rope_theta")} if keys.get("rope_theta") is not None else {}
    rope = _Rope({**beside, **scaling, **parameters}, where)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "linear", "llama3"):
        raise keys.error(f"rotary scaling {_shown(kind)} is not built here", "use a checkpoint without it")
    rope.kind = kind
    return rope, local


def _llama3_factors(rope: _Rope, head_dim: int) -> tuple[float, ...]:
    """Return what divides each rotary frequency in Llama 3.1 and later.

    Frequencies whose wavelength is below ``original / high_freq_factor`` stay, those above ``original /
    low_freq_factor`` are divided by ``factor``, between the two the reciprocals are blended linearly. Formula: Meta's
    reference code, ``apply_scaling`` in the llama-models repository; GGUF files keep its result as a tensor.
    """
    factor, low, high = (rope.real(key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    original = rope.whole("original_max_position_embeddings", MAX_CONTEXT)
    if high <= low:
        raise rope.error(f"high_freq_factor {high} is not above low_freq_factor {low}", _DAMAGED)
    base = rope.real("rope_theta", 10000.0)
    factors = []
    for pair in range(head_dim // 2):
        wavelength = 2 * math.pi * base ** (2 * pair / head_dim)
        smooth = min(1.0, max(0.0, (original / wavelength - low) / (high - low)))
        factors.append(1 / ((1 - smooth) / factor + smooth))
    return tuple(factors)


def _window_layers(keys: _Keys, layers: int) -> tuple[bool, ...]:
    """Return which layers see only the window: by name, or all but the last of each period."""
    kinds = keys.get("layer_types")
    if kinds is None:
        period = keys.whole("sliding_window_pattern", MAX_CONTEXT, _GEMMA3_PERIOD)
        return tuple(bool((layer + 1) % period) for layer in range(layers))
    known = ("sliding_attention", "full_attention")
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in known for kind in kinds):
        raise keys.error(f"layer_types is {_shown(kinds)}, expected {layers} of {', '.join(known)}", _DAMAGED)
    return tuple(kind == "sliding_attention" for kind in kinds)


def _shown(value: object) -> str:
    return repr(value if not isinstance(value, list) else value[:3])[:60]
