"""The prompts of one process, cut to size and known by their digests."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect, insort
from typing import TYPE_CHECKING

from perjoule.errors import InputError
from perjoule.load.prompts import prompt_text
from perjoule.protocols import ChatTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule import messages
    from perjoule.protocols import Engine, Tokenizer

_CHARACTERS, _MARGIN = 8, 32  # of text a token, nearly twice what it takes; tokens that the cut may change
_HEAD = 64  # tokens: two prompts that share as many are as good as the same to a prefix cache


class Prompt:
    """One prompt; its ids are kept in four bytes each, since a long load prepares them all."""

    __slots__ = ("ids_sha256", "index", "packed", "text_sha256")

    def __init__(self, index: int, text: str, ids: list[int]) -> None:
        self.index = index
        self.packed = array("i", ids)
        self.text_sha256 = hashlib.sha256(text.encode()).hexdigest()
        self.ids_sha256 = hashlib.sha256(b"".join(i.to_bytes(4, "little") for i in ids)).hexdigest()

    @property
    def ids(self) -> list[int]:
        return self.packed.tolist()


class Prompts:
    """The prompts of one process: each starts differently, so that no prefix cache can help."""

    def __init__(self, job: messages.MeasureJob, tokenizer: Tokenizer) -> None:
        self._job = job
        self._tokenizer = tokenizer
        self._seen: list[array[int]] = []  # beginnings, sorted: the closest one is a neighbour
        self._count = 0
        self.shared_prefix_tokens = 0

    def next(self) -> Prompt:
        job, index = self._job, self._count
        text = prompt_text(job.corpus, job.seed, job.process, index, least_words=job.prompt_tokens)
        ids = self._ids(text)
        if len(ids) < job.prompt_tokens:
            raise InputError(
                f"corpus {job.corpus!r} gives a prompt of {len(ids)} tokens; the scenario asks for {job.prompt_tokens}",
                hint="use a longer corpus, or --set prompt_tokens=N",
            )
        head = array("i", ids[:_HEAD])
        at = bisect(self._seen, head)
        for earlier in self._seen[max(0, at - 1) : at + 1]:
            self.shared_prefix_tokens = max(self.shared_prefix_tokens, _shared_prefix(earlier, head))
        insort(self._seen, head)
        self._count += 1
        return Prompt(index, text, ids)

    def _ids(self, text: str) -> list[int]:
        """Return the first tokens of ``text``: of its beginning where that is long enough, ten times as fast.

        Tokens are made from left to right, or word by word, so only those at the cut differ.
        """
        count = self._job.prompt_tokens
        cut = text.find("\n\n", _CHARACTERS * (count + _MARGIN))
        ids = self._tokenizer.encode(text[:cut]) if cut > 0 else []
        return (ids if len(ids) >= count + _MARGIN else self._tokenizer.encode(text))[:count]


def asked_prompts(questions: Sequence[messages.Question], engine: Engine, *, first_index: int) -> list[Prompt]:
    """Return the prompt of each question, rendered in the model's chat template where it is one of a conversation.

    Raises ``InputError`` where the model or the engine has no template, or that no switch for thinking.
    """
    tokenizer = engine.tokenizer
    in_chat = [_conversation(q) for q in questions if q.chat]
    if in_chat and not isinstance(tokenizer, ChatTokenizer):
        raise InputError("this engine renders no chat template", hint="use a backend that does, such as onnxruntime")
    ids: list[list[int]] = []
    if isinstance(tokenizer, ChatTokenizer) and in_chat:
        ids = tokenizer.chat_ids(in_chat, thinking=questions[0].thinking)
    rendered = iter(ids)
    return [
        Prompt(first_index + n, q.prompt, next(rendered) if q.chat else tokenizer.encode(q.prompt))
        for n, q in enumerate(questions)
    ]


def _conversation(question: messages.Question) -> list[dict[str, str]]:
    system = [] if question.system is None else [{"role": "system", "content": question.system}]
    return [*system, {"role": "user", "content": question.prompt}]


def _shared_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
