"""The only user of the time module: durations from one monotonic clock, injected everywhere else."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class MonotonicClock:
    """CLOCK_MONOTONIC, which all processes of one machine share."""

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def cpu_ns(self) -> int:
        """CPU time of this process, all threads, user and system."""
        return time.process_time_ns()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def utc_now(self) -> datetime:
        """Wall clock: only for the date of a result and to join logs of external meters."""
        return datetime.now(UTC)
