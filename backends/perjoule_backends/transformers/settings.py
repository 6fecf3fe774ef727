"""The options of transformers that a user may set, checked before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from perjoule.errors import UsageError
from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

Attention = Literal["sdpa", "eager"]


class Settings(Record, frozen=True, kw_only=True):
    """``attention`` is the implementation that transformers uses; sdpa is its own choice where nothing is said."""

    attention: Attention = "sdpa"


def settings_of(extra: Mapping[str, Any]) -> Settings:
    """Return the settings of ``--set backend.KEY=VALUE``. Raises ``UsageError`` for what is not known."""
    for key, value in extra.items():
        if key != "attention":
            raise UsageError(f"backend option {key}={value!r} is not known", hint="there is: attention")
        if value not in get_args(Attention):
            raise UsageError(
                f"backend.attention cannot be {value!r}", hint=f"backend.attention={'|'.join(get_args(Attention))}"
            )
    return Settings(**extra)
