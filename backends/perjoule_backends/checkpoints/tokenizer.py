"""The tokenizer of a GGUF checkpoint, rebuilt with the ``tokenizers`` library and saved beside the graph.

The pre-tokenizer patterns are those of the models' own tokenizer.json files, named by ``tokenizer.ggml.pre``.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, cast

from perjoule.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
_NORMAL, _CONTROL, _USER_DEFINED, _BYTE = 1, 3, 4, 6  # llama.cpp token types
_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|endoftext|>", "<|end|>")

_GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3_PATTERN = _QWEN2_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
# name: (split digits one by one first, pattern)
_PRE_TOKENIZERS = {
    "gpt-2": (False, _GPT2_PATTERN),
    "smollm": (True, _GPT2_PATTERN),
    "qwen2": (False, _QWEN2_PATTERN),
    "llama-bpe": (False, _LLAMA3_PATTERN),
}


class CheckpointTokenizer:
    """Text to ids and back. ``encode`` reads special tokens as plain text, ``encode_template`` as tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        self._tokenizer.encode_special_tokens = True  # the library's name for "as if it were plain text"
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_template(self, text: str) -> list[int]:
        self._tokenizer.encode_special_tokens = False
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))


def write_tokenizer(metadata: Mapping[str, Any], folder: Path) -> str:
    """Save tokenizer.json and tokenizer_config.json into ``folder``; return the SHA-256 of both together.

    Raises ``InputError`` for a tokenizer family that is not known here.
    """
    tokenizer = build_tokenizer(metadata)
    text = tokenizer.to_str()
    tokens = metadata["tokenizer.ggml.tokens"]
    config = {
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "add_bos_token": bool(metadata.get("tokenizer.ggml.add_bos_token", False)),
        "stop_ids": stop_ids(metadata),
        "vocabulary": len(tokens),
        "chat_template": metadata.get("tokenizer.chat_template"),
    }
    config_text = json.dumps(config, ensure_ascii=False, sort_keys=True)
    (folder / TOKENIZER_FILE).write_text(text, encoding="utf-8")
    (folder / CONFIG_FILE).write_text(config_text, encoding="utf-8")
    return hashlib.sha256(f"{text}\n{config_text}".encode()).hexdigest()


def load_tokenizer(folder: Path) -> CheckpointTokenizer:
    """Load what ``write_tokenizer`` saved."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - 20 MB that `perjoule --help` does not need

    text = (folder / TOKENIZER_FILE).read_text(encoding="utf-8")
    return CheckpointTokenizer(Tokenizer.from_str(text))


def stop_ids(metadata: Mapping[str, Any]) -> list[int]:
    """Return the ids that end a turn: the declared end of sequence, and control tokens known to end one."""
    found = {metadata.get("tokenizer.ggml.eos_token_id"), metadata.get("tokenizer.ggml.eot_token_id")}
    kinds = metadata.get("tokenizer.ggml.token_type", [])
    for index, (token, kind) in enumerate(zip(metadata["tokenizer.ggml.tokens"], kinds, strict=False)):
        if kind == _CONTROL and token in _END_OF_TURN:
            found.add(index)
    return sorted(i for i in found if isinstance(i, int))


def build_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    model = metadata.get("tokenizer.ggml.model")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise InputError("the checkpoint carries no tokenizer", hint="use a GGUF file that holds its tokenizer")
    if model == "gpt2":
        tokenizer = _byte_level_bpe(metadata)
    elif model == "llama":
        tokenizer = _sentencepiece(metadata)
    else:
        raise InputError(f"unknown tokenizer model {model!r}", hint="supported: gpt2 (byte-level BPE), llama")
    _add_special(tokenizer, tokens, metadata.get("tokenizer.ggml.token_type", []))
    return tokenizer


def _add_special(tokenizer: Tokenizer, tokens: list[str], kinds: list[int]) -> None:
    from tokenizers import AddedToken  # noqa: PLC0415

    control = [t for t, k in zip(tokens, kinds, strict=False) if k == _CONTROL]
    user = [t for t, k in zip(tokens, kinds, strict=False) if k == _USER_DEFINED]
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in control])
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in user])


def _byte_level_bpe(metadata: Mapping[str, Any]) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415

    name = metadata.get("tokenizer.ggml.pre", "gpt-2")
    if name not in _PRE_TOKENIZERS:
        known = ", ".join(sorted(_PRE_TOKENIZERS))
        raise InputError(f"unknown pre-tokenizer {name!r}", hint=f"supported: {known}")
    split_digits, pattern = _PRE_TOKENIZERS[name]
    vocabulary = {token: index for index, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [_merge(line) for line in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=cast("Any", merges), ignore_merges=name == "llama-bpe"))
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if split_digits else []
    steps.append(pre_tokenizers.Split(Regex(pattern), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _merge(line: str) -> tuple[str, str]:
    left, _, right = line.partition(" ")
    if not left or not right:
        raise InputError(f"tokenizer merge {line[:40]!r} is not two tokens", hint="download the checkpoint again")
    return left, right


def _sentencepiece(metadata: Mapping[str, Any]) -> Tokenizer:
    """Build SentencePiece BPE: merges are all pairs whose join is a token, best score first (as llama.cpp)."""
    from tokenizers import Tokenizer, decoders, models, normalizers  # noqa: PLC0415

    tokens, scores = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.scores"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    ranked = []
    for token, index in vocabulary.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocabulary and right in vocabulary:
                ranked.append((-scores[index], vocabulary[left], vocabulary[right], left, right))
    ranked.sort(key=lambda item: item[:3])
    unknown = metadata.get("tokenizer.ggml.unknown_token_id", 0)
    tokenizer = Tokenizer(models.BPE(
        vocab=vocabulary, merges=[(left, right) for *_, left, right in ranked],
        unk_token=tokens[unknown], byte_fallback=True, fuse_unk=True,
    ))  # fmt: skip
    steps: list[Any] = [normalizers.Replace(" ", "\u2581")]
    if metadata.get("tokenizer.ggml.add_space_prefix", True):
        steps.insert(0, normalizers.Prepend("\u2581"))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
    ])  # fmt: skip
    return tokenizer
