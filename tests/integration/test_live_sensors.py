"""The sensors of the machine at hand, where it has any: work must move them, and by a plausible power."""

from __future__ import annotations

import os
import sys
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from perjoule import host
from perjoule.clock import MonotonicClock
from perjoule.meters.perf import PerfMeter, perf_event_open
from perjoule.meters.powercap import PowercapMeter
from perjoule.protocols import Count

if TYPE_CHECKING:
    from collections.abc import Callable

    from perjoule.protocols import Meter

BUSY_S = 1.5
CLOCK_BUSY_S = 0.2
SOFTWARE, CPU_CLOCK = 1, 0  # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK: nanoseconds of a CPU
LOWEST_W, HIGHEST_W = 0.2, 2000.0  # of one package with one core busy


def work(seconds: float) -> None:
    clock = MonotonicClock()
    until_ns = clock.now_ns() + int(seconds * 1e9)
    while clock.now_ns() < until_ns:
        sum(range(10_000))


def test_perf_events_are_opened_and_read_as_the_kernel_lays_them_out():
    """The system call on an event that every Linux has: the clock of a CPU runs as ours does."""
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("not Linux")
    cpu, clock = min(os.sched_getaffinity(0)), MonotonicClock()
    try:
        descriptor = perf_event_open(SOFTWARE, CPU_CLOCK, cpu)
    except (OSError, ValueError) as error:
        pytest.skip(f"perf events are not allowed here: {error}")
    try:
        counts, stamps = [], []
        for _ in range(2):
            counts.append(int.from_bytes(os.read(descriptor, 8), sys.byteorder))
            stamps.append(clock.now_ns())
            work(CLOCK_BUSY_S)
    finally:
        os.close(descriptor)
    assert counts[1] - counts[0] == pytest.approx(stamps[1] - stamps[0], rel=0.2)


@pytest.mark.parametrize("build", [PerfMeter, PowercapMeter])
def test_rapl_counts_while_a_core_works(build: Callable[[], Meter]):
    if host.simulated():
        pytest.skip("the sysfs or procfs root is not the kernel's own")
    meter = build()
    try:
        probe = meter.probe()
        packages = {f.domain: f for f in probe.domains if f.scope == "package"}
        if not packages:
            pytest.skip("; ".join(r.reason for r in probe.refusals))
        meter.open()
        before = {r.domain: r for r in meter.read() if isinstance(r, Count)}
        work(BUSY_S)
        after = {r.domain: r for r in meter.read() if isinstance(r, Count)}
    finally:
        meter.close()
    for name, fact in packages.items():
        moved = after[name].count - before[name].count
        if moved < 0:
            assert fact.wrap_count is not None
            moved += int(fact.wrap_count)
        seconds = (after[name].after_ns - before[name].after_ns) / 1e9
        watts = float(moved * Fraction(fact.unit_j or "0")) / seconds
        assert LOWEST_W < watts < HIGHEST_W, f"{name}: {watts:.3g} W"
