"""What a result says of a model: what is known of the file, and how an engine runs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from perjoule.records import UNSET, ModelFacts

if TYPE_CHECKING:
    from perjoule_backends.checkpoints.resolve import Checkpoint


def model_facts(
    ref: str,
    checkpoint: Checkpoint,
    *,
    architecture: str,
    parameters: int,
    body_parameters: int | None,
    tokenizer_sha256: str,
    runtime_quantization: str,
    bits_per_weight: float,
    weights_bytes: int,
    streamed_bytes_per_token: int | str,
    kv_bytes_per_position: int | str,
    source_format: str | None = None,
    weights: Literal["trained", "synthetic"] | None = None,
) -> ModelFacts:
    """Put together the facts of a model as an engine runs it.

    ``body_parameters`` is ``None`` where which parameters a token meets depends on the token. ``bits_per_weight`` and
    ``weights_bytes`` are those of the matrices that the engine holds. The weights read for one token
    (``streamed_bytes_per_token``) and ``kv_bytes_per_position`` (all layers) may be the reason why they are not known.
    ``source_format`` and ``weights`` are the checkpoint's unless given.
    """
    file = checkpoint.format != "synthetic"
    streamed, kv = streamed_bytes_per_token, kv_bytes_per_position
    return ModelFacts(
        ref=_without_folders(ref),
        name=checkpoint.name,
        family=checkpoint.family,
        vendor=checkpoint.vendor,
        country=checkpoint.country,
        license=checkpoint.license,
        architecture=architecture,
        parameters=parameters,
        body_parameters=UNSET if body_parameters is None else body_parameters,
        weights=weights or checkpoint.weights,
        source_format=source_format or checkpoint.format,
        source_quantization=checkpoint.source_quantization,
        file_sha256=checkpoint.sha256,
        file_bytes=checkpoint.file_bytes if file else None,
        file_bytes_missing=UNSET if file else "the weights are drawn at random: there is no file",
        tokenizer_sha256=tokenizer_sha256,
        runtime_quantization=runtime_quantization,
        bits_per_weight=bits_per_weight,
        weights_bytes=weights_bytes,
        streamed_bytes_per_token=None if isinstance(streamed, str) else streamed,
        streamed_bytes_per_token_missing=streamed if isinstance(streamed, str) else UNSET,
        kv_bytes_per_position=None if isinstance(kv, str) else kv,
        kv_bytes_per_position_missing=kv if isinstance(kv, str) else UNSET,
        left_out=checkpoint.left_out or UNSET,
    )


def _without_folders(ref: str) -> str:
    """A path would tell whose machine this is; what is after its last slash does not."""
    is_path = ref.endswith(".gguf") or Path(ref).exists()
    return Path(ref).name if is_path and "://" not in ref else ref
