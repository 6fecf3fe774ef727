"""A race while it is run: whose process comes next, who has left, and how it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.progress import order_of_round
from perjoule.race import Score, Standing, score, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perjoule.progress import Progress
    from perjoule.race import Race
    from perjoule.records import RunResult


class Contest:
    """Yields processes round by round; after each round those that fall behind leave. What they showed is kept."""

    def __init__(self, race: Race, seed: int) -> None:
        self.race, self._seed = race, seed
        self.scores: dict[int, Score] = {}  # by index of the configuration
        self.dropped: dict[int, str] = {}
        self.standing = Standing(order=(), dropped={}, over=False)
        self.rounds = 0

    def turns(
        self,
        states: Sequence[Progress],
        so_far: Callable[[Progress, int], RunResult],
        note: Callable[[str], None],
    ) -> Iterator[tuple[Progress, int]]:
        """Yield whose process comes next, and its number.

        ``so_far(state, rounds)`` gives the result of a configuration's first processes: a race that is taken up again
        sees what it saw then, and decides the same.
        """
        field = {s.index for s in states}
        while not self.standing.over:
            for index in order_of_round(self._seed, self.rounds, len(states)):
                if index in field and not states[index].has(self.rounds):
                    yield states[index], self.rounds
            self.rounds += 1
            failed = {s.index for s in states if s.failed is not None}
            field -= failed
            self.scores |= {index: score(so_far(states[index], self.rounds), self.race) for index in field}
            spent_s = sum(s.measuring_s for s in states)
            self.standing = settle(self.race, {i: self.scores[i] for i in field}, self.rounds, spent_s)
            for index, why in self.standing.dropped.items():
                self.dropped[index] = f"after {self.rounds} processes: {why}"
                note(f"{states[index].label} is out {self.dropped[index]}")
            field = set(self.standing.order)
        for state in states:
            state.done = True
