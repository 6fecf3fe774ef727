"""The tokenizer of a GGUF checkpoint, rebuilt with the ``tokenizers`` library and saved beside the graph.

The pre-tokenizer patterns are those of the models' own tokenizer.json files, named by ``tokenizer.ggml.pre``.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, cast

from perjoule.errors import InputError
from perjoule_backends.checkpoints.metadata_keys import TOKENIZER_FILES
from perjoule_backends.checkpoints.published_tokenizer import TokenizerFiles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4  # llama.cpp token types
END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|endoftext|>", "<|end|>")
# llama.cpp reads these as control tokens whatever type the file gives them; equal ids need the same.
_ALWAYS_CONTROL = frozenset({*END_OF_TURN, "</s>"})
MAX_TOKENS, MAX_CHARACTERS = 1 << 20, 32 << 20  # of a vocabulary; the largest published has 262,144 and 2 million
_MAX_PIECE = 256  # characters of a SentencePiece token; all its cuts are tried, so length costs its square
_DAMAGED = "the file is damaged: download the checkpoint again"

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
    """Text to ids and back. ``encode`` reads special tokens as plain text, ``encode_template`` as tokens.

    ``folder`` is where ``write_tokenizer`` saved it, with the chat template.
    """

    def __init__(self, tokenizer: Tokenizer, folder: Path | None = None) -> None:
        self._tokenizer, self._folder = tokenizer, folder

    def encode(self, text: str) -> list[int]:
        self._tokenizer.encode_special_tokens = True  # the library's name for "as if it were plain text"
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_template(self, text: str) -> list[int]:
        self._tokenizer.encode_special_tokens = False
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    @property
    def beginning_id(self) -> int | None:
        """Return the id that the checkpoint puts before every text (BOS), or None where it puts none."""
        if self._folder is None:
            return None
        config = json.loads((self._folder / CONFIG_FILE).read_text(encoding="utf-8"))
        index = config.get("bos_token_id")
        return index if config.get("add_bos_token") and isinstance(index, int) else None

    def chat_ids(
        self, conversations: Sequence[Sequence[Mapping[str, str]]], *, thinking: bool | None = None
    ) -> list[list[int]]:
        """Return the ids of each conversation in the checkpoint's own template, up to where the answer begins.

        ``thinking`` sets the template's switch for it. Raises ``InputError`` where there is no template or no such
        switch, or where the template refuses a conversation.
        """
        from perjoule_backends.checkpoints.chat_template import chat_prompts, thinking_prompts  # noqa: PLC0415

        if self._folder is None:
            raise InputError(
                "the checkpoint carries no chat template", hint="use a checkpoint that was trained to chat"
            )
        folder = self._folder  # rendering starts a process
        texts = (
            chat_prompts(folder, conversations)
            if thinking is None
            else thinking_prompts(folder, conversations, thinking=thinking)
        )
        return [self.encode_template(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))


def write_tokenizer(metadata: Mapping[str, Any], folder: Path) -> str:
    """Save tokenizer.json and tokenizer_config.json into ``folder``; return the SHA-256 of both together.

    Metadata of a GGUF file describe the tokenizer, those of other sources carry it as published. Raises ``InputError``
    for a tokenizer family that is not known here, or a vocabulary that makes no sense.
    """
    published = metadata.get(TOKENIZER_FILES)
    if isinstance(published, TokenizerFiles):
        return _save(published.text, published.config, folder)
    tokenizer = build_tokenizer(metadata)
    tokens = metadata["tokenizer.ggml.tokens"]
    bos, eos = (_token_id(metadata, f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos"))
    template = metadata.get("tokenizer.chat_template")
    config = {
        "bos_token_id": bos,
        "bos_token": None if bos is None else tokens[bos],
        "eos_token_id": eos,
        "eos_token": None if eos is None else tokens[eos],
        "add_bos_token": bool(metadata.get("tokenizer.ggml.add_bos_token", False)),
        "stop_ids": stop_ids(metadata),
        "vocabulary": len(tokens),
        "chat_template": template if isinstance(template, str) else None,
    }
    return _save(tokenizer.to_str(), config, folder)


def _save(text: str, config: Mapping[str, Any], folder: Path) -> str:
    config_text = json.dumps(config, ensure_ascii=False, sort_keys=True)
    (folder / TOKENIZER_FILE).write_text(text, encoding="utf-8")
    (folder / CONFIG_FILE).write_text(config_text, encoding="utf-8")
    return hashlib.sha256(f"{text}\n{config_text}".encode()).hexdigest()


def load_tokenizer(folder: Path) -> CheckpointTokenizer:
    """Load what ``write_tokenizer`` saved."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - 20 MB that `perjoule --help` does not need

    text = (folder / TOKENIZER_FILE).read_text(encoding="utf-8")
    return CheckpointTokenizer(Tokenizer.from_str(text), folder)


