"""``genai_config.json``: what ONNX Runtime GenAI wants to know of a converted folder.

Keys: the configuration reference of ONNX Runtime GenAI. Its graph counts lengths in the attention mask, so it is a
file of its own over the same weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule_backends.onnxruntime.architecture import Architecture

CONFIG_FILE, MODEL_GENAI_FILE = "genai_config.json", "model-genai.onnx"
_TYPES = {"gemma3": "gemma3_text"}  # where its name for the text model is another


def write_genai_config(arch: Architecture, stop_ids: tuple[int, ...], folder: Path) -> None:
    config: dict[str, Any] = {
        "model": {
            "type": _TYPES.get(arch.name, arch.name),
            "vocab_size": arch.vocabulary,
            "context_length": arch.context,
            "eos_token_id": list(stop_ids),
            "pad_token_id": stop_ids[0] if stop_ids else 0,
            "decoder": {
                "filename": MODEL_GENAI_FILE,
                "session_options": {"log_id": "perjoule", "provider_options": []},
                "hidden_size": arch.hidden,
                "head_size": arch.head_dim,
                "num_attention_heads": arch.heads,
                "num_key_value_heads": arch.kv_heads,
                "num_hidden_layers": arch.layers,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {"max_length": arch.context, "past_present_share_buffer": True, "do_sample": False},
    }
    (folder / CONFIG_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=1))
