"""The only user of the time module: durations from one monotonic clock, injected everywhere else."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime

_WALL_CLOCKS = [time.CLOCK_REALTIME, *([time.CLOCK_BOOTTIME] if hasattr(time, "CLOCK_BOOTTIME") else [])]
_HAS_CPU_CLOCKS = sys.platform == "linux"
_TRIES, _INTERRUPTED_NS = 3, 1_000_000


class MonotonicClock:
    """CLOCK_MONOTONIC, which all processes of one machine share.

    ``now_ns`` and ``sleep`` are the builtins themselves: a frame of Python per token would show in the harness's
    own share. ``cpu_ns`` is CPU time of this process, all threads, user and system.
    """

    now_ns = staticmethod(time.monotonic_ns)
    cpu_ns = staticmethod(time.process_time_ns)
    sleep = staticmethod(time.sleep)

    def wall_offsets_ns(self) -> tuple[int, ...]:
        """How far the wall clock, and on Linux the clock that counts suspended time, are ahead of this one, in ns.

        The differences change only where the wall clock is set or the machine slept: gradual correction moves all
        of them alike (clock_gettime(2)). A reading that was interrupted is taken again.
        """
        for _ in range(_TRIES):
            before_ns = time.monotonic_ns()
            others_ns = [time.clock_gettime_ns(clock) for clock in _WALL_CLOCKS]
            after_ns = time.monotonic_ns()
            if after_ns - before_ns < _INTERRUPTED_NS:
                break
        return tuple(ns - (before_ns + after_ns) // 2 for ns in others_ns)

    def utc_now(self) -> datetime:
        """Wall clock: only for the date of a result and to join logs of external meters."""
        return datetime.now(UTC)


def process_cpu_ns(pid: int) -> int:
    """Return CPU time of another process, all threads, user and system. Raises ``OSError`` where it is gone.

    On Linux from its CPU clock, exact to the nanosecond where times in /proc come in ticks; the number of the clock is
    made as clock_getcpuclockid(3) of glibc makes it: the complement of the id, shifted, and CPUCLOCK_SCHED.
    """
    return time.clock_gettime_ns(~pid << 3 | 2) if _HAS_CPU_CLOCKS else _reported_cpu_ns(pid)


def _reported_cpu_ns(pid: int) -> int:
    import psutil  # noqa: PLC0415 - only where there is no such clock

    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error as error:
        raise OSError(0, str(error)) from error
    return int(1e9 * (times.user + times.system))
