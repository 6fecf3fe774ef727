"""Which results were measured side by side: processes of one run are paired, those of separate runs are not."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from perjoule.compare.gate import judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.records import RunResult


def interleaved(a: RunResult, b: RunResult) -> bool:
    """Say whether the processes of two results took turns in one run, so that equal numbers are a pair.

    They claim the same run: start, machine, command, settings, program. And their stamps bear it out: no two
    processes overlap (one measures at a time, and stamps of one run count from one zero), and every process of a round
    ends before one of the next begins.
    """
    return _claims(a) == _claims(b) and _takes_turns(a, b)


def _claims(result: RunResult) -> tuple[object, ...]:
    s, tool = result.settings, result.tool
    same = (s.seed, s.tdp_w, s.meters, s.calibration, s.pin, s.nice, s.resumed_at_s)
    return result.created_utc, result.host.machine_id, result.reproduce, tool.name, tool.version, same


def _takes_turns(a: RunResult, b: RunResult) -> bool:
    spans = sorted((*_extents(a, 0), *_extents(b, 1)))
    if not spans:
        return False
    disjoint = all(one[1] <= other[0] for one, other in itertools.pairwise(spans))
    rounds = [number for _, _, number, _ in spans]
    return disjoint and rounds == sorted(rounds) and bool(common(a, b))


def _extents(result: RunResult, side: int) -> list[tuple[float, float, int, int]]:
    """Return start, end, number and side of each process, seconds since the run's start."""
    ends: dict[int, float] = {}
    for window in result.windows:
        if window.phase != "idle":
            ends[window.process] = max(ends.get(window.process, 0.0), window.end_s)
    return [(p.start_s, max(p.start_s, ends.get(p.process, 0.0)), p.process, side) for p in result.processes]


def common(a: RunResult, b: RunResult) -> list[int]:
    """Return the numbers of processes that both have, in order."""
    return sorted({p.process for p in a.processes} & {p.process for p in b.processes})


def split_controls(results: Sequence[RunResult]) -> tuple[list[int], list[tuple[int, int]]]:
    """Return which results are compared, and which (A, A') pairs show the noise of the machine.

    An A' whose A is there is a control, unless nothing but the pair is given: then the pair itself is compared.
    """
    pairs: list[tuple[int, int]] = []
    for j, second in enumerate(results):
        if second.settings.control != "A'":
            continue
        for i, first in enumerate(results):
            if first.settings.control == "A" and interleaved(first, second) and _alike(first, second):
                pairs.append((i, j))
                break
    seconds = {j for _, j in pairs}
    kept = [i for i in range(len(results)) if i not in seconds]
    if len(kept) < 2:  # noqa: PLR2004 - nothing to compare it with
        return list(range(len(results))), []
    return kept, pairs


def _alike(a: RunResult, b: RunResult) -> bool:
    return all(d.role == "harmless" for d in judge((a, b), allow_invalid=True).differences)
