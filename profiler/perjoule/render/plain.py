"""Text from results and files is not ours: strip what a terminal would obey instead of show."""

from __future__ import annotations

import unicodedata

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")  # control, format (bidi tricks), surrogate, private, line breaks


def printable(text: str) -> str:
    r"""Replace every character that a terminal or browser would act on by its code point, as ``\\u202e``."""
    return "".join(f"\\u{ord(c):04x}" if unicodedata.category(c) in _HIDDEN and c != "\n" else c for c in text)
