"""Sequences that join and leave a batch in any order, for the batch of every engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

if TYPE_CHECKING:
    from perjoule.protocols import Batch

Event = tuple[int, ...] | int | str
Seated = list[tuple[tuple[int, ...], list[int]]]


def comings_and_goings(vocabulary: int, places: int, longest: int) -> st.SearchStrategy[list[Event]]:
    """Return lists of events: a prompt that joins, a place that is left, or ``step``."""
    prompt = st.lists(st.integers(0, vocabulary - 1), min_size=1, max_size=longest).map(tuple)
    return st.lists(st.one_of(prompt, st.integers(0, places - 1), st.just("step"), st.just("step")), max_size=30)


def seat(batch: Batch, places: int, events: list[Event]) -> Seated:
    """Play the events; return each prompt that was ever seated, with the tokens that it said."""
    seated: Seated = []
    gone: Seated = []
    for event in events:
        if isinstance(event, tuple):
            if len(seated) < places:
                seated.append((event, [batch.add(event)]))
        elif isinstance(event, int):
            if event < len(seated):
                batch.remove(event)
                gone.append(seated[event])
                last = seated.pop()
                if event < len(seated):
                    seated[event] = last
        else:
            for (_prompt, said), token in zip(seated, batch.step(), strict=True):
                said.append(token)
    return seated + gone
