"""What a decoder looks like, read from the metadata of a checkpoint.

Keys: the GGUF specification in the ggml repository. What a file of an architecture means without saying so (which
layers of gemma3 look through a window, how its attention is scaled) is as in llama.cpp's loader of hyperparameters.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from perjoule.errors import InputError
from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perjoule_backends.checkpoints.source import Weights

SUPPORTED = ("llama", "qwen2", "qwen3", "gemma3")
# GGUF files of the llama architecture store the rows of Q and K permuted for rotary pairs that lie side by
# side; the others keep the two halves of a head apart. A checkpoint that comes from elsewhere says how it is.
_INTERLEAVED_ROTARY = frozenset({"llama"})
_ROTARY_KEY = "perjoule.rotary_interleaved"
_QK_NORM = frozenset({"qwen3", "gemma3"})
ROPE_FACTORS = "rope_freqs.weight"
MAX_CONTEXT = 1 << 20  # the rotary tables grow with it; the longest published dense checkpoints state about this much
_TENSORS_PER_LAYER = 9  # at least
_MAX_EXTENT = 1 << 24  # rows or columns of a matrix
_DAMAGED = "the file is damaged: download it again"
_OTHER_CHECKPOINT = "use a checkpoint without it"
_GEMMA3_PERIOD = 6  # every sixth layer sees everything
_GEMMA3_LOCAL_BASE = 10000.0
_GEMMA3_27B_LAYERS = 62  # the one size whose attention is scaled by hidden / heads in place of the width of a head
# Constants that llama.cpp multiplies or caps by in other architectures, and the values at which they do nothing.
_CONSTANTS: dict[str, tuple[float, ...]] = {
    "logit_scale": (0, 1),
    "embedding_scale": (0, 1),
    "residual_scale": (0, 1),
    "attention.scale": (0,),
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
}


class Architecture(Record, frozen=True, kw_only=True):
    """Shapes and constants of a decoder-only transformer with grouped-query attention and a gated MLP.

    ``rope_scale`` divides the positions (linear scaling), ``rope_factors`` says that the file has a tensor that
    divides the frequencies one by one (Llama 3). The layers in ``window_layers`` see ``window`` positions, their own
    included, and are rotated by ``local_rope_base``, unscaled.
    """

    name: str
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    rope_base: float
    rope_scale: float
    rope_factors: bool
    rotary_interleaved: bool
    norm_epsilon: float
    attention_bias: bool
    attention_scale: float
    qk_norm: bool
    post_norm: bool
    embedding_scale: float
    activation: Literal["silu", "gelu_tanh"]
    tied_head: bool
    window: int
    window_layers: tuple[int, ...]
    local_rope_base: float

    @property
    def qkv_rows(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    def kv_bytes_read(self, value_bytes: int, context_tokens: int) -> int | str:
        """Return bytes of keys and values that are read for each position before a token, all layers; or why not."""
        if self.window_layers and self.window < context_tokens:
            return f"some layers look back no more than {self.window} tokens, so that it is not one number"
        return 2 * self.layers * self.kv_heads * self.head_dim * value_bytes

    def body_parameters(self, parameters: int) -> int:
        """Return how many of all ``parameters`` every prompt token is multiplied with: neither embedding nor head."""
        return parameters - self.vocabulary * self.hidden * (1 if self.tied_head else 2)

    @property
    def rotary_tables(self) -> tuple[str, ...]:
        """Return the names of the pairs of tables: one, and another where some layers see a window."""
        return ("rotary", "rotary_local") if self.window_layers else ("rotary",)


def read_architecture(gguf: Weights) -> Architecture:
    """Read the shapes. Raises ``InputError`` for an architecture that is not built here, or missing keys."""
    name = gguf.metadata.get("general.architecture")
    if name not in SUPPORTED:
        raise InputError(
            f"{gguf.path.name}: architecture {_shown(name)} is not supported by the onnxruntime backend",
            hint=f"these are: {', '.join(SUPPORTED)}",
        )
    keys = _Keys(gguf, str(name))
    _refuse_variants(keys)
    vocabulary, columns = _matrix_shape(gguf, "token_embd.weight")
    hidden = keys.whole("embedding_length", columns)
    heads = keys.whole("attention.head_count", hidden)
    layers = keys.whole("block_count", len(gguf.tensors) // _TENSORS_PER_LAYER)
    head_dim = keys.whole("attention.key_length", _MAX_EXTENT, hidden // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if keys.whole(key, _MAX_EXTENT, head_dim) != head_dim:
            raise keys.refusal(f"{key} {keys.get(key)} beside heads of {head_dim}")
    gemma = name == "gemma3"
    scaled_by = hidden // heads if gemma and layers == _GEMMA3_27B_LAYERS else head_dim
    return Architecture(
        name=str(name),
        layers=layers,
        hidden=hidden,
        feed_forward=keys.whole("feed_forward_length", _MAX_EXTENT),
        heads=heads,
        kv_heads=keys.whole("attention.head_count_kv", heads, heads),
        head_dim=head_dim,
        vocabulary=vocabulary,
        context=keys.whole("context_length", MAX_CONTEXT),
        rope_base=keys.real("rope.freq_base", 10000.0),
        rope_scale=_rope_scale(keys),
        rope_factors=ROPE_FACTORS in gguf.tensors,
        rotary_interleaved=_rotary_interleaved(keys),
        norm_epsilon=keys.real("attention.layer_norm_rms_epsilon"),
        attention_bias="blk.0.attn_q.bias" in gguf.tensors,
        attention_scale=scaled_by**-0.5,
        qk_norm=name in _QK_NORM,
        post_norm=gemma,
        embedding_scale=hidden**0.5 if gemma else 1.0,
        activation="gelu_tanh" if gemma else "silu",
        tied_head="output.weight" not in gguf.tensors,
        window=keys.whole("attention.sliding_window", MAX_CONTEXT) if gemma else 0,
        window_layers=_window_layers(keys, layers) if gemma else (),
        local_rope_base=keys.real("rope.freq_base_swa", _GEMMA3_LOCAL_BASE) if gemma else 0.0,
    )


def parameter_count(gguf: Weights) -> int:
    return sum(math.prod(tensor.shape) for tensor in gguf.tensors.values())


class _Keys:
    """Metadata keys of one architecture, checked as they are read."""

    def __init__(self, gguf: Weights, name: str) -> None:
        self.gguf, self.name = gguf, name
        self._meta: Mapping[str, Any] = gguf.metadata

    def get(self, key: str, default: Any = None) -> Any:
        return self._meta.get(f"{self.name}.{key}", default)

    def real(self, key: str, default: float | None = None) -> float:
        value = self.get(key, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise self._damaged(key, _shown(value))
        return float(value)

    def whole(self, key: str, most: int, default: int | None = None) -> int:
        value = self.get(key, default)
        if type(value) is not int or not 0 < value <= most:
            raise self._damaged(key, f"{_shown(value)}, expected 1 to {most}")
        return value

    def _damaged(self, key: str, shown: str) -> InputError:
        return InputError(f"{self.gguf.path.name}: metadata {self.name}.{key} is {shown}", hint=_DAMAGED)

    def refusal(self, what: str, hint: str = _OTHER_CHECKPOINT) -> InputError:
        return InputError(f"{self.gguf.path.name}: {what} is not supported by the onnxruntime backend", hint=hint)


def _rotary_interleaved(keys: _Keys) -> bool:
    said = keys.gguf.metadata.get(_ROTARY_KEY, keys.name in _INTERLEAVED_ROTARY)
    if not isinstance(said, bool):
        raise InputError(f"{keys.gguf.path.name}: metadata {_ROTARY_KEY} is {_shown(said)}", hint=_DAMAGED)
    return said


def _rope_scale(keys: _Keys) -> float:
    """Return what divides the positions. A factor without a type is linear, as llama.cpp reads it."""
    key = "rope.scaling.factor" if keys.get("rope.scaling.factor") is not None else "rope.scale_linear"
    kind = keys.get("rope.scaling.type", "linear")
    if kind not in ("none", "linear"):
        raise keys.refusal(f"rotary scaling {_shown(kind)}", "use a checkpoint without rope scaling")
    # llama.cpp takes 0 as "no scaling"
    return keys.real(key, 1.0) if kind == "linear" and keys.get(key) != 0 else 1.0


def _window_layers(keys: _Keys, layers: int) -> tuple[int, ...]:
    """Return the layers that see only a window: a period whose last layer sees all, or one flag per layer."""
    pattern = keys.get("attention.sliding_window_pattern", _GEMMA3_PERIOD)
    if isinstance(pattern, list):
        if len(pattern) != layers or not all(isinstance(flag, bool) for flag in pattern):
            raise InputError(
                f"{keys.gguf.path.name}: the pattern of windows is {_shown(pattern)}, expected {layers} flags",
                hint=_DAMAGED,
            )
        return tuple(layer for layer, local in enumerate(pattern) if local)
    period = keys.whole("attention.sliding_window_pattern", MAX_CONTEXT, _GEMMA3_PERIOD)
    return tuple(layer for layer in range(layers) if (layer + 1) % period)


def _refuse_variants(keys: _Keys) -> None:
    """Refuse what would run but be wrong: experts, windows and constants that the graph knows nothing of."""
    if keys.get("expert_count"):
        raise keys.refusal("mixture of experts", "use a dense checkpoint")
    window, context = keys.get("attention.sliding_window"), keys.get("context_length")
    if keys.name != "gemma3" and window and (type(context) is not int or type(window) is not int or window < context):
        raise keys.refusal(f"a sliding window of {_shown(window)} in the architecture {keys.name}")
    for key, idle in _CONSTANTS.items():
        if keys.get(key, 0) not in idle:
            raise keys.refusal(f"{key} {_shown(keys.get(key))}")


def _matrix_shape(gguf: Weights, name: str) -> tuple[int, int]:
    tensor = gguf.tensors.get(name)
    if tensor is None:
        raise InputError(f"{gguf.path.name}: tensor {name} is missing", hint=_DAMAGED)
    if len(tensor.shape) != 2:  # noqa: PLR2004 - rows and columns
        raise InputError(f"{gguf.path.name}: tensor {name} has shape {tensor.shape}, expected a matrix", hint=_DAMAGED)
    return tensor.shape[0], tensor.shape[1]


def _shown(value: object) -> str:
    """Return a value of the file short enough for a line."""
    return repr(value if not isinstance(value, list) else value[:3])[:60]
