"""Small number files of sysfs, read with limits, and the energy counters behind them.

A file of sysfs is one short line. What is longer, no number, negative or larger than the sensor can count is no
reading; the caller turns the error into a refusal with its text.
"""

from __future__ import annotations

import os
import threading
from fractions import Fraction
from typing import TYPE_CHECKING

from perjoule.protocols import Count

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from perjoule.protocols import Clock

TEXT_BYTES = 256
MAX_COUNT = (1 << 63) - 1  # what the kernel's signed 64-bit attributes hold
# A file that would block (a pipe in place of a sensor) fails instead; neither flag exists outside POSIX.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_NS = 1_000_000_000
MAX_W = 5000.0  # above any package or board sold: what would need more to be a wrap is a reset
LIKELY_W = 600.0  # the most a package is expected to draw for long; a wrap at this power must be seen
_JOIN_S = 2.0


def read_text(path: Path) -> str:
    """Return the stripped text of a small file. Raises ``OSError``, and ``ValueError`` for what is not short ASCII."""
    descriptor = os.open(path, _FLAGS)
    try:
        raw = os.read(descriptor, TEXT_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(raw) > TEXT_BYTES:
        raise ValueError(f"{path.name} is longer than {TEXT_BYTES} bytes")
    if not raw.isascii():
        raise ValueError(f"{path.name} is not ASCII text")
    return raw.decode("ascii").strip()


def read_count(path: Path, most: int = MAX_COUNT) -> int:
    """Return the whole number in a file, 0 to ``most``. Raises ``OSError`` and ``ValueError``."""
    value = read_signed(path)
    if value < 0:
        raise ValueError(f"{path.name} is negative ({value}), not a count")
    if value > most:
        raise ValueError(f"{path.name} is {value}, more than the {most} it can be")
    return value


def read_signed(path: Path) -> int:
    """Return the whole number in a file, which may be negative. Raises ``OSError`` and ``ValueError``."""
    text = read_text(path)
    digits = text.removeprefix("-")
    if not digits.isdigit() or text == "-0":
        raise ValueError(f"{path.name} is {text[:32]!r}, not a count")
    value = int(text)
    if abs(value) > MAX_COUNT:
        raise ValueError(f"{path.name} has {len(digits)} digits, more than 64 bits hold")
    return value


def why(error: OSError | ValueError) -> str:
    """Return the reason in an error of these readers, without the path."""
    return (error.strerror if isinstance(error, OSError) else str(error)) or "unreadable"


class EnergyCounter:
    """Judges what a counter did since it was last read.

    ``wrap`` is the count after which it starts again (None: it never does). With ``unwrap`` its steps are summed
    across wraps; what was lost in between (a reset, too long a gap) then ends it for good. A counter that stands
    still for ``frozen_s`` is refused; None for a part that may truly draw nothing.
    """

    def __init__(
        self, unit_j: Fraction, *, wrap: int | None = None, unwrap: bool = False, frozen_s: float | None = 1.0
    ) -> None:
        self._unit_j, self._wrap, self._unwrap, self._frozen_s = unit_j, wrap, unwrap, frozen_s
        self._raw: int | None = None
        self._sum = 0
        self._at_ns = self._moved_ns = 0
        self._broken: str | None = None

    def take(self, raw: int, at_ns: int) -> int | str:
        """Take one reading; return the count to report, or the reason why there is none."""
        if self._broken is not None:
            return self._broken
        if self._raw is None:
            self._raw, self._at_ns, self._moved_ns = raw, at_ns, at_ns
            return self._sum if self._unwrap else raw
        gap_s, still_s = (at_ns - self._at_ns) / _NS, (at_ns - self._moved_ns) / _NS
        step = self._step(raw - self._raw, gap_s)
        self._raw, self._at_ns = raw, at_ns
        if isinstance(step, str):
            self._broken = step if self._unwrap else None
            self._moved_ns = at_ns
            return step
        if step:
            self._moved_ns = at_ns
        elif self._frozen_s is not None and still_s >= self._frozen_s:
            return f"the counter has stood still for {still_s:.1f} s: it is frozen"
        self._sum += step
        return self._sum if self._unwrap else raw

    def _step(self, step: int, gap_s: float) -> int | str:
        if self._unwrap and self._wrap is not None and gap_s > self._wrap * self._unit_j / Fraction(LIKELY_W):
            return f"the counter was not read for {gap_s:.0f} s and may have wrapped unseen"
        if step >= 0:
            return step
        fell_j = float(-step * self._unit_j)
        if self._wrap is None:
            return f"the counter went backwards by {fell_j:.6g} J"
        wrapped = step + self._wrap
        if wrapped * self._unit_j > MAX_W * max(gap_s, 1e-3):
            return f"the counter went backwards by {fell_j:.6g} J, too far for a wrap: it was reset"
        return wrapped


class CounterFile:
    """One energy counter in a file; may be read by a poller and by the meter at the same time."""

    def __init__(self, domain: str, path: Path, counter: EnergyCounter, most: int = MAX_COUNT) -> None:
        self.domain = domain
        self._path, self._counter, self._most = path, counter, most
        self._lock = threading.Lock()

    def read(self, clock: Clock) -> Count | str:
        """Return the count now, or the reason why there is none."""
        with self._lock:
            before_ns = clock.now_ns()
            try:
                raw = read_count(self._path, self._most)
            except (OSError, ValueError) as error:
                return why(error)
            after_ns = clock.now_ns()
            count = self._counter.take(raw, (before_ns + after_ns) // 2)
        if isinstance(count, str):
            return count
        return Count(domain=self.domain, count=count, before_ns=before_ns, after_ns=after_ns)


class Periodic:
    """Calls a function every ``period_s`` on a thread of its own, until stopped. The function must not raise."""

    def __init__(self, name: str, period_s: float, call: Callable[[], object]) -> None:
        self._call, self._period_s = call, period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            self._call()
