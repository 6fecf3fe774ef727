"""Engines on a simulated clock, whose times are known exactly: what a queue in front of them must show follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from traces import SimulatedClock

    from perjoule.load.serve import Tally
    from perjoule.protocols import OnToken


class OneByOne:
    """Takes ``seconds()`` to the first token of a request, and ``itl_s`` to each further one."""

    def __init__(self, clock: SimulatedClock, seconds: Callable[[], float], itl_s: float = 0.0) -> None:
        self._clock, self._seconds, self._itl_s = clock, seconds, itl_s
        self.prompts: list[Sequence[int]] = []

    def generate(
        self, prompt_ids: Sequence[int], max_new_tokens: int, stop: frozenset[int], on_token: OnToken
    ) -> str:  # fmt: skip
        assert not stop
        self.prompts.append(prompt_ids)
        for index in range(max_new_tokens):
            self._clock.advance(self._itl_s if index else self._seconds())
            on_token(index)
        return "length"


class Together:
    """A prefill takes ``prefill_s`` (or as many as its prompt has tokens), a step ``step_s`` for all places."""

    def __init__(self, clock: SimulatedClock, places: int, prefill_s: float, step_s: float) -> None:
        self._clock, self._places, self._prefill_s, self._step_s = clock, places, prefill_s, step_s
        self.inside: list[int] = []  # the first id of each prompt, by place
        self.most = 0
        self.log: list[str] = []

    def add(self, prompt_ids: Sequence[int]) -> int:
        self._clock.advance(self._prefill_s)
        self.inside.append(prompt_ids[0])
        self.log.append(f"+{prompt_ids[0]}")
        self.most = max(self.most, len(self.inside))
        assert self.most <= self._places
        return 0

    def step(self) -> Sequence[int]:
        assert self.inside, "a step with nobody inside"
        self._clock.advance(self._step_s)
        self.log.append("." * len(self.inside))
        return [0] * len(self.inside)

    def remove(self, place: int) -> None:
        self.log.append(f"-{self.inside[place]}")
        last = self.inside.pop()
        if place < len(self.inside):
            self.inside[place] = last


def prompts(count: int, tokens: int = 1) -> list[list[int]]:
    """Return prompts that are told apart by their ids."""
    return [[index] * tokens for index in range(count)]


def waits_s(tally: Tally) -> list[float]:
    return [(a.start_ns - a.due_ns) / 1e9 for a in tally.answers]


def stamps_s(tally: Tally) -> list[tuple[float, ...]]:
    """Return seconds from the start of the load, to the microsecond: due, begun, ended, by request."""
    return [
        tuple(round((at_ns - tally.start_ns) / 1e9, 6) for at_ns in (a.due_ns, a.start_ns, a.token_ns[-1]))
        for a in sorted(tally.answers, key=lambda a: a.index)
    ]
