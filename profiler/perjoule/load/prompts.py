"""Deterministic prompts: the same text for the same corpus, seed, process and index, on every machine."""

from __future__ import annotations

import hashlib
import random
from functools import cache
from importlib.resources import files

from perjoule.errors import InputError

_PACKAGE = "perjoule_scenarios"  # reached by name: perjoule does not import it
_OPENINGS = "openings"
_ROUNDS = 2  # how often a prompt repeats the sections, at least; the order differs each time


def corpora() -> list[str]:
    """Return the names of the corpora that ship."""
    found = (entry.name for entry in files(_PACKAGE).joinpath("corpora").iterdir())
    return sorted(n.removesuffix(".txt") for n in found if n.endswith(".txt") and n != f"{_OPENINGS}.txt")


def corpus_sha256(corpus: str) -> str:
    """Return the digest of what the prompts of ``corpus`` are made from: its text and the opening words."""
    return hashlib.sha256((_text(_OPENINGS) + "\0" + _corpus_text(corpus)).encode()).hexdigest()


def prompt_text(corpus: str, seed: int, process: int, index: int, least_words: int = 0) -> str:
    """Return the prompt of request ``index`` of a process: at least ``least_words`` words, to be cut by the caller.

    Each starts with another word until the list of openings is used up; from then on with another pair of words,
    later another three: a section is longer than a short prompt, so its place alone would not tell two apart. It
    goes on with the corpus' sections in another order. So no prefix cache can answer one request with another's
    work. Raises ``InputError`` for an unknown corpus.
    """
    sections = _corpus_text(corpus).strip().split("\n\n")
    openings = _text(_OPENINGS).split()
    cycle, place = divmod(index, len(openings))
    opening = [_shuffled(openings, f"{seed}/{process}/openings/{cycle}")[place]]
    while cycle:
        cycle, place = divmod(cycle, len(openings))
        opening.append(openings[place])
    parts = [" ".join(opening)]
    words = len(_corpus_text(corpus).split())
    for turn in range(max(_ROUNDS, -(-least_words // words))):
        parts += _shuffled(sections, f"{seed}/{process}/{index}/{turn}")
    return "\n\n".join(parts)


def _shuffled(items: list[str], key: str) -> list[str]:
    generator = random.Random(key)  # noqa: S311 - an order of text, not a secret
    return sorted(items, key=lambda _: generator.random())


@cache
def _corpus_text(corpus: str) -> str:
    if corpus not in corpora():
        raise InputError(f"unknown corpus {corpus!r}", hint=f"known: {', '.join(corpora())}")
    return _text(corpus)


@cache
def _text(name: str) -> str:
    return files(_PACKAGE).joinpath("corpora", f"{name}.txt").read_text(encoding="utf-8")
