"""Prompts as the measured process prepares them: those of the whole text, only sooner."""

from __future__ import annotations

import hashlib
import itertools
import re
from typing import TYPE_CHECKING

import pytest
from load_jobs import make_job

from perjoule.drive.prompts import Prompts
from perjoule.errors import InputError
from perjoule.load.prompts import prompt_text
from perjoule_backends.null import ByteTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence


class Words:
    """A tokenizer of words and blank lines, that says how much it was given."""

    def __init__(self, piece: str = r"\n\n|\S+") -> None:
        self._piece, self._ids = re.compile(piece), dict[str, int]()
        self.characters = 0

    def encode(self, text: str) -> list[int]:
        self.characters += len(text)
        return [self._ids.setdefault(word, len(self._ids)) for word in self._piece.findall(text)]

    def decode(self, ids: Sequence[int]) -> str:
        words = list(self._ids)
        return " ".join(words[i] for i in ids)


# The last one's tokens are sentences: longer than any share of the text that is tried first.
@pytest.mark.parametrize("make", [ByteTokenizer, Words, lambda: Words(r"[^.]+\.")])
@pytest.mark.parametrize("tokens", [1, 7, 64])
def test_the_tokens_are_those_of_the_whole_text(make, tokens: int):
    ours, whole = make(), make()
    prompts = Prompts(make_job(prompt_tokens=tokens), ours)
    for index in range(20):
        prompt = prompts.next()
        text = prompt_text("udhr-en", 0, 0, index, least_words=tokens)
        assert ours.decode(prompt.ids) == whole.decode(whole.encode(text)[:tokens])
        assert prompt.text_sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_most_of_the_text_need_not_be_read():
    tokenizer = Words()
    prompts = Prompts(make_job(prompt_tokens=64), tokenizer)
    texts = [prompt_text("udhr-en", 0, 0, index, least_words=64) for index in range(20)]
    for _ in texts:
        prompts.next()
    assert tokenizer.characters < 0.2 * sum(map(len, texts))


def test_a_prompt_that_the_corpus_does_not_hold_is_refused():
    prompts = Prompts(make_job(prompt_tokens=500), Words(r"[^.]+\."))
    with pytest.raises(InputError, match=r"gives a prompt of \d+ tokens; the scenario asks for 500") as caught:
        prompts.next()
    assert "prompt_tokens" in caught.value.hint


def test_no_two_prompts_begin_alike_however_many_there_are():
    """180 words open the first ones; a prompt shorter than a section would repeat once they are used up."""
    prompts = Prompts(make_job(prompt_tokens=64), Words())
    heads = [tuple(prompts.next().ids) for _ in range(1000)]
    assert len(set(heads)) == 1000
    heads.sort()
    shared = max(
        next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
        for one, other in itertools.pairwise(heads)
    )
    assert prompts.shared_prefix_tokens == shared <= 2


def test_prepared_ids_are_small():
    prompt = Prompts(make_job(prompt_tokens=256), ByteTokenizer()).next()
    assert prompt.packed.itemsize == 4
    assert prompt.ids == list(prompt.packed)
    assert len(prompt.ids) == 256
