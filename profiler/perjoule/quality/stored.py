"""Quality kept between runs: the same file, engine, precision and machine give the same logits.

A file that is missing, damaged or of another version is no error: quality is measured again.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import msgspec

from perjoule.quality.fidelity import load_corpus
from perjoule.records.base import Record
from perjoule.records.quality import Quality
from perjoule.store.cache import cache_folder
from perjoule.store.write import replace_whole

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule.protocols import EngineOptions
    from perjoule.records import ModelFacts

_MAX_BYTES = 4 * 1024 * 1024
_METHOD = 1  # part of the key: raise it whenever the same logits would give another record


class _Stored(Record, frozen=True, kw_only=True):
    schema: Literal["perjoule.quality"] = "perjoule.quality"
    schema_version: Literal[1] = 1
    key: str
    quality: Quality


def key_of(
    backend: str, engine_version: str, model: ModelFacts, options: EngineOptions, machine_id: str, *, wanted: str
) -> str:
    """Return what names a kept quality: everything that logits depend on, and what was ``wanted`` of it.

    Threads and batch are left out: they change the order of a sum in the last digits, and what is timed uses several.
    """
    parts = [
        _METHOD, backend, engine_version, model.file_sha256, model.tokenizer_sha256, model.runtime_quantization,
        model.bits_per_weight, options.device, sorted(options.extra.items()), machine_id, wanted, load_corpus().sha256,
    ]  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def load(key: str) -> Quality | None:
    try:
        with _path(key).open("rb") as file:
            stored = msgspec.json.decode(file.read(_MAX_BYTES), type=_Stored)  # what is cut off is no JSON
    except (OSError, ValueError, RecursionError):  # what msgspec raises is a ValueError
        return None
    return stored.quality if stored.key == key else None


def save(key: str, quality: Quality) -> str | None:
    """Keep it in place of an older one; return why it could not be kept, if so."""
    path = _path(key)
    data = msgspec.json.format(msgspec.json.encode(_Stored(key=key, quality=quality), order="sorted"), indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_whole(path, data + b"\n")
    except OSError as error:
        return f"the quality cannot be kept for the next run: {error.strerror}"
    return None


def _path(key: str) -> Path:
    return cache_folder("quality") / f"{key}.json"
