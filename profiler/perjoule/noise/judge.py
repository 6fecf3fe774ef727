"""Whether a request was disturbed: judged from what its windows recorded, so that anybody can judge it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.records import UNSET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from perjoule.records import Window

# Rejection limits of docs/method.md. CPU: shares of all visible cores' time; memory: share of the window.
MAX_FOREIGN_SHARE = 0.02
MAX_STEAL_SHARE = 0.01
MAX_MEMORY_PRESSURE_SHARE = 0.01
MAX_CLOCK_JUMP_S = 0.05
# The kernel shows CPU times in whole ticks, each kind rounded down by itself: at the end of a stretch user and system
# time may each show almost a tick more than they grew by. Steal is one kind.
FOREIGN_TICKS, STEAL_TICKS = 2, 1


def rejection(windows: Sequence[Window], cores: int) -> str | None:
    """Return by what a request was disturbed; judged as a whole, since one window is a few ticks of the kernel's clock.

    ``cores`` are those of the whole machine (``host.cpu.threads`` of a result). What was not read disturbs nobody.
    Waiting for a CPU is no reason: our own threads do. Nor is waiting for a disk: nothing of ours is read in a window,
    unless memory is short, and that is a reason.
    """
    return next(_disturbances(windows, cores), None)


def foreign_seconds(windows: Sequence[Window]) -> float:
    """Return CPU seconds of others; where ticks fell short of our own exact time, that is taken off again."""
    return sum((w.foreign_cpu_s or 0.0) - (w.cpu_undercount_s or 0.0) for w in windows)


def ticks_s(windows: Sequence[Window]) -> float:
    """Return the resolution of CPU times; 0 where a file does not say it, as before it was recorded."""
    return max((w.cpu_tick_s or 0.0 for w in windows), default=0.0)


def _disturbances(windows: Sequence[Window], cores: int) -> Iterator[str]:
    span_s, tick_s = sum(w.duration_s for w in windows), ticks_s(windows)
    capacity_s = cores * span_s
    foreign_s = foreign_seconds(windows)
    steal_s = sum(w.steal_s or 0.0 for w in windows)
    throttled = sum(w.throttle_count or 0 for w in windows)
    swapped = sum(w.swap_pages or 0 for w in windows)
    memory_s = sum(w.pressure_memory_s or 0.0 for w in windows)
    jump_s = max((0.0 if w.clock_jump_s is UNSET else w.clock_jump_s for w in windows), key=abs, default=0.0)
    if capacity_s and foreign_s > MAX_FOREIGN_SHARE * capacity_s + FOREIGN_TICKS * tick_s:
        limit = _limit(MAX_FOREIGN_SHARE, FOREIGN_TICKS * tick_s)
        yield f"other processes used {foreign_s / capacity_s:.1%} of all cores ({limit})"
    if capacity_s and steal_s > MAX_STEAL_SHARE * capacity_s + STEAL_TICKS * tick_s:
        limit = _limit(MAX_STEAL_SHARE, STEAL_TICKS * tick_s)
        yield f"the hypervisor took {steal_s / capacity_s:.1%} of all cores ({limit})"
    if throttled:
        yield f"the processor got too hot and was throttled {throttled} times (limit 0)"
    if swapped:
        yield f"{swapped} pages were swapped in or out (limit 0)"
    if span_s and memory_s > MAX_MEMORY_PRESSURE_SHARE * span_s:
        yield f"tasks waited for memory in {memory_s / span_s:.1%} of the time (limit {MAX_MEMORY_PRESSURE_SHARE:.0%})"
    if abs(jump_s) > MAX_CLOCK_JUMP_S:
        yield f"the clock jumped by {jump_s:+.3g} s (limit {1e3 * MAX_CLOCK_JUMP_S:.0f} ms)"


def _limit(share: float, resolution_s: float) -> str:
    return f"limit {share:.0%}" + (f" and the clock's {1e3 * resolution_s:g} ms" if resolution_s else "")
