"""The tokenizer of a checkpoint folder: ``tokenizer.json`` as published, and what stands beside it.

From ``tokenizer_config.json``, ``generation_config.json`` and ``config.json`` only data is taken: which tokens begin
and end a text, and the chat template. No class named there is loaded.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from perjoule.errors import HostError, InputError
from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tokenizers import Tokenizer

TOKENIZER_JSON, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
GENERATION_CONFIG, CHAT_TEMPLATE = "generation_config.json", "chat_template.jinja"
MAX_TOKENIZER_BYTES = 64 << 20  # the largest published ones have 33 MB
MAX_CONFIG_BYTES = 16 << 20
MOST_PADDING = 1024  # rows of the embedding beyond the tokens: published models pad to multiples of up to 512
_DAMAGED = "the folder is damaged or not whole: download it again"


class TokenizerFiles(Record, frozen=True, kw_only=True):
    """The text of tokenizer.json, and what ``write_tokenizer`` keeps beside it (ids of bos, eos, stop; template)."""

    text: str
    config: dict[str, Any]


def read_table(path: Path) -> dict[str, Any]:
    """Return a JSON file that holds a table; an empty one if there is no such file."""
    if not path.exists():
        return {}
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise InputError(f"{path.name}: {path.stat().st_size} bytes are too many for it", hint=_DAMAGED)
        table = json.loads(path.read_bytes())
    except OSError as error:
        raise HostError(f"{path.name}: {error.strerror}", hint="check the path and its permissions") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name}: not JSON ({str(error)[:60]})", hint=_DAMAGED) from error
    if not isinstance(table, dict):
        raise InputError(f"{path.name}: not a table", hint=_DAMAGED)
    return table


def read_tokenizer_files(folder: Path, config: Mapping[str, Any], rows: int, ends: frozenset[str]) -> TokenizerFiles:
    """Read the tokenizer of a folder whose embedding has ``rows`` rows; special tokens in ``ends`` end a turn too.

    Raises ``InputError`` where there is none, where it does not fit the embedding, or where it is damaged.
    """
    table = _tokenizer_table(folder)
    table = _without_tokens_beyond(table, rows, config.get("model_type"))
    text = json.dumps(table, ensure_ascii=False)
    tokenizer = _loaded(text)
    ids = tokenizer.get_vocab(with_added_tokens=True)
    if not ids:
        raise InputError(f"{TOKENIZER_JSON}: no tokens", hint=_DAMAGED)
    count = max(ids.values()) + 1
    if not 0 <= rows - count <= MOST_PADDING:
        raise InputError(f"{TOKENIZER_JSON}: {count} tokens, but the embedding has {rows} rows", hint=_DAMAGED)
    return TokenizerFiles(text=text, config=_config(folder, config, tokenizer, ids, ends))


def _tokenizer_table(folder: Path) -> dict[str, Any]:
    path = folder / TOKENIZER_JSON
    if not path.is_file():
        raise InputError(
            f"{folder.name}: {TOKENIZER_JSON} is missing", hint="use a checkpoint that holds it, or a GGUF file"
        )
    if path.stat().st_size > MAX_TOKENIZER_BYTES:
        raise InputError(f"{TOKENIZER_JSON}: {path.stat().st_size} bytes are too many for it", hint=_DAMAGED)
    try:
        table = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{TOKENIZER_JSON}: not JSON ({str(error)[:60]})", hint=_DAMAGED) from error
    if not isinstance(table, dict) or not isinstance(table.get("added_tokens", []), list):
        raise InputError(f"{TOKENIZER_JSON}: not a tokenizer", hint=_DAMAGED)
    # Prompts are cut to length here, and never padded: left on, both would change what is counted.
    return table | {"truncation": None, "padding": None}


def _without_tokens_beyond(table: dict[str, Any], rows: int, kind: object) -> dict[str, Any]:
    """Leave out Gemma 3's image token, which text-only checkpoints name but have no row for."""
    if kind != "gemma3_text":
        return table
    added = [t for t in table.get("added_tokens", []) if isinstance(t, dict) and _number(t.get("id")) < rows]
    return table | {"added_tokens": added}


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _loaded(text: str) -> Tokenizer:
    from tokenizers import Tokenizer  # noqa: PLC0415 - 20 MB that `perjoule --help` does not need

    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"{TOKENIZER_JSON}: {str(error).splitlines()[0][:100]}", hint=_DAMAGED) from error


def _config(
    folder: Path, config: Mapping[str, Any], tokenizer: Tokenizer, ids: Mapping[str, int], ends: frozenset[str]
) -> dict[str, Any]:
    beside, generation = read_table(folder / TOKENIZER_CONFIG), read_table(folder / GENERATION_CONFIG)
    by_id = {index: token for token, index in ids.items()}
    bos = _id_of(beside.get("bos_token"), ids)
    eos = _id_of(beside.get("eos_token"), ids)
    special = {t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special}
    stops = {index for table in (config, generation) for index in _ids(table.get("eos_token_id"), by_id)}
    stops |= {ids[token] for token in special & ends if token in ids}
    stops |= {eos} if eos is not None else set()
    if eos is None and stops:
        eos = min(stops)
    begun = tokenizer.encode("a", add_special_tokens=True).ids
    return {
        "bos_token_id": bos,
        "bos_token": None if bos is None else by_id[bos],
        "eos_token_id": eos,
        "eos_token": None if eos is None else by_id[eos],
        "add_bos_token": bos is not None and begun[:1] == [bos],
        "stop_ids": sorted(stops),
        "vocabulary": max(ids.values()) + 1,
        "chat_template": _chat_template(folder, beside),
    }


def _id_of(token: object, ids: Mapping[str, int]) -> int | None:
    """Return the id of a token given as text or as the table of an added token."""
    text = token.get("content") if isinstance(token, dict) else token
    return ids.get(text) if isinstance(text, str) else None


def _ids(value: object, by_id: Mapping[int, str]) -> list[int]:
    found = []
    for index in value if isinstance(value, list) else [value]:
        if type(index) is int and index in by_id:
            found.append(index)
        elif index is not None:
            raise InputError(f"eos_token_id {repr(index)[:40]} is not in the vocabulary", hint=_DAMAGED)
    return found


def _chat_template(folder: Path, beside: Mapping[str, Any]) -> str | None:
    """Return the template: a file of its own (newer), one string, or the one named default of several."""
    path = folder / CHAT_TEMPLATE
    if path.is_file() and path.stat().st_size <= MAX_CONFIG_BYTES:
        return path.read_text(encoding="utf-8", errors="replace")
    template = beside.get("chat_template")
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None
