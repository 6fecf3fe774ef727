"""Ways to do one kind of work, timed in turn: the fastest is the peak."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, NamedTuple

from perjoule.records import Peak

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perjoule.protocols import Clock

BLOCKS = 5  # every way has its turn in each, so that a passing disturbance meets all of them
_LEAST_REPEATS = 3  # a block
_SIZES = (512, 1024, 2048)  # of square matrices: small ones stay in the cache, large ones occupy many threads
_SLOW_S = 0.002  # a product that takes longer is not tried at twice the size
_NS = 1_000_000_000


class Way(NamedTuple):
    """``run`` does ``amount`` bytes or operations."""

    name: str
    amount: float
    run: Callable[[], object]


def growing(makers: Sequence[Way | Callable[[int], Way] | str], clock: Clock) -> Iterator[Way | str]:
    """Yield ways that are ready, and the others at every size that is not too slow; a string is a reason."""
    for maker in makers:
        if isinstance(maker, Way | str):
            yield maker
            continue
        for size in _SIZES:
            try:
                way = maker(size)
                way.run()
            except NotImplementedError as error:
                yield str(error)
                break
            except Exception as error:  # noqa: BLE001 - a runtime that lacks a kernel may raise anything; it is told
                yield f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
                break
            yield way
            if seconds(way, clock) > _SLOW_S:
                break


def fastest(ways: Sequence[Way | str], *, unit: Any, block_s: float, clock: Clock) -> Peak | str:
    """Run every way in turn and return the fastest by its best block, or why none could be run.

    A block counts by its median repeat: single repeats can be twice as fast as any run keeps up, on a shared host.
    """
    able = [way for way in ways if isinstance(way, Way)]
    if not able:
        return "; ".join(dict.fromkeys(str(way) for way in ways)) or "no way to measure it"
    blocks: dict[str, list[list[float]]] = {way.name: [] for way in able}
    for _ in range(BLOCKS):
        for way in able:
            way.run()  # threads of another library may still spin; what this one needs is fetched
            spent_s: list[float] = []
            while sum(spent_s) < block_s or len(spent_s) < _LEAST_REPEATS:
                spent_s.append(seconds(way, clock))
            blocks[way.name].append([way.amount / each_s for each_s in spent_s])
    best = {name: max(map(statistics.median, found)) for name, found in blocks.items()}
    winner = max(best, key=lambda name: best[name])
    repeats = [rate for block in blocks[winner] for rate in block]
    median = statistics.median(repeats)
    return Peak(
        unit=unit, best=max(best.pop(winner), median), median=median, spread_share=spread(repeats),
        repeats=len(repeats), way=winner, slower=best,
    )  # fmt: skip


def spread(values: Sequence[float]) -> float:
    """Return the interquartile range over the median; 0 for one value."""
    if len(values) < 2:  # noqa: PLR2004 - a spread needs a pair
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / middle


def seconds(way: Way, clock: Clock) -> float:
    start_ns = clock.now_ns()
    way.run()
    return max(1, clock.now_ns() - start_ns) / _NS
