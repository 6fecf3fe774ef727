"""Simulated truth: power over time with its exact energy, a clock to move through it, and sensors that show it."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
NS = 1_000_000_000


class SimulatedClock:
    """Time passes only when told to; ``sleep`` and CPU time move with it."""

    def __init__(self, start_ns: int = 5 * NS) -> None:
        self.ns = start_ns

    def now_ns(self) -> int:
        return self.ns

    def cpu_ns(self) -> int:
        return self.ns

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.ns += round(seconds * NS)

    def utc_now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.ns / NS)


class Trace:
    """Power in W, linear between knots (two knots at one time are a step); energy is its exact integral."""

    def __init__(self, times_s: list[float], watts: list[float]) -> None:
        self.t, self.p = np.array(times_s), np.array(watts)
        self.e = np.concatenate([[0.0], np.cumsum(np.diff(self.t) * (self.p[1:] + self.p[:-1]) / 2)])

    def power_w(self, at_s: float) -> float:
        i = min(int(np.searchsorted(self.t, at_s, side="right")) - 1, len(self.t) - 2)
        span = self.t[i + 1] - self.t[i]
        share = (at_s - self.t[i]) / span if span > 0 else 1.0
        return float(self.p[i] + share * (self.p[i + 1] - self.p[i]))

    def energy_j(self, at_s: float) -> float:
        i = min(int(np.searchsorted(self.t, at_s, side="right")) - 1, len(self.t) - 2)
        return float(self.e[i] + (at_s - self.t[i]) * (self.p[i] + self.power_w(at_s)) / 2)

    def mean_w(self, start_s: float, end_s: float) -> float:
        return (self.energy_j(end_s) - self.energy_j(start_s)) / (end_s - start_s)


def constant_pieces(lengths_s: list[float], watts: list[float]) -> Trace:
    ends = np.cumsum(lengths_s)
    times = [0.0, *np.repeat(ends, 2)[:-1].tolist()]
    return Trace(times, np.repeat(watts, 2).tolist())


def steps(seed: int, span_s: float) -> Trace:
    draw = random.Random(seed)
    lengths = [draw.uniform(0.2, 3.0) for _ in range(int(span_s))]
    return constant_pieces([*lengths, span_s], [draw.uniform(8.0, 250.0) for _ in range(len(lengths) + 1)])


def ramp(seed: int, span_s: float) -> Trace:
    draw = random.Random(seed)
    knots = np.linspace(0.0, 2 * span_s, 2 * int(span_s) + 1)
    return Trace(knots.tolist(), [draw.uniform(8.0, 250.0) for _ in knots])


def square(seed: int, span_s: float, hertz: float) -> Trace:
    draw = random.Random(seed)
    low, high, half_s = draw.uniform(8.0, 30.0), draw.uniform(60.0, 250.0), 0.5 / hertz
    count = int(2 * span_s / half_s) + 2
    lengths = [draw.uniform(0.0, half_s), *[half_s] * count]
    return constant_pieces(lengths, [low if i % 2 else high for i in range(count + 1)])


def bursts(seed: int, span_s: float) -> Trace:
    """Tokens of 15 to 25 ms, each a busy part and a pause."""
    draw = random.Random(seed)
    lengths: list[float] = []
    watts: list[float] = []
    for _ in range(int(2 * span_s / 0.02)):
        token_s, busy = draw.uniform(0.015, 0.025), draw.uniform(0.5, 0.9)
        lengths += [token_s * busy, token_s * (1 - busy)]
        watts += [draw.uniform(100.0, 140.0), draw.uniform(15.0, 25.0)]
    return constant_pieces(lengths, watts)


KINDS: dict[str, Callable[[int, float], Trace]] = {
    "steps": steps,
    "ramp": ramp,
    "1 Hz square": lambda seed, span_s: square(seed, span_s, 1.0),
    "13 Hz square": lambda seed, span_s: square(seed, span_s, 13.0),
    "bursts": bursts,
}


def counter_value(trace: Trace, at_s: float, *, tick_s: float, unit_j: float, wrap: int | None, offset: int = 0) -> int:
    """Return what a counter shows: energy up to its last update, in whole units, around its wrap."""
    count = offset + int(trace.energy_j(at_s - at_s % tick_s) / unit_j)
    return count if wrap is None else count % wrap
