"""The first number of a text, as a decimal, or why there is none.

Read: 1234, 1,234.50, 1 234 (with a no-break space), 1,23,456, .5, -3, $5, 5 kg, 5%; signs before and units after are
not looked at. Of an equation that starts with the first number (3 + 4 = 7) the right-hand side counts. Not read, so
that the answer is wrong: 12,5 (decimal comma or two numbers?), 1/2, 3-4, 12:30, 1e5, and numbers that a word
multiplies (5 thousand, 5k, 5万). Skipped: numbers in names (HX-5, x5) and ordinals (1st).
"""

# ruff: noqa: RUF001 - signs of full width are what is meant

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

_NUMBER = re.compile(
    r"(?:\d{1,3}(?P<group>[,，\u00a0\u2009\u202f'’\u066c])\d{3}(?:(?P=group)\d{3})*(?!\d)"
    r"|\d{1,2}(?:,\d\d)+,\d{3}(?!\d)"
    r"|\d+)(?:[.\u066b]\d+)?"
    r"|(?<![\d.])\.\d+"
)
_BETWEEN = r"[ \t()$€£¥￥₩₹]*"
_OPERATION = re.compile(rf"{_BETWEEN}(?:[+\-−–×xX*·÷/]|\\times|\\cdot|\\div){_BETWEEN}")
_CODES = "(?:USD|US|EUR|CNY|RMB|KRW|JPY|GBP|INR|Rs)"
_EQUALS = re.compile(rf"[ \t()]*={_BETWEEN}\**(?:{_CODES}{_BETWEEN})?[-−]?[$€£¥￥₩₹]?")
_MINUS = re.compile(r"(?:(?<![A-Za-z0-9)\]])[-−][$€£¥￥₩₹]?|(?:minus|negative|负|負|마이너스)\s*)$", re.IGNORECASE)
_IN_A_NAME = re.compile(r"[A-Za-z][_-]?$")
_CURRENCY = re.compile(rf"(?<![A-Za-z]){_CODES}$")
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")
_MORE = re.compile(r"[.,\u066b\u066c]\d|\s*[/／]\s*\d|[-–~:：]\d|[eE][+-]?\d")
_TIMES = re.compile(
    r"\s*(?:hundred|thousand|million|billion)\b|\s?[kKM](?![A-Za-z])|\s*[百万萬亿億]|\s*千(?![米克瓦卡])|[백천만억조]"
)
_MOST_DIGITS = 40


class Found(NamedTuple):
    """``value`` is None with a ``reason``. ``end``: where the number ends in the text."""

    value: Decimal | None
    end: int
    reason: str = ""


def first_number(text: str) -> Found:
    """Return the first number of a text; digits must be 0 to 9."""
    match = next((m for m in _NUMBER.finditer(text) if _stands_alone(text, m)), None)
    if match is None:
        return Found(None, len(text), "no number")
    while (right := _right_hand_side(text, match)) is not None:
        match = right
    after = text[match.end() :]
    if len(match[0]) > _MOST_DIGITS:
        return Found(None, match.end(), "a number of absurd length")
    if more := _MORE.match(after):
        return Found(None, match.end(), f"not one plain number: {match[0]}{more[0]}")
    if times := _TIMES.match(after):
        return Found(None, match.end(), f"a number times a word: {match[0]}{times[0]}")
    if (operation := _OPERATION.match(after)) and _NUMBER.match(after, operation.end()):
        return Found(None, match.end(), "a sum that was not worked out")
    value = Decimal(_digits(match))
    negative = _MINUS.search(text, max(0, match.start() - 16), match.start())
    return Found(-value if negative else value, match.end())


def as_number(text: str) -> Decimal | None:
    """Return the decimal of a text that is one number and nothing else but a sign of currency; else None."""
    bare = text.strip().lstrip("$€£¥￥₩₹").strip()
    sign = -1 if bare[:1] in "-−" and bare else 1
    match = _NUMBER.fullmatch(bare[1:].lstrip() if sign < 0 else bare)
    return sign * Decimal(_digits(match)) if match and len(bare) <= _MOST_DIGITS else None


def _digits(match: re.Match[str]) -> str:
    return re.sub(r"[^\d.]", "", match[0].replace("\u066b", "."))


def _stands_alone(text: str, match: re.Match[str]) -> bool:
    before = text[max(0, match.start() - 8) : match.start()]
    if _IN_A_NAME.search(before) and not _CURRENCY.search(before):
        return False
    return not _ORDINAL.match(text, match.end())


def _right_hand_side(text: str, match: re.Match[str]) -> re.Match[str] | None:
    """Return the number after the equals sign if ``match`` begins a sum or product of numbers that has one."""
    at, operations = match.end(), 0
    while operation := _OPERATION.match(text, at):
        following = _NUMBER.match(text, operation.end())
        if following is None:
            return None
        at, operations = following.end(), operations + 1
    equals = _EQUALS.match(text, at)
    return _NUMBER.match(text, equals.end()) if equals and operations else None
