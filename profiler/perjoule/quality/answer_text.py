"""What of a model's output is its answer: without thinking, fences, a leading "Answer:", in plain digits."""

# ruff: noqa: RUF001 - signs of full width are what is meant

from __future__ import annotations

import re
import unicodedata

_THINK = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_OPENED = re.compile(r"<think(?:ing)?>\s*\Z", re.IGNORECASE)
_END_OF_TURN = re.compile(r"<\|[a-z_]{2,32}\|>|</s>|<eos>|<end_of_turn>|<｜[^｜]{1,32}｜>", re.IGNORECASE)
_INVISIBLE = dict.fromkeys([0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
_FENCE_LINE = re.compile(r"```[ \t]*[A-Za-z0-9_+-]*[ \t]*(?:\n|$)")
_MARKER = re.compile(
    r"(?:(?:(?:the|my|final|correct)\s+){0,3}answer(?:\s+is)?(?:\s*[:：]|(?<=is)\s)"
    r"|(?:最终|正确|我的)?(?:答案|回答)\s*(?:[:：]|[是为]\s*[:：]?)"
    r"|(?:최종\s*)?(?:정답|답변|답)\s*(?:은|는)?\s*[:：]"
    r"|답\s*=)",
    re.IGNORECASE,
)
_AROUND = " \t\r\n*#>"
_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "「": "」", "『": "』", "«": "»", "《": "》"}
_FULL_STOPS = ".。．!！"
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}


def answer_part(output: str) -> str | None:
    """Return the part of a model's output in which the answer is looked for; None if thinking never ended.

    Thinking is what stands between <think> and </think>; the opening tag may have been in the prompt. What follows an
    end-of-turn token is dropped, as are invisible marks, code fences and a leading "Answer:" (and its Chinese and
    Korean forms). Digits of any script become 0 to 9.
    """
    said = _without_thinking(output)
    if said is None:
        return None
    end = _END_OF_TURN.search(said)
    said = unicodedata.normalize("NFC", (said[: end.start()] if end else said).translate(_INVISIBLE))
    said = plain_digits(said)
    said = _FENCE_LINE.sub("\n", said).replace("```", " ").lstrip(_AROUND)
    if marker := _MARKER.match(said):
        said = said[marker.end() :].lstrip(_AROUND)
    return said


def opened_thought(prompt: str) -> str:
    """Return the tag with which a prompt opens a thought for its answer to go on with, or nothing.

    It belongs before the answer: without it a thought that the limit cut off reads like an answer.
    """
    found = _OPENED.search(prompt)
    return found[0] if found else ""


def first_line(said: str) -> str:
    """Return the first line that is not empty, without marks and quotes around it and without its full stop."""
    line = next((stripped for part in said.splitlines() if (stripped := part.strip(_AROUND))), "")
    while line and line != (bare := _unquoted(line.rstrip(_FULL_STOPS).strip(_AROUND))):
        line = bare
    return line


def plain_digits(text: str) -> str:
    """Return the text with decimal digits of all scripts as 0 to 9; superscripts and circled numbers stay."""
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)


def comparable(text: str) -> str:
    """Return the form in which texts are compared: NFC, half width, single spaces, without regard to case."""
    narrow = unicodedata.normalize("NFC", plain_digits(text).translate(_FULL_WIDTH))
    return " ".join(narrow.split()).casefold()


def _without_thinking(output: str) -> str | None:
    kept, at, inside = "", 0, False
    for tag in _THINK.finditer(output):
        if tag[1]:
            # a closing tag alone: the prompt opened it, so that all before was thinking
            kept, inside = (kept if inside else ""), False
        elif not inside:
            kept, inside = kept + output[at : tag.start()], True
        at = tag.end()
    return None if inside else kept + output[at:]


def _unquoted(line: str) -> str:
    closing = _QUOTES.get(line[:1])
    return line[1:-1] if closing is not None and len(line) > 1 and line.endswith(closing) else line