def stop_ids(metadata: Mapping[str, Any]) -> list[int]:
    """Return the ids that end a turn: the declared end of sequence, and control tokens known to end one."""
    tokens = metadata["tokenizer.ggml.tokens"]
    declared = (_token_id(metadata, f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot"))
    found = {index for index in declared if index is not None}
    for index, (token, kind) in enumerate(zip(tokens, _kinds(metadata, tokens), strict=True)):
        if kind == _CONTROL and token in END_OF_TURN:
            found.add(index)
    return sorted(found)


def _token_id(metadata: Mapping[str, Any], key: str) -> int | None:
    index = metadata.get(key)
    if index is None:
        return None
    if type(index) is not int or not 0 <= index < len(metadata["tokenizer.ggml.tokens"]):
        raise InputError(f"{key} {repr(index)[:60]} is not in the vocabulary", hint=_DAMAGED)
    return index


def build_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    model = metadata.get("tokenizer.ggml.model")
    tokens = _list_of(metadata, "tokenizer.ggml.tokens", str)
    if not tokens:
        raise InputError("the checkpoint carries no tokenizer", hint="use a GGUF file that holds its tokenizer")
    if len(tokens) > MAX_TOKENS or sum(map(len, tokens)) > MAX_CHARACTERS:
        raise InputError(f"a vocabulary of {len(tokens)} tokens is too large to be one", hint=_DAMAGED)
    if model == "gpt2":
        tokenizer = _byte_level_bpe(metadata, tokens)
    elif model == "llama":
        tokenizer = _sentencepiece(metadata, tokens)
    else:
        raise InputError(f"unknown tokenizer model {repr(model)[:60]}", hint="supported: gpt2 (byte-level BPE), llama")
    _add_special(tokenizer, tokens, _kinds(metadata, tokens))
    return tokenizer


def _list_of(metadata: Mapping[str, Any], key: str, kind: type) -> list[Any]:
    values = metadata.get(key, [])
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise InputError(f"{key} is not a list of {kind.__name__}", hint=_DAMAGED)
    return values


def _kinds(metadata: Mapping[str, Any], tokens: list[str]) -> list[int]:
    """Return the type of every token; without a list in the file all are normal."""
    kinds = _list_of(metadata, "tokenizer.ggml.token_type", int) or [_NORMAL] * len(tokens)
    if len(kinds) != len(tokens):
        raise InputError(f"{len(tokens)} tokens but {len(kinds)} token types", hint=_DAMAGED)
    return kinds


def _add_special(tokenizer: Tokenizer, tokens: list[str], kinds: list[int]) -> None:
    from tokenizers import AddedToken  # noqa: PLC0415

    control, user = [], []
    for token, kind in zip(tokens, kinds, strict=True):
        if kind in (_CONTROL, _UNKNOWN) or token in _ALWAYS_CONTROL:
            control.append(token)
        elif kind == _USER_DEFINED:
            user.append(token)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in control if t])
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in user if t])


def _bpe(tokens: list[str], merges: list[tuple[str, str]], **options: Any) -> Any:
    """Build the merge model. A merge that makes no token of the vocabulary is the file's fault."""
    from tokenizers import models  # noqa: PLC0415

    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise InputError("a token stands twice in the tokenizer", hint=_DAMAGED)
    for left, right in merges:
        if left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise InputError(f"tokenizer merge {left[:40]!r} + {right[:40]!r} is not of its tokens", hint=_DAMAGED)
    return models.BPE(vocab=vocabulary, merges=cast("Any", merges), **options)


def _byte_level_bpe(metadata: Mapping[str, Any], tokens: list[str]) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers  # noqa: PLC0415

    name = metadata.get("tokenizer.ggml.pre", "gpt-2")
    if not isinstance(name, str) or name not in _PRE_TOKENIZERS:
        known = ", ".join(sorted(_PRE_TOKENIZERS))
        raise InputError(f"unknown pre-tokenizer {repr(name)[:60]}", hint=f"supported: {known}")
    split_digits, pattern = _PRE_TOKENIZERS[name]
    merges = [_merge(line) for line in _list_of(metadata, "tokenizer.ggml.merges", str)]
    tokenizer = Tokenizer(_bpe(tokens, merges, ignore_merges=name == "llama-bpe"))
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if split_digits else []
    steps.append(pre_tokenizers.Split(Regex(pattern), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _merge(line: str) -> tuple[str, str]:
    left, _, right = line.partition(" ")
    if not left or not right:
        raise InputError(f"tokenizer merge {line[:40]!r} is not two tokens", hint=_DAMAGED)
    return left, right


def _sentencepiece(metadata: Mapping[str, Any], tokens: list[str]) -> Tokenizer:
    """Build SentencePiece BPE: merges are all pairs whose join is a token, best score first (as llama.cpp)."""
    from tokenizers import Tokenizer, decoders, normalizers  # noqa: PLC0415

    scores = _list_of(metadata, "tokenizer.ggml.scores", float)
    unknown = metadata.get("tokenizer.ggml.unknown_token_id", 0)
    if len(scores) != len(tokens) or any(score != score for score in scores):  # noqa: PLR0124 - the test for NaN
        raise InputError("the tokenizer does not have one score for each token", hint=_DAMAGED)
    if type(unknown) is not int or not 0 <= unknown < len(tokens):
        raise InputError(f"the unknown token {repr(unknown)[:60]} is not in the vocabulary", hint=_DAMAGED)
    merges = _all_merges(tokens, scores)
    tokenizer = Tokenizer(_bpe(tokens, merges, unk_token=tokens[unknown], byte_fallback=True, fuse_unk=True))
    steps: list[Any] = [normalizers.Replace(" ", "\u2581")]
    if metadata.get("tokenizer.ggml.add_space_prefix", True):
        steps.insert(0, normalizers.Prepend("\u2581"))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
    ])  # fmt: skip
    return tokenizer


def _all_merges(tokens: list[str], scores: list[float]) -> list[tuple[str, str]]:
    """Return every pair of tokens whose join is a token, best score of the join first, then by ids."""
    index_of = {token: index for index, token in enumerate(tokens)}
    ranked = []
    for token, index in index_of.items():
        if len(token) > _MAX_PIECE:
            raise InputError(f"a token of {len(token)} characters (at most {_MAX_PIECE} are read)", hint=_DAMAGED)
        for cut in range(1, len(token)):
            left, right = index_of.get(token[:cut]), index_of.get(token[cut:])
            if left is not None and right is not None:
                ranked.append((-scores[index], left, right))
    ranked.sort()
    return [(tokens[left], tokens[right]) for _, left, right in ranked]
