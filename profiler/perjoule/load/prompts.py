"""Prompt texts: each begins with different words, so that no prefix cache can answer for the engine."""

from __future__ import annotations

import random
from functools import cache
from importlib.resources import files

from perjoule.errors import InputError

_PACKAGE = "perjoule_scenarios"


def prompt_text(corpus: str, seed: int, process: int, index: int) -> str:
    """Return the text of one prompt: the corpus's paragraphs in an order of its own, behind a unique opening.

    The same arguments give the same text on every machine. The worker cuts it to the tokens it needs.
    """
    paragraphs = list(_paragraphs(corpus))
    order = random.Random(f"{seed}/{process}/{index}")  # noqa: S311 - reproducible prompts, not secrets
    order.shuffle(paragraphs)
    opening = order.choice(paragraphs).split(". ")[0].split()
    order.shuffle(opening)
    return f"{order.randrange(10**6)} {' '.join(opening)}. " + "\n\n".join(paragraphs)


@cache
def _paragraphs(corpus: str) -> tuple[str, ...]:
    source = files(_PACKAGE).joinpath("corpora", f"{corpus}.txt")
    if not source.is_file():
        raise InputError(f"unknown corpus {corpus!r}", hint="see the corpora that ship with the scenarios")
    return tuple(line for line in source.read_text(encoding="utf-8").splitlines() if line.strip())
