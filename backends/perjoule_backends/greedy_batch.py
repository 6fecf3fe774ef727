"""Sequences that decode together: who sits at which place of an engine's cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from perjoule.errors import EngineError, InputError
from perjoule_backends.refusals import refuse_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class Places(Protocol):
    """What an engine runs at the places of its cache."""

    @property
    def places(self) -> int:
        """How many sequences the cache holds."""

    @property
    def capacity(self) -> int:
        """How many tokens of each."""

    def prefill(self, place: int, prompt_ids: Sequence[int]) -> NDArray[np.float32]:
        """Run a prompt at an empty place; return logits of its last token, shape (vocabulary,)."""

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> NDArray[np.float32]:
        """Run one token at each of the first places, where ``positions`` tokens stand before it.

        Returns logits, shape (len(tokens), vocabulary).
        """

    def move(self, source: int, target: int, positions: int) -> None:
        """Let the sequence of ``positions`` tokens at ``source`` stand at ``target`` instead of what stood there."""

    def forget(self, place: int) -> None:
        """Empty the last place that is taken."""


class GreedyBatch:
    """Greedy sequences at places 0, 1, ... of the cache. A place that falls empty is filled by the last sequence.

    So the sequences of a pass always lie side by side: one pass computes them together.
    """

    def __init__(self, engine: Places) -> None:
        self._engine = engine
        self._positions: list[int] = []  # of each sequence that stand in the cache
        self._tokens: list[int] = []  # the last one of each sequence, which does not
        self._ended = False

    def add(self, prompt_ids: Sequence[int]) -> int:
        """Prefill one more sequence and return its first token.

        Raises ``InputError`` where all places are taken or the prompt does not fit the context.
        """
        self._refuse_if_ended()
        place, engine = len(self._tokens), self._engine
        if place == engine.places:
            raise InputError(
                f"the batch holds {place} sequence(s) and all places are taken",
                hint="load the engine with a larger batch, or remove a sequence first",
            )
        refuse_length(prompt_ids, engine.capacity)
        token = int(engine.prefill(place, prompt_ids).argmax())
        self._positions.append(len(prompt_ids))
        self._tokens.append(token)
        return token

    def step(self) -> Sequence[int]:
        """Return the next token of every sequence, by place.

        Raises ``InputError`` where the context of one is full; no sequence has moved then.
        """
        self._refuse_if_ended()
        if not self._tokens:
            return []
        most = max(self._positions)
        if most >= self._engine.capacity:
            raise InputError(
                f"the sequence at place {self._positions.index(most)} fills its context of "
                f"{self._engine.capacity} tokens",
                hint="remove it before the next step, or load with a larger context",
            )
        self._tokens = self._engine.decode(self._tokens, self._positions).argmax(axis=1).tolist()
        self._positions = [position + 1 for position in self._positions]
        return self._tokens.copy()

    def remove(self, place: int) -> None:
        """End the sequence at ``place``; the last one takes its place. Raises ``InputError`` where none is."""
        self._refuse_if_ended()
        last = len(self._tokens) - 1
        if not 0 <= place <= last:
            raise InputError(
                f"no sequence has place {place}: the batch holds {last + 1}", hint="places are counted from 0"
            )
        positions, token = self._positions.pop(), self._tokens.pop()
        if place == last:
            self._engine.forget(last)
            return
        self._engine.move(last, place, positions)
        self._positions[place], self._tokens[place] = positions, token

    def end(self) -> None:
        """Refuse all further use: the places belong to others now."""
        self._ended = True

    def _refuse_if_ended(self) -> None:
        if self._ended:
            raise EngineError(
                "this batch has ended: the engine was asked for another one, or to generate alone",
                hint="ask the engine for a new batch",
            )
