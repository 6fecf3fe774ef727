"""Gauges: sensors that show watts now. They are polled, and what was seen is integrated into a growing count.

Polls come at random intervals, so that a load that repeats (one burst a token) cannot hide between them. The
uncertainty of the integral follows from how much neighbouring values differ: for independent random samples the
expected half squared difference of two is their variance (von Neumann, Ann. Math. Stat. 12 (1941) 367).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from perjoule.protocols import Count
from perjoule.records import MeterRefusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from fractions import Fraction

    from perjoule.protocols import Clock

_NS = 1_000_000_000
GAP_PERIODS = 10.0  # a gauge that has not answered for so many periods has left a hole, not a reading
_JOIN_S = 2.0


def integral_unit_j(watts_per_raw: Fraction) -> str:
    """Return joules per count of an integral over raw unit x ns, as the exact fraction of ``MeterFact.unit_j``."""
    return str(watts_per_raw / _NS)


class Integrator:
    """The integral of one gauge between polls; counts are raw unit x ns.

    By trapezoids, or, with ``hold``, by each value until the next: what was read off a held gauge between two polls is
    then never taken back. A sensor that renews its value each ``refresh_s`` and is polled more often shows one value
    several times: a change then counts for the time the value before it stood, up to that period.
    """

    def __init__(self, *, hold: bool = False, refresh_s: float = 0.0) -> None:
        self.polls = 0
        self.variance = 0.0
        self._hold, self._refresh_ns = hold, round(refresh_s * _NS)
        self._doubled = 0  # twice the integral: stays an exact integer
        self._value = 0
        self._since_ns = 0  # when this value was first seen
        self.at_ns = 0

    def add(self, value: int, at_ns: int) -> None:
        """Take one poll; ``at_ns`` must not go back."""
        if self.polls:
            gap_ns = at_ns - self.at_ns
            self._doubled += (2 * self._value if self._hold else self._value + value) * gap_ns
            if value != self._value:
                stood_ns = max(gap_ns, min(at_ns - self._since_ns, self._refresh_ns))
                self.variance += stood_ns**2 * (value - self._value) ** 2 / 2
        if not self.polls or value != self._value:
            self._since_ns = at_ns
        self._value, self.at_ns = value, at_ns
        self.polls += 1

    def count(self, at_ns: int) -> int:
        """Return the integral up to ``at_ns``, holding the last value since the last poll."""
        return self._doubled // 2 + self._value * max(0, at_ns - self.at_ns)


class GaugePoller:
    """Polls gauges on a thread of its own and keeps their integrals.

    ``look`` returns a raw integer per domain, or the reason why there is none. With ``fresh`` each ``snapshot`` looks
    once more, so that an edge is exact; without (a sensor behind a network) it holds the last value. ``refresh_s``
    gives, for domains that renew their value more slowly than they are polled, the period of that.
    """

    def __init__(
        self,
        meter: str,
        look: Callable[[], Mapping[str, int | str]],
        domains: Sequence[str],
        period_s: float,
        clock: Clock,
        *,
        fresh: bool = True,
        refresh_s: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        self._meter, self._look, self._clock, self._fresh = meter, look, clock, fresh
        self._period_s = period_s
        self._integrals = {
            domain: Integrator(hold=not fresh, refresh_s=(refresh_s or {}).get(domain, 0.0)) for domain in domains
        }
        self._broken: dict[str, str] = {}
        import random  # noqa: PLC0415 - costs milliseconds that a host without gauges need not spend

        self._random = random.Random(seed)  # noqa: S311 - when to look, not a secret
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self.poll()
        self._thread = threading.Thread(target=self._run, name=f"poll {self._meter}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
            self._thread = None

    def poll(self) -> None:
        """Look once now."""
        before_ns = self._clock.now_ns()
        seen = self._look()
        middle_ns = (before_ns + self._clock.now_ns()) // 2
        with self._lock:
            for domain, integral in self._integrals.items():
                self._take(domain, integral, seen.get(domain, "the sensor did not answer"), middle_ns)

    def _take(self, domain: str, integral: Integrator, value: int | str, at_ns: int) -> None:
        if domain in self._broken:
            return  # what was missed cannot be had later
        late = integral.polls > 0 and at_ns - integral.at_ns > GAP_PERIODS * self._period_s * _NS
        if late:
            why = value if isinstance(value, str) else f"no reading for {(at_ns - integral.at_ns) / _NS:.1f} s"
            self._broken[domain] = why
        elif not isinstance(value, str) and at_ns >= integral.at_ns:
            integral.add(value, at_ns)

    def snapshot(self) -> list[Count | MeterRefusal]:
        """Return the integrals up to now; a domain that was never or is no longer read comes as a refusal."""
        if self._fresh:
            self.poll()
        now_ns = self._clock.now_ns()
        with self._lock:
            return [self._told(domain, integral, now_ns) for domain, integral in self._integrals.items()]

    def _told(self, domain: str, integral: Integrator, now_ns: int) -> Count | MeterRefusal:
        reason = self._broken.get(domain)
        silent_s = (now_ns - integral.at_ns) / _NS
        if reason is None and not integral.polls:
            reason = "no reading yet"
        elif reason is None and silent_s > GAP_PERIODS * self._period_s:
            reason = f"no reading for {silent_s:.1f} s"
        if reason is not None:
            fix = "check the sensor, then run again"
            return MeterRefusal(meter=self._meter, reason=f"{domain}: {reason}", fix=fix, domain=domain)
        return Count(
            domain=domain, count=integral.count(now_ns), before_ns=now_ns, after_ns=now_ns,
            polls=integral.polls, variance=integral.variance,
        )  # fmt: skip

    def _run(self) -> None:
        while not self._stop.wait(self._period_s * self._random.uniform(0.5, 1.5)):
            self.poll()
