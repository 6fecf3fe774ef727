"""How small a difference this machine can show: the same work in fresh processes, A and B in turn (A-A control)."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import TYPE_CHECKING

from perjoule.records import Record
from perjoule.roofline import caches, jobs
from perjoule.roofline.process import ask
from perjoule.stats.intervals import CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROCESSES = 10
SECONDS = 0.3  # of work a process
QUICK_PROCESSES = 5  # fresh processes of a quick run, docs/method.md
_LEAST = 4  # processes without which a spread says nothing


class NoiseFloor(Record, frozen=True, kw_only=True):
    """Median seconds of one round of fixed work, one value a fresh process, in the order they ran: A, B, A, ...

    ``spread_share`` is the standard deviation between processes over their mean. ``a_over_b`` would be 1 on a machine
    without noise. ``half_width_share`` is that of the 95 % interval which a comparison of ``processes_compared``
    interleaved pairs of processes would have here: a smaller difference cannot be told apart.
    """

    threads: int
    rounds: int
    round_s: tuple[float, ...]
    spread_share: float
    a_over_b: float
    processes_compared: int
    half_width_share: float


def measure_noise_floor(threads: int, tell: Callable[[str], None] = lambda _text: None) -> NoiseFloor | str:
    """Run the processes (about six seconds) and return the noise floor, or why there is none."""
    size = caches.buffer_bytes(caches.last_level_bytes())
    first = ask(jobs.WorkJob(threads=threads, buffer_bytes=size, rounds=0, seconds=SECONDS))
    if not isinstance(first, jobs.WorkDone):
        return _why(first)
    seen: list[float] = []
    for number in range(PROCESSES):
        tell(f"the same work twice: process {number + 1} of {PROCESSES}")
        done = ask(jobs.WorkJob(threads=threads, buffer_bytes=size, rounds=first.rounds, seconds=0.0))
        if not isinstance(done, jobs.WorkDone):
            return _why(done)
        seen.append(done.round_s)
    return noise_floor(seen, threads=threads, rounds=first.rounds)


def _why(answer: jobs.Answer | str) -> str:
    return answer if isinstance(answer, str) else "the kernel process answered another question"


def noise_floor(round_s: Sequence[float], *, threads: int, rounds: int) -> NoiseFloor | str:
    """Return what the processes show. ``round_s``: one value above 0 each, in order, A and B in turn.

    A pair of interleaved processes differs by the log-ratio of neighbours; its variance is the mean of their squares
    (von Neumann et al. 1941, doi:10.1214/aoms/1177731746), which a slow drift hardly raises. The half-width is
    exp(t x s / sqrt n) - 1 with Student's t of n - 1 degrees of freedom, as the comparison itself will have.
    """
    if len(round_s) < _LEAST or min(round_s) <= 0:
        return f"{_LEAST} processes that took time are needed, there are {sum(x > 0 for x in round_s)}"
    from scipy.special import stdtrit  # noqa: PLC0415 - heavy; only once something was measured

    logs = [math.log(x) for x in round_s]
    pair = math.sqrt(statistics.fmean((b - a) ** 2 for a, b in itertools.pairwise(logs)))
    quantile = float(stdtrit(QUICK_PROCESSES - 1, (1 + CONFIDENCE) / 2))
    return NoiseFloor(
        threads=threads, rounds=rounds, round_s=tuple(round_s),
        spread_share=statistics.stdev(round_s) / statistics.fmean(round_s),
        a_over_b=math.exp(statistics.fmean(logs[0::2]) - statistics.fmean(logs[1::2])),
        processes_compared=QUICK_PROCESSES,
        half_width_share=math.expm1(quantile * pair / math.sqrt(QUICK_PROCESSES)),
    )  # fmt: skip
