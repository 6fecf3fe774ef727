"""How far a run is: where each configuration stands, whose process comes next, and who wants to know."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Protocol

from perjoule.stats.steering import decide

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from perjoule.errors import EngineError, HostError
    from perjoule.measure import ProcessRun
    from perjoule.plan import Configuration
    from perjoule.protocols import Prepared
    from perjoule.records import RunResult


class Listener(Protocol):
    """Who wants to know how far the run is; every call returns at once."""

    def configuration(self, label: str) -> None: ...
    def phase(self, label: str, text: str, share: float | None, left_s: float | None) -> None: ...
    def finished(self, path: Path, result: RunResult) -> None: ...
    def note(self, text: str) -> None: ...


class Progress:
    """Where one configuration stands: what is measured so far, and what it has cost."""

    def __init__(
        self, index: int, configuration: Configuration, label: str, prepared: Prepared, *, racing: bool = False
    ) -> None:
        self.index, self.label = index, label
        self.configuration = configuration
        self.prepared = prepared
        self._racing = racing  # then the race decides who is done
        self.runs: list[ProcessRun] = []
        self.measuring_s = 0.0
        self.done = False
        self.failed: EngineError | None = None  # its process did
        self.misplaced: HostError | None = None  # its result could not be written where it should be

    def add(self, run_: ProcessRun, measuring_s: float) -> None:
        self.runs.append(run_)
        self.measuring_s += measuring_s
        if self._racing:
            return
        samples = tuple(s for run in self.runs for s in run.samples)
        windows = tuple(w for run in self.runs for w in run.windows)
        processes = tuple(run.record for run in self.runs)
        spans = tuple(s for run in self.runs for s in run.spans)
        self.done = decide(samples, windows, processes, self.configuration.scenario, self.measuring_s, spans).stop

    def has(self, number: int) -> bool:
        return any(run.record.process == number for run in self.runs)

    @property
    def complete(self) -> bool:
        return self.done and self.failed is None

    @property
    def left_s(self) -> float | None:
        if not self.runs:
            return None
        missing = max(1, self.configuration.scenario.min_processes - len(self.runs))
        return 0.0 if self.done else missing * self.measuring_s / len(self.runs)


def order_of_round(seed: int, number: int, configurations: int) -> list[int]:
    """Return the order in which process ``number`` of each configuration is run; the same whenever it is asked for."""
    order = list(range(configurations))
    random.Random(f"{seed}:{number}").shuffle(order)  # noqa: S311 - the order of runs, not a secret
    return order


def turns(states: Sequence[Progress], seed: int) -> Iterator[tuple[Progress, int]]:
    """Yield whose process comes next, and its number: one of each unfinished configuration a round."""
    number = 0
    while not all(s.done for s in states):
        for index in order_of_round(seed, number, len(states)):
            if not states[index].done and not states[index].has(number):
                yield states[index], number
        number += 1


def place_of(measured: int, least: int) -> str:
    """Name a process by its place; beyond the least, more are added for the interval's sake."""
    if measured < least:
        return f"process {measured + 1} of at least {least}"
    return f"process {measured + 1}, to narrow the interval"
