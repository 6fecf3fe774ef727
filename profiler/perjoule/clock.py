"""The only user of the time module: durations from one monotonic clock, injected everywhere else."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class MonotonicClock:
    """CLOCK_MONOTONIC, which all processes of one machine share.

    ``now_ns`` and ``sleep`` are the builtins themselves: a frame of Python per token would show in the harness's
    own share. ``cpu_ns`` is CPU time of this process, all threads, user and system.
    """

    now_ns = staticmethod(time.monotonic_ns)
    cpu_ns = staticmethod(time.process_time_ns)
    sleep = staticmethod(time.sleep)

    def utc_now(self) -> datetime:
        """Wall clock: only for the date of a result and to join logs of external meters."""
        return datetime.now(UTC)
