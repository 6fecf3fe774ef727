"""The options of llama.cpp that a user may set, checked before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from perjoule.errors import UsageError
from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

KvType = Literal["f16", "f32", "q8_0"]
# q8_0 keeps blocks of 32 values as 32 bytes and a 16-bit scale (ggml, ggml-common.h: block_q8_0).
KV_VALUE_BYTES: dict[str, float] = {"f16": 2.0, "f32": 4.0, "q8_0": 34 / 32}
_MOST_TOKENS = 1 << 16  # of one pass


class Settings(Record, frozen=True, kw_only=True):
    """``batch`` tokens are handed over at a time and computed ``ubatch`` at a time.

    Flash attention is on unless it is said otherwise: of the settings tried it was the faster one (docs/engines.md),
    and an engine left at a worse setting is no fair opponent.
    """

    flash_attn: bool = True
    batch: int = 2048
    ubatch: int = 512
    kv_type: KvType = "f16"
    mmap: bool = True


_HINTS = {
    "flash_attn": "true|false",
    "batch": f"1 to {_MOST_TOKENS} tokens handed over at a time",
    "ubatch": f"1 to {_MOST_TOKENS} tokens computed at a time, at most batch",
    "kv_type": "|".join(get_args(KvType)),
    "mmap": "true|false",
}


def settings_of(extra: Mapping[str, Any]) -> Settings:
    """Return the settings of ``--set backend.KEY=VALUE``. Raises ``UsageError`` for what llama.cpp would not take."""
    for key, value in extra.items():
        if key not in _HINTS:
            raise UsageError(f"backend option {key}={value!r} is not known", hint=f"there are: {', '.join(_HINTS)}")
        if not _fits(key, value):
            raise UsageError(f"backend.{key} cannot be {value!r}", hint=f"backend.{key}={_HINTS[key]}")
    found = Settings(**extra)
    if found.ubatch > found.batch:
        if "ubatch" in extra:
            raise UsageError(
                f"backend.ubatch={found.ubatch} is more than backend.batch={found.batch}",
                hint="more tokens than are handed over cannot be computed at a time",
            )
        found = Settings(**{**extra, "ubatch": found.batch})
    if found.kv_type == "q8_0" and not found.flash_attn:
        raise UsageError(
            "backend.kv_type=q8_0 needs flash attention: llama.cpp keeps quantized values with it only",
            hint="leave out backend.flash_attn=false",
        )
    return found


def _fits(key: str, value: object) -> bool:
    if key == "kv_type":
        return value in get_args(KvType)
    if key in ("batch", "ubatch"):
        return type(value) is int and 1 <= value <= _MOST_TOKENS
    return isinstance(value, bool)
