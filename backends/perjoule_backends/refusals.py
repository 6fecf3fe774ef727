"""What every engine refuses in the same words, and how it says what its library raised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence


def refuse_length(prompt_ids: Sequence[int], context: int) -> None:
    """Raise ``InputError`` for a prompt that is empty or longer than the context (tokens)."""
    if not 0 < len(prompt_ids) <= context:
        raise InputError(
            f"the prompt has {len(prompt_ids)} tokens; the context holds 1 to {context}",
            hint="shorten the prompt or load with a larger context",
        )


def first_line(error: Exception) -> str:
    """Return what an engine's own exception says, in one line of at most 200 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
