"""Any program as a meter: it writes watts, one number a line, and is read as it writes.

For instruments whose maker ships a command line tool, and for scripts of one's own. A line counts from the moment it
arrives, so the program must write each line at once (``stdbuf -oL`` where it does not).
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import statistics
import subprocess
import threading
from collections import Counter, deque
from fractions import Fraction
from typing import IO, TYPE_CHECKING

from perjoule.clock import MonotonicClock
from perjoule.errors import UsageError
from perjoule.meters.gauge import GAP_PERIODS, Integrator, integral_unit_j
from perjoule.protocols import Count, Probe
from perjoule.records import MeterFact, MeterRefusal

if TYPE_CHECKING:
    from perjoule.protocols import Clock

TOLERANCE = 0.10
MAX_W = 100_000.0
MAX_LINE_BYTES = 128
PROBE_PERIODS = 3  # of which the middle one is taken
PROBE_S = 10.0  # a program that has not written two lines by then is too slow to be a meter
LEAST_SILENCE_S = 2.0  # on a machine that is fully loaded any program may stall for a moment
_LONGEST_MIN_WINDOW_S = 120.0
_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")
_KEPT_PERIODS = 65
_NS = 1_000_000_000
_MILLI = 1000
_DOMAIN = "wall"
_FIX = "run the command by itself: it must go on writing one number of watts per line, each line at once (stdbuf -oL)"
_TERM_S = 0.5  # for a program to let go of its instrument before it is killed


class WattLines:
    """Bytes of a program's output taken apart into lines of watts and integrated; counts are mW x ns.

    What is no number of watts is counted by kind and never taken as 0.
    """

    def __init__(self) -> None:
        self.integral = Integrator(hold=True)
        self.lines = 0
        self.broken: str | None = None  # why the integral has a hole
        self._counts: Counter[str] = Counter()
        self._first_rejected = 0
        self._periods_ns: deque[int] = deque(maxlen=_KEPT_PERIODS)
        self._carry = b""
        self._overlong = False

    def feed(self, data: bytes, at_ns: int) -> None:
        """Take what arrived at ``at_ns``."""
        *whole, rest = (self._carry + data).split(b"\n")
        for line in whole:
            self._line(line, at_ns)
        if len(rest) > MAX_LINE_BYTES:
            self._overlong, rest = True, b""  # the rest of it is dropped as it comes
        self._carry = rest

    @property
    def periods(self) -> int:
        return len(self._periods_ns)

    def period_s(self) -> float | None:
        """Return the middle time between arrivals so far."""
        return statistics.median(self._periods_ns) / _NS if self._periods_ns else None

    def allowed_silence_s(self) -> float:
        return max(LEAST_SILENCE_S, GAP_PERIODS * (self.period_s() or 0.0))

    def silence(self, now_ns: int) -> str | None:
        """Return why there is no power now, once the program has said nothing valid for too long."""
        silent_s = (now_ns - self.integral.at_ns) / _NS
        if self.broken is None and self.integral.polls and silent_s > self.allowed_silence_s():
            self.broken = f"no watts for {silent_s:.1f} s{self.rejected(', ')}"
        return self.broken

    def notes(self) -> list[str]:
        told = self.rejected("")
        return [f"command: {told} (of {self.lines} lines; the first was line {self._first_rejected})"] if told else []

    def _line(self, line: bytes, at_ns: int) -> None:
        self.lines += 1
        value = "too long" if self._overlong or len(line) > MAX_LINE_BYTES else _milliwatts(line.strip())
        self._overlong = False
        if isinstance(value, str):
            self._counts[value] += 1
            self._first_rejected = self._first_rejected or self.lines
            return
        if self.silence(at_ns) is not None:
            return  # what was missed cannot be had later
        if self.integral.polls and at_ns > self.integral.at_ns:  # lines that come together are one arrival
            self._periods_ns.append(at_ns - self.integral.at_ns)
        self.integral.add(value, at_ns)

    def rejected(self, before: str) -> str:
        told = ", ".join(f"{n} {'line' if n == 1 else 'lines'} {why}" for why, n in sorted(self._counts.items()))
        return before + told if told else ""


class CommandMeter:
    """``command:PROGRAM ARGS``: started without a shell, killed with all its children at the end."""

    def __init__(self, argument: str = "", clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        try:
            self._words = shlex.split(argument)
        except ValueError as error:
            raise UsageError(f"command: {error}", hint="quote it as a shell would want it") from error
        if not self._words:
            raise UsageError("command: needs a program", hint='e.g. --meter "command:read-watts --interval 0.1"')
        self._lines = WattLines()
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._ended = False

    def probe(self) -> Probe:
        why = self._start()
        if why is None:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._lines.periods >= PROBE_PERIODS, PROBE_S)
                period_s = self._lines.period_s()
                if self._ended:
                    why = self._told_end()
                elif period_s is None:
                    why = f"fewer than two lines of watts in {PROBE_S:g} s{self._lines.rejected(', ')}"
        if why is not None:
            self.close()
            return Probe(refusals=(_refusal(why),))
        fact = MeterFact(
            domain=_DOMAIN, scope="wall", kind="gauge", label="measured", grade="command", tick_s=period_s,
            source="lines of a program", unit_j=integral_unit_j(Fraction(1, _MILLI)), tolerance=TOLERANCE,
            min_window_s=min(_LONGEST_MIN_WINDOW_S, max(1.0, 100 * (period_s or 0.0))), only_simulated=True,
        )  # fmt: skip
        return Probe(domains=(fact,))

    def open(self) -> None:
        """The program has run since ``probe``."""

    def read(self) -> list[Count | MeterRefusal]:
        with self._changed:
            now_ns = self._clock.now_ns()
            integral = self._lines.integral
            why = self._lines.silence(now_ns) or (self._told_end() if self._ended else None)
            if why is not None:
                return [_refusal(why)]
            return [Count(
                domain=_DOMAIN, count=integral.count(now_ns), before_ns=now_ns, after_ns=now_ns,
                polls=integral.polls, variance=integral.variance,
            )]  # fmt: skip

    def close(self) -> None:
        """End the program's process group: a request to end, then, after half a second, no request."""
        process, self._process = self._process, None
        if process is None:
            return
        self._kill(process, signal.SIGTERM)
        with self._changed:
            self._changed.wait_for(lambda: self._ended, _TERM_S)
        self._kill(process, signal.SIGKILL)
        process.wait()
        if self._thread is not None:
            self._thread.join(_TERM_S)

    def notes(self) -> list[str]:
        """Return what a reader of the result should know of lines that were no watts."""
        with self._changed:
            return self._lines.notes()

    def _start(self) -> str | None:
        try:
            self._process = subprocess.Popen(
                self._words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                start_new_session=True, bufsize=0,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            return f"it cannot be started: {error.strerror if isinstance(error, OSError) else 'not a command'}"
        output = self._process.stdout
        self._thread = threading.Thread(target=self._follow, args=(output,), name="read command", daemon=True)
        self._thread.start()
        return None

    def _follow(self, output: IO[bytes]) -> None:
        with output:
            while data := os.read(output.fileno(), 4096):
                with self._changed:
                    self._lines.feed(data, self._clock.now_ns())
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _told_end(self) -> str:
        return f"the program ended its output after {self._lines.lines} lines{self._lines.rejected(', ')}"

    def _kill(self, process: subprocess.Popen[bytes], how: signal.Signals) -> None:
        try:
            os.killpg(process.pid, how)  # it leads its group and has not been waited for: the id is still its own
        except (ProcessLookupError, PermissionError):
            return  # nobody left; macOS says it of a group of zombies with EPERM


def _milliwatts(line: bytes) -> int | str:
    if not _NUMBER.fullmatch(line):
        return "not a number"
    watts = float(line)
    if watts <= 0:
        return "not above 0 W"  # a wall meter of a machine that runs
    return round(watts * _MILLI) if watts <= MAX_W else f"above {MAX_W:g} W"


def _refusal(reason: str) -> MeterRefusal:
    return MeterRefusal(meter="command", reason=f"{_DOMAIN}: {reason}", fix=_FIX, domain=_DOMAIN)
