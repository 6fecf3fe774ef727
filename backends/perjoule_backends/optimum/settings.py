"""The options of optimum that a user may set, checked before anything is exported or loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perjoule.errors import UsageError
from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

_BLOCKS = (16, 32, 64, 128, 256)  # widths that MatMulNBits takes
_HINTS = {
    "block": f"columns per scale of --quant int4, one of {', '.join(map(str, _BLOCKS))}",
    "io_binding": "true|false",
    "spinning": "true|false",
}


class Settings(Record, frozen=True, kw_only=True):
    """``io_binding`` null leaves the choice to optimum, which binds nothing on the CPU."""

    block: int = 32
    io_binding: bool | None = None
    spinning: bool = True


def settings_of(extra: Mapping[str, Any]) -> Settings:
    """Return the settings of ``--set backend.KEY=VALUE``. Raises ``UsageError`` for what cannot be set."""
    for key, value in extra.items():
        if key not in _HINTS:
            raise UsageError(f"backend option {key}={value!r} is not known", hint=f"there are: {', '.join(_HINTS)}")
        fits = type(value) is int and value in _BLOCKS if key == "block" else isinstance(value, bool)
        if not fits:
            raise UsageError(f"backend.{key} cannot be {value!r}", hint=f"backend.{key}: {_HINTS[key]}")
    return Settings(**extra)
