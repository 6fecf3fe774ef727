"""A checkpoint written out for engines that read Hugging Face folders: config.json, model.safetensors, tokenizer.

Whatever the source is (a GGUF file, a published folder, random weights), the folder is ours from end to end: weights
in float32 or bfloat16 in the conventions of transformers (rows of Q and K not permuted, Gemma's norms without the 1),
a configuration that names a class of transformers itself, and no code. Written a few rows of a tensor at a time, so
that memory stays bounded; cached by (file hash, type, version) and complete once it has its name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from perjoule.errors import InputError
from perjoule.records import Record
from perjoule_backends.checkpoints.cache import cache_root, locked, need_space, refused_by_disk, remove_scrap
from perjoule_backends.checkpoints.facts import model_facts
from perjoule_backends.checkpoints.gguf import physical_memory
from perjoule_backends.checkpoints.hf_config import Decoder, published_name
from perjoule_backends.checkpoints.resolve import Checkpoint, resolve
from perjoule_backends.checkpoints.source import open_weights
from perjoule_backends.checkpoints.tokenizer import CONFIG_FILE, write_tokenizer
from perjoule_backends.onnxruntime.architecture import (
    ROPE_FACTORS,
    Architecture,
    parameter_count,
    read_architecture,
)
from perjoule_backends.onnxruntime.tensors import check_tensors, expected_shapes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from perjoule.protocols import Progress
    from perjoule.records import ModelFacts
    from perjoule_backends.checkpoints.source import Weights

Kind = Literal["fp32", "bf16"]

WEIGHTS_FILE, HF_CONFIG_FILE, GENERATION_FILE, NOTE_FILE = (
    "model.safetensors", "config.json", "generation_config.json", "dequantized.json",
)  # fmt: skip
FORMAT = 1  # part of the cache key: raise it whenever a folder would differ
VALUE_BYTES: dict[str, int] = {"fp32": 4, "bf16": 2}
_SAFETENSORS_NAMES = {"fp32": "F32", "bf16": "BF16"}
_TORCH_NAMES = {"fp32": "float32", "bf16": "bfloat16"}
# architecture in GGUF: model_type and class in transformers
_CLASSES = {
    "llama": ("llama", "LlamaForCausalLM"),
    "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "qwen3": ("qwen3", "Qwen3ForCausalLM"),
    "gemma3": ("gemma3_text", "Gemma3ForCausalLM"),
}
_SCRATCH = ".writing-"
_STEM_BYTES = 80
_ROWS_AT_ONCE_BYTES = 64 << 20
_SLACK_BYTES = 64 << 20  # tokenizer, configuration
_LARGEST = 1e18  # of a weight: its square is still finite in float32


class FolderModel(Record, frozen=True, kw_only=True):
    """What a folder holds. ``weights_bytes`` are those of all tensors, ``looked_up_bytes`` those read a row at a time.

    ``parameters`` and ``matrix_weights`` count what the source holds, a head that is the embedding once.
    """

    checkpoint: Checkpoint
    architecture: Architecture
    kind: Kind
    parameters: int
    matrix_weights: int
    weights_bytes: int
    looked_up_bytes: int
    tokenizer_sha256: str
    stop_ids: tuple[int, ...]

    def facts(
        self,
        ref: str,
        *,
        quant: str,
        bits_per_weight: float,
        weights_bytes: int,
        streamed_bytes_per_token: int | str,
        kv_value_bytes: int,
        context_tokens: int,
    ) -> ModelFacts:
        """Return the facts of the model as an engine holds it, its keys and values ``kv_value_bytes`` each."""
        return model_facts(
            ref,
            self.checkpoint,
            architecture=self.architecture.name,
            parameters=self.parameters,
            body_parameters=self.architecture.body_parameters(self.parameters),
            tokenizer_sha256=self.tokenizer_sha256,
            runtime_quantization=quant,
            bits_per_weight=bits_per_weight,
            weights_bytes=weights_bytes,
            streamed_bytes_per_token=streamed_bytes_per_token,
            kv_bytes_per_position=self.architecture.kv_bytes_read(kv_value_bytes, context_tokens),
        )


def dequantized_folder(ref: str, kind: Kind, progress: Progress) -> tuple[Path, FolderModel]:
    """Resolve a reference; return its folder in ``kind``, written first if it is not cached, and what it holds.

    Raises ``InputError`` for an architecture or tensors that have no counterpart in transformers, ``HostError`` where
    the checkpoint cannot be fetched or the cache cannot be written.
    """
    checkpoint = resolve(ref, progress)
    weights = open_weights(Path(checkpoint.path))
    arch = _architecture(weights)
    key = hashlib.sha256(f"{checkpoint.sha256} {kind} {FORMAT}".encode()).hexdigest()[:24]
    stem = weights.path.stem.encode()[:_STEM_BYTES].decode(errors="ignore")
    target = cache_root() / "dequantized" / f"{stem}-{kind}-{key}"
    if known := _whole(target):
        return target, _renamed(known, checkpoint)  # a cache that can only be read is enough
    need = VALUE_BYTES[kind] * parameter_count(weights)
    if need > physical_memory():
        raise InputError(
            f"{weights.path.name}: its weights take {need / 1e9:,.1f} GB as {kind}; this machine has "
            f"{physical_memory() / 1e9:,.1f} GB of memory",
            hint="use a smaller model",
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent, progress):
            if known := _whole(target):
                return target, _renamed(known, checkpoint)  # another process was first
            remove_scrap(target.parent, _SCRATCH)
            shutil.rmtree(target, ignore_errors=True)  # damaged; if it cannot be removed, the rename says so
            need_space(target.parent, need + _SLACK_BYTES, f"the {kind} form of {weights.path.name}")
            with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=target.parent) as folder:
                scratch = Path(folder) / "whole"
                scratch.mkdir()
                found = _write(weights, arch, checkpoint, kind, scratch, progress)
                _to_disk(scratch)
                scratch.rename(target)
    except OSError as error:
        raise refused_by_disk(f"cannot write the {kind} form of the model", error) from error
    return target, found


def read_note(folder: Path) -> FolderModel:
    """Return what ``dequantized_folder`` noted."""
    return msgspec.json.decode((folder / NOTE_FILE).read_bytes(), type=FolderModel)


def hf_config(arch: Architecture, kind: Kind, factors: list[float], tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return config.json, in the keys of transformers' LlamaConfig, Qwen2Config, Qwen3Config and Gemma3TextConfig."""
    model_type, class_name = _CLASSES[arch.name]
    config: dict[str, Any] = {
        "architectures": [class_name],
        "model_type": model_type,
        "torch_dtype": _TORCH_NAMES[kind],
        "hidden_size": arch.hidden,
        "intermediate_size": arch.feed_forward,
        "num_hidden_layers": arch.layers,
        "num_attention_heads": arch.heads,
        "num_key_value_heads": arch.kv_heads,
        "head_dim": arch.head_dim,
        "vocab_size": arch.vocabulary,
        "max_position_embeddings": arch.context,
        "rms_norm_eps": arch.norm_epsilon,
        "rope_theta": arch.rope_base,
        "rope_scaling": _rope_scaling(arch, factors),
        "tie_word_embeddings": arch.tied_head,
        "attention_bias": False,  # Qwen2's biases come with its class
        "bos_token_id": tokenizer["bos_token_id"],
        "eos_token_id": tokenizer["eos_token_id"],
        "pad_token_id": None,
    }
    if arch.activation == "silu":
        return config | {"hidden_act": "silu"}
    window = set(arch.window_layers)
    return config | {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": round(arch.attention_scale**-2),
        "sliding_window": arch.window,
        "layer_types": ["sliding_attention" if i in window else "full_attention" for i in range(arch.layers)],
        "rope_local_base_freq": arch.local_rope_base,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
    }


