"""Meters: sensors that count joules, opened together and read at the edges of windows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self

import msgspec

from perjoule import registry
from perjoule.clock import MonotonicClock
from perjoule.errors import HostError
from perjoule.meters.guard import READ_TIMEOUT_S, GuardedMeter
from perjoule.protocols import LogMeter, NotingMeter
from perjoule.records import MeterRefusal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from perjoule.protocols import Count, Load, Meter
    from perjoule.records import MeterFact

# In order of trust: of two readers of one domain the first is kept.
DEFAULT_METERS = ("rapl-perf", "rapl-powercap", "hwmon", "nvml", "battery")

LOG_TIMEOUT_S = 300.0  # a log of hundreds of MB takes its time
PATIENCE_S = 60.0  # the longest window that a sensor nobody asked for may demand


class MeterSet:
    """Every meter that could be opened. ``refusals`` say why the others could not, and what would allow them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._clock = MonotonicClock()
        self._open: list[tuple[GuardedMeter, set[str]]] = []  # with the domains it is kept for
        self.facts: list[MeterFact] = []
        self.refusals: list[MeterRefusal] = []
        self._reading_ns = 0
        try:
            for name in names:
                self._add(GuardedMeter(name.partition(":")[0], build(name)))
        except BaseException:
            self.close()  # a program that an earlier meter started must not outlive this one's mistake
            raise

    def _add(self, meter: GuardedMeter) -> None:
        probe = meter.probe()
        self.refusals += probe.refusals
        taken = {fact.domain: fact for fact in self.facts}
        fresh = [fact for fact in probe.domains if fact.domain not in taken]
        self.refusals += [_repeats(meter.name, fact, taken) for fact in probe.domains if fact.domain in taken]
        refused = meter.open() if fresh else None
        if refused is not None:
            self.refusals.append(refused)
        if not fresh or refused is not None:
            meter.close()
            return
        self._open.append((meter, {fact.domain for fact in fresh}))
        self.facts += fresh

    @property
    def min_window_s(self) -> float:
        return max((fact.min_window_s for fact in self.facts), default=0.0)

    @property
    def cpu_s(self) -> float:
        """CPU time of this process while reading, so far; pollers' own threads run beside and are in it too."""
        return self._reading_ns / 1e9

    def read(self) -> list[Count | MeterRefusal]:
        begin_ns = self._clock.cpu_ns()
        readings = [
            reading
            for meter, domains in self._open
            for reading in meter.read()
            if isinstance(reading, MeterRefusal) or reading.domain in domains
        ]
        self._reading_ns += self._clock.cpu_ns() - begin_ns
        return readings

    @property
    def has_logs(self) -> bool:
        return any(isinstance(guarded.meter, LogMeter) for guarded, _domains in self._open)

    def demand(self, names: Sequence[str]) -> None:
        """Hold every meter that the user named to have a domain. Raises ``HostError`` with the reason of the first."""
        reading = {guarded.name for guarded, _domains in self._open} | {"null"}
        for name in names:
            base = name.partition(":")[0]
            if base not in reading:
                refusal = next((r for r in self.refusals if r.meter == base), None)
                reason, fix = (refusal.reason, refusal.fix) if refusal else ("it shows no domain", "leave it out")
                raise HostError(f"--meter {base}: {reason}", hint=fix)

    def limit_windows(self, *, named: bool) -> None:
        """Leave out sensors that would need more patience than asked for, unless the user named them."""
        for fact in self.facts if not named else ():
            if fact.min_window_s > PATIENCE_S:
                self.refuse(
                    fact.domain,
                    f"needs windows of {fact.min_window_s:g} s, longer than is measured by default",
                    "name its meter with --meter to wait that long",
                )

    def noted_facts(self) -> list[MeterFact]:
        """Return the facts with what their meters noticed while they ran."""
        notes: dict[str, str] = {}
        for guarded, domains in self._open:
            if isinstance(guarded.meter, NotingMeter):
                said = guarded.call(guarded.meter.notes, READ_TIMEOUT_S, "asking for its notes")
                notes.update(dict.fromkeys(domains, said if isinstance(said, str) else "; ".join(said)))
        return [
            msgspec.structs.replace(fact, note="; ".join(filter(None, (fact.note, notes.get(fact.domain)))) or None)
            for fact in self.facts
        ]

    def logged_counts(self, utc_s: Sequence[float], loads: Sequence[Load]) -> list[tuple[Count | MeterRefusal, ...]]:
        """Return, for each instant, what meters that are joined by wall-clock time say of it."""
        rows: list[list[Count | MeterRefusal]] = [[] for _ in utc_s]
        for guarded, _domains in self._open:
            meter = guarded.meter
            if isinstance(meter, LogMeter):
                found = guarded.call(partial(meter.counts_at, utc_s, loads), LOG_TIMEOUT_S, "reading its log")
                told = [[guarded.refusal(found)]] * len(rows) if isinstance(found, str) else found
                for row, counts in zip(rows, told, strict=True):
                    row.extend(counts)
        return [tuple(row) for row in rows]

    def refuse(self, domain: str, reason: str, fix: str) -> None:
        """Leave a domain out from here on; a result then carries the reason."""
        self.facts = [fact for fact in self.facts if fact.domain != domain]
        owner = next((guarded.name for guarded, domains in self._open if domain in domains), domain)
        for guarded, domains in self._open:
            domains.discard(domain)
            if not domains:
                guarded.close()  # and with it what it polls
        self._open = [(guarded, domains) for guarded, domains in self._open if domains]
        self.refusals.append(MeterRefusal(meter=owner, reason=f"{domain}: {reason}", fix=fix, domain=domain))

    def found_tick(self, domain: str, tick_s: float, min_window_s: float) -> None:
        """Record the update period that was seen, and the window that follows from it."""
        self.facts = [
            msgspec.structs.replace(fact, tick_s=tick_s, tick_s_missing=msgspec.UNSET, min_window_s=min_window_s)
            if fact.domain == domain
            else fact
            for fact in self.facts
        ]

    def close(self) -> None:
        for meter, _domains in self._open:
            meter.close()
        self._open.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def build(name: str) -> Meter:
    """Build the meter ``name`` or ``name:argument``. Raises ``UsageError`` for an unknown name or argument."""
    base, colon, argument = name.partition(":")
    meter_class = registry.load("perjoule.meters", base)
    built: Meter = meter_class(argument) if colon else meter_class()
    return built


def open_meters(names: Sequence[str] | None) -> MeterSet:
    """Open the named meters, or every built-in sensor. Raises ``UsageError`` for an unknown name."""
    return MeterSet(DEFAULT_METERS if names is None else names)


def _repeats(name: str, fact: MeterFact, taken: dict[str, MeterFact]) -> MeterRefusal:
    return MeterRefusal(
        meter=name,
        reason=f"{name}: {fact.domain} is read through {taken[fact.domain].source} already",
        fix=f"nothing is lost; to use this reader alone: --meter {name}",
    )
