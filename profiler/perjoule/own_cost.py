"""What measuring costs: CPU time of the harness beside a loop that only sleeps, and the time to read meters."""

from __future__ import annotations

import gc
import statistics
from typing import TYPE_CHECKING

from perjoule import registry
from perjoule.load.single_stream import observe_request
from perjoule.meters import build
from perjoule.meters.guard import GuardedMeter
from perjoule.protocols import EngineOptions
from perjoule.records import UNSET, Reason, Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from perjoule.protocols import Clock

PACE_S = 0.020  # a token each 20 ms: what the harness may cost is said for this pace
NULL_TOKENS, FLOOR_TOKENS = 100, 50  # two seconds of the null engine, one second of the bare loop before and after
READS, READ_BUDGET_S = 200, 0.25
_NS = 1_000_000_000


class HarnessCost(Record, frozen=True, kw_only=True):
    """CPU seconds a token of the paced null engine, beside a loop that only sleeps (before and after it).

    Shares are of one core at a token each ``pace_s``.
    """

    tokens: int
    pace_s: float
    token_cpu_s: float
    floor_cpu_s: tuple[float, float]
    harness_share: float
    floor_share: float


class ReadCost(Record, frozen=True, kw_only=True):
    """Median seconds to read every open meter once, and to read the null meter the same way."""

    reads: int
    domains: int
    read_s: float
    null_read_s: float
    watching_share: float | None  # CPU time of this process while idle power was read, share of one core
    watching_share_missing: Reason = UNSET


def read_time(read: Callable[[], object], clock: Clock) -> tuple[float, int]:
    """Return the median seconds of one reading, and of how many."""
    spent_ns: list[int] = []
    while len(spent_ns) < READS and sum(spent_ns) < READ_BUDGET_S * _NS:
        start_ns = clock.now_ns()
        read()
        spent_ns.append(clock.now_ns() - start_ns)
    return statistics.median(spent_ns) / _NS, len(spent_ns)


def null_read_time(clock: Clock) -> float:
    """Return the median seconds to read the null meter behind the guard that every meter has."""
    null = GuardedMeter("null", build("null"))
    try:
        return read_time(null.read, clock)[0]
    finally:
        null.close()


def harness_cost(clock: Clock) -> HarnessCost:
    """Run the null engine as a worker would, between two stretches of a loop that only sleeps."""
    backend = registry.load("perjoule.backends", "null")(clock)
    options = EngineOptions(context_tokens=2 * NULL_TOKENS, extra={"ttft_s": PACE_S, "itl_s": PACE_S})
    engine = backend.load(backend.prepare("null", options, lambda _text, _share: None), options)
    gc.collect()
    before = _floor(clock)
    seen = observe_request(engine, clock, [0], NULL_TOKENS)
    floor = (before, _floor(clock))
    engine.close()
    token_s = (seen.end_cpu_ns - seen.start_cpu_ns) / _NS / NULL_TOKENS
    return HarnessCost(
        tokens=NULL_TOKENS, pace_s=PACE_S, token_cpu_s=token_s, floor_cpu_s=floor,
        harness_share=token_s / PACE_S, floor_share=statistics.mean(floor) / PACE_S,
    )  # fmt: skip


def _floor(clock: Clock) -> float:
    """Return CPU seconds of one turn of a loop that only sleeps: what waking up costs on this machine."""
    sleep, start_ns = clock.sleep, clock.cpu_ns()
    for _ in range(FLOOR_TOKENS):
        sleep(PACE_S)
    return (clock.cpu_ns() - start_ns) / _NS / FLOOR_TOKENS
