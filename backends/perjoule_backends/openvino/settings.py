"""The options of OpenVINO that a user may set, checked before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from perjoule.errors import UsageError
from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

Attention = Literal["sdpa", "paged"]
Precision = Literal["f32", "bf16", "f16"]
KvType = Literal["u8", "f16", "bf16", "f32"]
# 8 bits come with scales: the paged cache of SmolLM2-135M, as release 2026.4.1 compiles it, has 40 bytes of a key's
# channel for 32 tokens and 72 bytes for the 64 numbers of a value. The larger of the two is taken for both.
KV_VALUE_BYTES: dict[str, float] = {"u8": 1.25, "f16": 2.0, "bf16": 2.0, "f32": 4.0}


class Settings(Record, frozen=True, kw_only=True):
    """What is None is OpenVINO's choice, which ``effective_options`` tells.

    ``attention``: ``sdpa`` keeps one sequence's keys and values in the model's own state; ``paged`` is GenAI's
    scheduler for many sequences, used for one, its prefix cache off.
    """

    attention: Attention = "sdpa"
    precision: Precision | None = None
    kv_type: KvType | None = None

    def properties(self, threads: int) -> dict[str, Any]:
        """Return the plugin's properties, as OpenVINO names them."""
        found: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        if self.precision is not None:
            found["INFERENCE_PRECISION_HINT"] = self.precision
        if self.kv_type is not None:
            found["KV_CACHE_PRECISION"] = self.kv_type
        return found


_KNOWN = {"attention": get_args(Attention), "precision": get_args(Precision), "kv_type": get_args(KvType)}


def settings_of(extra: Mapping[str, Any]) -> Settings:
    """Return the settings of ``--set backend.KEY=VALUE``. Raises ``UsageError`` for what is not one of them."""
    for key, value in extra.items():
        if key not in _KNOWN:
            raise UsageError(f"backend option {key}={value!r} is not known", hint=f"there are: {', '.join(_KNOWN)}")
        if value not in _KNOWN[key]:
            raise UsageError(f"backend.{key} cannot be {value!r}", hint=f"backend.{key}={'|'.join(_KNOWN[key])}")
    return Settings(**extra)
