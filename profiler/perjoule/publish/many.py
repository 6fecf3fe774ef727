"""The same work on many files: in this process if they are few, else in one process a core, in order either way."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_WORTH_PROCESSES = 64  # files; fewer are done sooner than a process starts
_AT_ONCE = 128  # files whose outcomes are held in memory, beside those being worked on
_CHUNK = 8

Given = TypeVar("Given")
Made = TypeVar("Made")


def each(work: Callable[[Given], Made], files: Sequence[Given]) -> Iterator[Made]:
    """Yield ``work`` of each file, in order. It has to be a function of a module, or a ``partial`` of one."""
    if len(files) < _WORTH_PROCESSES:
        yield from map(work, files)
        return
    with ProcessPoolExecutor(_cores(), mp_context=get_context("forkserver")) as pool:
        before: Iterable[Made] = ()
        for first in range(0, len(files), _AT_ONCE):
            ahead = pool.map(work, files[first : first + _AT_ONCE], chunksize=_CHUNK)
            yield from before  # one block is worked on while the one before is consumed
            before = ahead
        yield from before


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
