"""Reading what another program wrote: bounded, strict, and reduced to what a record can hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from perjoule.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 64 * 1024 * 1024  # as of a result, perjoule.store.read
MAX_EXACT = 2**53  # larger integers are not JSON numbers everywhere (RFC 8785), so they are kept as strings
_FOLDERS = re.compile(r"^(~|\.{0,2}/|[A-Za-z]:[\\/]|\\\\)|[\\/].*\.(gguf|safetensors|onnx)$", re.IGNORECASE)


def read_bytes(path: Path, hint: str) -> bytes:
    """Return a file's bytes. Raises ``InputError`` where it cannot be read, is empty, or is too large."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint=hint) from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES // 2**20} MiB", hint=hint)
    if not data.strip():
        raise InputError(f"{path}: the file is empty", hint=hint)
    return data


def text_of(data: bytes, source: str, hint: str) -> str:
    """Return UTF-8 text, a byte order mark left out. Raises ``InputError``."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{source}: not UTF-8 text", hint=hint) from None


def fact(value: Any) -> Any:
    """Return a value as a record keeps it: whole integers beyond 2^53 as strings, folders cut from paths.

    Where a model lay says who measured it (a user's name, a share), and nothing of the measurement.
    """
    if isinstance(value, str):
        whole = value.encode("utf-8", "backslashreplace").decode()  # a lone surrogate is no text
        return re.split(r"[\\/]", whole)[-1] if _FOLDERS.search(whole) else whole
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_EXACT:
        return str(value)
    if isinstance(value, dict):
        return {str(fact(key)): fact(child) for key, child in value.items()}
    if isinstance(value, list):
        return [fact(child) for child in value]
    return value
