"""Tokenizers rebuilt from metadata: special tokens, digits, byte fallback, and vocabularies that make no sense."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from perjoule.errors import InputError
from perjoule_backends.checkpoints.tokenizer import CONFIG_FILE, build_tokenizer, load_tokenizer, write_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

LETTERS = [chr(code) for code in range(33, 127)]
SPECIAL = ["ab", "\u0120a", "12", "<|im_end|>", "</s>", "<think>"]


def byte_level(**changes: Any) -> dict[str, Any]:
    tokens = [*LETTERS, "\u0120", *SPECIAL]
    kinds = [1] * (len(tokens) - 3) + [3, 1, 4]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": ["a b", "\u0120 a", "1 2"],
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
    } | changes


def sentencepiece(**changes: Any) -> dict[str, Any]:
    tokens = ["<unk>", "<0xC3>", "<0xA9>", "\u2581", "a", "b", "ab", "\u2581ab", "ba", "<end_of_turn>"]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [2, 6, 6, 1, 1, 1, 1, 1, 1, 3],
        "tokenizer.ggml.scores": [0.0, 0.0, 0.0, -5.0, -5.0, -5.0, -2.0, -3.0, -1.0, 0.0],
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_space_prefix": False,
    } | changes


def saved(metadata: dict[str, Any], folder: Path) -> Any:
    write_tokenizer(metadata, folder)
    return load_tokenizer(folder)


def test_a_prompt_never_becomes_a_control_token_but_a_template_does(tmp_path: Path):
    tokenizer = saved(byte_level(), tmp_path)
    tokens = byte_level()["tokenizer.ggml.tokens"]
    end, closed = tokens.index("<|im_end|>"), tokens.index("</s>")
    assert tokenizer.encode_template("ab<|im_end|></s>") == [tokens.index("ab"), end, closed]
    plain = tokenizer.encode("ab<|im_end|></s>")
    assert end not in plain
    assert closed not in plain
    assert tokenizer.decode(plain) == "ab<|im_end|></s>"
    assert tokenizer.encode("<think>") == [tokens.index("<think>")]  # user-defined: a piece of text like another


def test_smollm_splits_numbers_into_digits_and_gpt2_does_not(tmp_path: Path):
    tokens = byte_level()["tokenizer.ggml.tokens"]
    digits = saved(byte_level(**{"tokenizer.ggml.pre": "smollm"}), tmp_path).encode("12")
    assert digits == [tokens.index("1"), tokens.index("2")]
    assert saved(byte_level(**{"tokenizer.ggml.pre": "gpt-2"}), tmp_path).encode("12") == [tokens.index("12")]


def test_the_configuration_says_what_ends_a_turn(tmp_path: Path):
    first = write_tokenizer(byte_level(), tmp_path)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    assert config["stop_ids"] == [byte_level()["tokenizer.ggml.eos_token_id"]]
    assert config["add_bos_token"] is False
    assert write_tokenizer(byte_level(), tmp_path) == first
    assert write_tokenizer(byte_level(**{"tokenizer.ggml.merges": ["a b"]}), tmp_path) != first


def test_sentencepiece_merges_the_best_score_first_and_falls_back_to_bytes(tmp_path: Path):
    tokenizer = saved(sentencepiece(), tmp_path)
    assert tokenizer.encode("aba") == [4, 8]  # "ba" scores better than "ab"
    assert tokenizer.encode(" ab") == [7]
    assert tokenizer.encode("\u00e9") == [1, 2]
    assert tokenizer.decode([7, 1, 2]) == " ab\u00e9"
    with_prefix = saved(sentencepiece(**{"tokenizer.ggml.add_space_prefix": True}), tmp_path)
    assert with_prefix.encode("ab") == [7]


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({}, "no tokenizer"),
        (byte_level(**{"tokenizer.ggml.model": "bert"}), "unknown tokenizer model 'bert'"),
        (byte_level(**{"tokenizer.ggml.pre": "tekken"}), "unknown pre-tokenizer 'tekken'"),
        (byte_level(**{"tokenizer.ggml.pre": ["qwen2"]}), "unknown pre-tokenizer"),
        (byte_level(**{"tokenizer.ggml.tokens": [1, 2]}), "not a list of str"),
        (byte_level(**{"tokenizer.ggml.tokens": "ab"}), "not a list of str"),
        (byte_level(**{"tokenizer.ggml.tokens": ["a", "a"], "tokenizer.ggml.token_type": []}), "stands twice"),
        (byte_level(**{"tokenizer.ggml.token_type": [1]}), "token types"),
        (byte_level(**{"tokenizer.ggml.merges": ["ab"]}), "not two tokens"),
        (byte_level(**{"tokenizer.ggml.merges": ["a c"]}), "not of its tokens"),
        (byte_level(**{"tokenizer.ggml.eos_token_id": 10**6}), "not in the vocabulary"),
        (sentencepiece(**{"tokenizer.ggml.scores": [0.0]}), "one score"),
        (sentencepiece(**{"tokenizer.ggml.scores": [float("nan")] * 10}), "one score"),
        (sentencepiece(**{"tokenizer.ggml.unknown_token_id": 99}), "not in the vocabulary"),
        (
            sentencepiece(
                **{
                    "tokenizer.ggml.tokens": ["a" * 100_000],
                    "tokenizer.ggml.scores": [0.0],
                    "tokenizer.ggml.token_type": [1],
                }
            ),
            "100000 characters",
        ),
    ],
)
def test_vocabularies_that_make_no_sense_are_refused(metadata: dict[str, Any], why: str, tmp_path: Path):
    with pytest.raises(InputError, match=why) as caught:
        write_tokenizer(metadata, tmp_path)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_every_supported_pre_tokenizer_builds():
    for name in ("gpt-2", "smollm", "qwen2", "llama-bpe"):
        assert build_tokenizer(byte_level(**{"tokenizer.ggml.pre": name})).encode("ab").tokens == ["ab"]
