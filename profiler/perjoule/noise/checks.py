"""Checks of what disturbed the measured requests, beyond whether one of them was left out."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from perjoule.noise.judge import FOREIGN_TICKS, MAX_CLOCK_JUMP_S, MAX_FOREIGN_SHARE, foreign_seconds, ticks_s
from perjoule.records import UNSET, Check
from perjoule.scenario import from_facts
from perjoule.stats.selection import select, stem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from perjoule.records import RunResult, Sample, Window

    ByRequest = dict[str, list[Window]]

SLOW_FREQUENCY = 0.9  # of the run's median
MAX_IO_PRESSURE_SHARE = 0.01  # of the time of measured requests


def _throttled(measured: ByRequest) -> Iterator[Check]:
    events = {name: sum(w.throttle_count or 0 for w in ws) for name, ws in measured.items()}
    hit = [name for name, count in events.items() if count]
    if hit:
        yield Check(
            code="throttled",
            severity="warning",
            message=f"the processor got too hot and was throttled in {len(hit)} of {len(events)} requests",
            hint="cool the machine, lift a laptop off its cushion, or lower the load before measuring",
            data={"requests": len(hit), "measured": len(events), "throttle_count": sum(events.values())},
        )


def _swapped(measured: ByRequest) -> Iterator[Check]:
    pages = {name: sum(w.swap_pages or 0 for w in ws) for name, ws in measured.items()}
    hit = [name for name, count in pages.items() if count]
    if hit:
        yield Check(
            code="swapped",
            severity="warning",
            message=f"memory was swapped in {len(hit)} of {len(pages)} requests: their time is the disk's",
            hint="close other programs, or use a smaller model or a lower --quant",
            data={"requests": len(hit), "measured": len(pages), "swap_pages": sum(pages.values())},
        )


def _clock_jumped(result: RunResult) -> Iterator[Check]:
    jumps = [w.clock_jump_s for w in result.windows if w.clock_jump_s is not UNSET]
    far = [s for s in jumps if abs(s) > MAX_CLOCK_JUMP_S]
    if far:
        widest = max(far, key=abs)
        yield Check(
            code="clock_jumped",
            severity="warning",
            message=f"the wall clock jumped by {widest:+.3g} s in a window: it was set, or the machine slept",
            hint="run again on a machine that stays awake; joules joined from a log may be shifted",
            data={"windows": len(far), "clock_jump_s": widest},
        )


def _slow_frequency(measured: ByRequest) -> Iterator[Check]:
    found = {name: hertz for name, ws in measured.items() if (hertz := _frequency(ws)) is not None}
    median = statistics.median(found.values()) if found else 0.0
    slow = {name: hertz for name, hertz in found.items() if hertz < SLOW_FREQUENCY * median}
    if slow:
        least = min(slow.values())
        yield Check(
            code="slow_frequency",
            severity="note",
            message=f"in {len(slow)} of {len(found)} requests the processor ran below {SLOW_FREQUENCY:.0%} of the "
            f"run's median frequency, down to {least / 1e9:.2f} of {median / 1e9:.2f} GHz",
            hint="set the performance governor, plug in the charger, or let the machine cool",
            data={
                "requests": len(slow),
                "measured": len(found),
                "least_freq_hz": round(least),
                "median_freq_hz": round(median),
            },
        )


def _background_load(result: RunResult) -> Iterator[Check]:
    """Judge all requests that count together: single ones may be too short for what they were judged by."""
    selection = select(result.samples, result.windows, from_facts(result.scenario))
    if selection.kept_rejected:
        return  # noisy_host says so already
    windows = [w for ws in _groups(result, selection.samples).values() for w in ws]
    capacity_s = result.host.cpu.threads * sum(w.duration_s for w in windows)
    foreign_s = foreign_seconds(windows)
    if capacity_s and foreign_s > MAX_FOREIGN_SHARE * capacity_s + FOREIGN_TICKS * ticks_s(windows):
        yield Check(
            code="background_load",
            severity="warning",
            message=f"over all requests together other processes used {foreign_s / capacity_s:.1%} of all cores "
            f"(limit {MAX_FOREIGN_SHARE:.0%}); single requests are too short for the kernel's clock to show it",
            hint="stop other work on this machine and run again",
            data={"share": round(foreign_s / capacity_s, 5)},
        )


def _io_waits(measured: ByRequest) -> Iterator[Check]:
    windows = [w for ws in measured.values() for w in ws if w.pressure_io_s is not UNSET]
    span_s, waited_s = sum(w.duration_s for w in windows), sum(w.pressure_io_s or 0.0 for w in windows)
    if span_s and waited_s > MAX_IO_PRESSURE_SHARE * span_s:
        yield Check(
            code="io_waits",
            severity="note",
            message=f"some task waited for a disk in {waited_s / span_s:.1%} of the time of the requests",
            hint="if the weights do not fit memory the figures are the disk's: use a smaller model or a lower --quant",
            data={"share": round(waited_s / span_s, 5)},
        )


def others_found(result: RunResult) -> str:
    """Return what a look at other processes found, as the end of a sentence; empty if nobody looked."""
    for process in result.processes:
        if process.others_count is not UNSET and process.others_cpu_share is not UNSET:
            if not process.others_count:
                return "; no other process that can be seen from here was busy then"
            names = "process" if process.others_count == 1 else "processes"
            return f"; {process.others_count} other {names} used {process.others_cpu_share:.0%} of all cores then"
    return ""


def _groups(result: RunResult, samples: Iterable[Sample]) -> ByRequest:
    """Return the windows of each request; requests served together share one."""
    wanted = {s.span if isinstance(s.span, str) else s.window for s in samples}
    groups: ByRequest = {}
    for window in result.windows:
        name = window.id if window.id in wanted else stem(window)
        if name in wanted:
            groups.setdefault(name, []).append(window)
    return groups


def _frequency(windows: list[Window]) -> float | None:
    """Return the mean over windows, by their length; None where one has none."""
    parts = [(w.freq_hz, w.duration_s) for w in windows if w.freq_hz is not UNSET]
    span_s = sum(seconds for _, seconds in parts)
    return sum(hertz * seconds for hertz, seconds in parts) / span_s if span_s and len(parts) == len(windows) else None


def _noise(result: RunResult) -> Iterator[Check]:
    measured = _groups(result, [s for s in result.samples if s.phase == "measured"])
    yield from _throttled(measured)
    yield from _swapped(measured)
    yield from _clock_jumped(result)
    yield from _background_load(result)
    yield from _slow_frequency(measured)
    yield from _io_waits(measured)


RULES: tuple[Callable[[RunResult], Iterator[Check]], ...] = (_noise,)