def _rope_scaling(arch: Architecture, factors: list[float]) -> dict[str, Any] | None:
    """Say how frequencies are scaled. Divisors one by one (Llama 3) are what transformers' longrope takes as lists.

    Both lists are the same and the attention factor is 1, so that nothing depends on the length of the text.
    """
    if factors:
        both = {"short_factor": factors, "long_factor": factors}
        return {"rope_type": "longrope", "factor": 1.0, "attention_factor": 1.0} | both
    return {"rope_type": "linear", "factor": arch.rope_scale} if arch.rope_scale != 1.0 else None


def _architecture(weights: Weights) -> Architecture:
    """Read the architecture, and hold the tensors against it."""
    try:
        arch = read_architecture(weights)
        check_tensors(weights, arch)
    except InputError as error:  # the same reading serves two, and its words name the other
        raise InputError(
            error.message.replace("the onnxruntime backend", "the form that transformers reads"), hint=error.hint
        ) from error
    if arch.attention_bias != (arch.name == "qwen2"):
        raise InputError(
            f"{weights.path.name}: {'biases' if arch.attention_bias else 'no biases'} in the attention of the "
            f"architecture {arch.name} have no counterpart in transformers",
            hint="use another checkpoint, or the onnxruntime backend",
        )
    return arch


def _write(
    weights: Weights, arch: Architecture, checkpoint: Checkpoint, kind: Kind, folder: Path, progress: Progress
) -> FolderModel:
    shapes = {name: shape for name, shape in expected_shapes(arch).items() if name != ROPE_FACTORS}
    names = _published_names(arch, shapes)
    with (folder / WEIGHTS_FILE).open("wb") as file:
        file.write(_header({names[name]: shape for name, shape in shapes.items()}, kind))
        for done, name in enumerate(shapes):
            for values in _parts(weights, arch, name):
                file.write(_stored(values, kind).data)
            progress("writing out the weights", (done + 1) / len(shapes))
    tokenizer_sha256 = write_tokenizer(weights.metadata, folder)
    tokenizer = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    factors = weights.dequantize(ROPE_FACTORS)[0].tolist() if arch.rope_factors else []
    stop_ids = tuple(tokenizer["stop_ids"])
    _save(folder / CONFIG_FILE, tokenizer | {"tokenizer_class": "PreTrainedTokenizerFast"})
    _save(folder / HF_CONFIG_FILE, hf_config(arch, kind, factors, tokenizer))
    _save(folder / GENERATION_FILE, {
        "bos_token_id": tokenizer["bos_token_id"], "eos_token_id": list(stop_ids) or None, "do_sample": False,
    })  # fmt: skip
    size = VALUE_BYTES[kind]
    note = FolderModel(
        checkpoint=checkpoint,
        architecture=arch,
        kind=kind,
        parameters=parameter_count(weights),
        matrix_weights=sum(_size(shape) for shape in shapes.values() if len(shape) > 1),
        weights_bytes=size * sum(map(_size, shapes.values())),
        looked_up_bytes=0 if arch.tied_head else size * _size(shapes["token_embd.weight"]),
        tokenizer_sha256=tokenizer_sha256,
        stop_ids=stop_ids,
    )
    (folder / NOTE_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(note), indent=1))
    return note


