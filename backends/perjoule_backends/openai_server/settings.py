"""What ``--set backend.KEY=VALUE`` says of the server, checked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from perjoule.errors import UsageError
from perjoule.records import Record
from perjoule_backends.openai_server.connection import Place

if TYPE_CHECKING:
    from perjoule.protocols import EngineOptions

DEVICE = "server"
Endpoint = Literal["completions", "chat"]
_KEYS = ("url", "api_key_env", "checkpoint", "endpoint", "kv_bits", "tokenizer")
_ENDPOINTS = ("completions", "chat")
_WIDEST_BITS = 32


class Settings(Record, frozen=True, kw_only=True):
    """``checkpoint`` is the GGUF file that the server was started with, on the user's word; ``tokenizer`` only its own.

    ``kv_bits`` is the width in which the server keeps keys and values; null: not said.
    """

    url: str
    api_key_env: str | None = None
    checkpoint: str | None = None
    tokenizer: str | None = None
    endpoint: Endpoint = "completions"
    kv_bits: float | None = None

    @property
    def place(self) -> Place:
        return Place(self.url)

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of every request. Raises ``UsageError`` where the variable of the key is not there."""
        if self.api_key_env is None:
            return {}
        key = os.environ.get(self.api_key_env, "")
        if not key or not key.isascii() or not key.isprintable():
            raise UsageError(
                f"backend.api_key_env: the variable {self.api_key_env} holds no key",
                hint=f"export {self.api_key_env}=... before the run",
            )
        return {"Authorization": f"Bearer {key}"}


def read_settings(options: EngineOptions) -> Settings:
    """Return what was set. Raises ``UsageError`` for what is missing, unknown or makes no sense here."""
    extra = options.extra
    unknown = next((key for key in extra if key not in _KEYS), None)
    if unknown is not None:
        raise UsageError(f"backend openai has no option {unknown!r}", hint=f"it has: {', '.join(_KEYS)}")
    if options.batch < 1:
        raise UsageError(f"{options.batch} requests at a time", hint="use at least 1")
    if options.quant != "faithful":
        raise UsageError(f"--quant {options.quant!r}: a server runs its model as it has loaded it", hint="leave it out")
    words = {key: _text(key, extra[key]) for key in _KEYS if key in extra and key != "kv_bits"}
    if "url" not in words:
        raise UsageError("backend openai needs the server's address", hint="--set backend.url=http://127.0.0.1:8000/v1")
    if words.get("endpoint", "completions") not in _ENDPOINTS:
        raise UsageError(
            f"backend.endpoint {words['endpoint']!r} is not known", hint=f"one of: {', '.join(_ENDPOINTS)}"
        )
    if ("checkpoint" in words) == ("tokenizer" in words):
        raise UsageError(
            "backend openai needs one of backend.checkpoint and backend.tokenizer to make prompts and to count tokens",
            hint="--set backend.checkpoint=REF, the GGUF file that the server runs, or backend.tokenizer=FILE",
        )
    settings = Settings(**words, kv_bits=_bits(extra.get("kv_bits")))  # type: ignore[arg-type]  # checked above
    settings.place  # noqa: B018 - a wrong address is said at once
    return settings


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise UsageError(f"backend.{key} must be text, got {value!r}", hint=f"e.g. --set backend.{key}=...")
    return value


def _bits(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= _WIDEST_BITS:
        raise UsageError(f"backend.kv_bits must be a number of bits, got {value!r}", hint="16 for half precision")
    return float(value)
