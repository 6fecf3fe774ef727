"""Numbers drawn from a name: the same on every machine and in every version of Python.

SHA-256 in counter mode; ``random`` promises the same sequence only for ``random()`` itself.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

_WORD = 1 << 64


class Draw:
    """A sequence of draws that ``key`` alone decides."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._count = 0

    def below(self, limit: int) -> int:
        """Return a whole number from 0 to ``limit`` - 1, each as likely. Raises ``ValueError`` for a limit below 1."""
        if not 0 < limit <= _WORD:
            raise ValueError(f"cannot draw below {limit}")
        while True:
            digest = hashlib.sha256(f"{self._key}#{self._count}".encode()).digest()
            self._count += 1
            word = int.from_bytes(digest[:8], "big")
            if word < _WORD - _WORD % limit:  # what is left over would make small numbers likelier
                return word % limit

    def between(self, least: int, most: int) -> int:
        """Return a whole number from ``least`` to ``most``, both included."""
        return least + self.below(most - least + 1)

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """Return all in another order [Fisher and Yates 1938; Durstenfeld 1964, CACM 7(7)]."""
        order = list(options)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order

    def some(self, count: int, limit: int) -> list[int]:
        """Return ``count`` different whole numbers below ``limit``, in the order drawn.

        The first steps of a shuffle, of which only moved numbers are kept. Raises ``ValueError`` for more than
        there are.
        """
        if count > limit:
            raise ValueError(f"cannot draw {count} different numbers below {limit}")
        moved: dict[int, int] = {}
        drawn = []
        for place in range(count):
            other = self.between(place, limit - 1)
            drawn.append(moved.get(other, other))
            moved[other] = moved.get(place, place)
        return drawn
