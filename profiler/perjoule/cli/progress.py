"""Progress on standard error, the summary on standard output."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from perjoule.cli.plain import one_line
from perjoule.clock import MonotonicClock
from perjoule.render.text import summary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.progress import TaskID

    from perjoule.cli.cost import CostOptions
    from perjoule.records import RunResult
    from perjoule.tuning import Tuning

_REDRAW_NS = 100_000_000


class TerminalListener:
    """Shows one line that moves on a terminal; elsewhere one plain line per process."""

    def __init__(self, console: Console, progress: Progress | None) -> None:
        self._console, self._progress = console, progress
        self._task: TaskID | None = progress.add_task("starting", total=1.0) if progress else None
        self._said = ""
        self._clock, self._drawn_ns = MonotonicClock(), 0
        self.results: list[RunResult] = []
        self.paths: list[Path] = []

    def configuration(self, label: str) -> None:
        self.note(f"preparing {label}")

    def phase(self, label: str, text: str, share: float | None, left_s: float | None) -> None:
        left = f", about {left_s:.0f} s left" if left_s else ""
        line = one_line(f"{label}: {text}{left}")
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=line, completed=share or 0.0)
            if self._clock.now_ns() - self._drawn_ns >= _REDRAW_NS or share is None:
                self._drawn_ns = self._clock.now_ns()
                self._progress.refresh()
            return
        step = one_line(f"{label}: {text.split(':', maxsplit=1)[0]}")
        if step != self._said:
            self._said = step
            self._console.print(step, highlight=False, markup=False, soft_wrap=True)

    def finished(self, path: Path, result: RunResult) -> None:
        self.results.append(result)
        self.paths.append(path)

    def note(self, text: str) -> None:
        self._console.print(one_line(text), highlight=False, markup=False, soft_wrap=True)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave the answer to the command line: a reader that has seen enough is no error."""
        raise BrokenPipeError


@contextmanager
def listener() -> Iterator[TerminalListener]:
    console = _Console(stderr=True, no_color="NO_COLOR" in os.environ)
    if not console.is_terminal:
        yield TerminalListener(console, None)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=20))
    # No thread that redraws: while a request is measured this process sleeps. Each phase draws once.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        yield TerminalListener(console, progress)


def print_summary(results: list[RunResult], paths: list[Path], cost: CostOptions) -> None:
    console = _Console(no_color="NO_COLOR" in os.environ, width=None if sys.stdout.isatty() else 100)
    console.print(summary(results))
    for line in (line for result in results for line in cost.lines(result)):
        console.print(line, highlight=False, markup=False)
    for path in paths:
        console.print(f"written: {path}", highlight=False, markup=False, soft_wrap=True)


def print_tuning(found: Tuning, paths: list[Path]) -> None:
    from perjoule.render.tune import race  # noqa: PLC0415

    console = _Console(no_color="NO_COLOR" in os.environ, width=None if sys.stdout.isatty() else 120)
    console.print(race(found))
    for path in paths:
        console.print(f"written: {path}", highlight=False, markup=False, soft_wrap=True)
