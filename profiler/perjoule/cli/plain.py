"""One line of text for a terminal, whatever a file name or a file has put into it."""

from __future__ import annotations

from perjoule.render.plain import printable

_LONGEST = 4000


def one_line(text: str) -> str:
    """Return the text with everything that a terminal would obey made visible, line ends too, and not endless."""
    shown = printable(text).replace("\n", "\\n")
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