def _published_names(arch: Architecture, tensors: Mapping[str, Any]) -> dict[str, str]:
    decoder = Decoder(
        architecture=arch.name, layers=arch.layers, hidden=arch.hidden, feed_forward=arch.feed_forward,
        heads=arch.heads, kv_heads=arch.kv_heads, head_dim=arch.head_dim, vocabulary=arch.vocabulary,
        context=arch.context, rope_base=arch.rope_base, norm_epsilon=arch.norm_epsilon, tied_head=arch.tied_head,
    )  # fmt: skip
    return {name: published_name(decoder, name) for name in tensors}


def _header(shapes: Mapping[str, tuple[int, ...]], kind: Kind) -> bytes:
    """Return the head of a safetensors file whose tensors follow in this order (format: the safetensors README)."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        end = at + VALUE_BYTES[kind] * _size(shape)
        table[name] = {"dtype": _SAFETENSORS_NAMES[kind], "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text


def _parts(weights: Weights, arch: Architecture, name: str) -> Iterator[NDArray[np.float32]]:
    """Yield the values of a tensor as transformers wants them, a few rows at a time."""
    shape = weights.tensors[name].shape
    rows, columns = (shape[0], shape[1]) if len(shape) > 1 else (1, shape[0])
    step = max(1, _ROWS_AT_ONCE_BYTES // (4 * columns))
    permuted = arch.rotary_interleaved and name.endswith(("attn_q.weight", "attn_k.weight"))
    if permuted:
        step = max(1, step // arch.head_dim) * arch.head_dim  # whole heads
    for start in range(0, rows, step):
        values = weights.dequantize(name, slice(start, min(rows, start + step)))
        if not (values.min() >= -_LARGEST and values.max() <= _LARGEST):  # NaN is neither
            raise InputError(
                f"{weights.path.name}: tensor {name} holds values that are no weights",
                hint="the file is damaged: download it again",
            )
        if permuted:
            # The two rows of a rotary pair lie side by side; transformers has them half a head apart
            pairs = values.reshape(-1, arch.head_dim // 2, 2, columns)
            values = np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(-1, columns)
        if arch.name == "gemma3" and name.endswith("norm.weight"):
            values = values - np.float32(1)  # transformers multiplies by 1 + w; GGUF files hold the sum
        yield values


def _stored(values: NDArray[np.float32], kind: Kind) -> NDArray[Any]:
    """Return the values as they are written; a bfloat16 is the upper half of a float32, rounded half to even."""
    flat = np.ascontiguousarray(values, dtype="<f4").reshape(-1)
    if kind == "fp32":
        return flat
    bits = flat.view("<u4")
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype("<u2")


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size


def _save(path: Path, table: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(table, ensure_ascii=False, indent=1, sort_keys=True), encoding="utf-8")


def _to_disk(folder: Path) -> None:
    """Make the bytes durable before the folder gets its name: after a power cut it is whole or not there."""
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _renamed(known: FolderModel, checkpoint: Checkpoint) -> FolderModel:
    """The same bytes may have been called otherwise, or lain elsewhere, when the folder was written."""
    return msgspec.structs.replace(known, checkpoint=checkpoint)


def _whole(folder: Path) -> FolderModel | None:
    try:
        return read_note(folder)
    except (OSError, msgspec.MsgspecError, ValueError):
        return None
