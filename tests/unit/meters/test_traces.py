"""Known power through every kind of counter and gauge: the integral is right, and so is the interval around it."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from traces import KINDS, NS, SimulatedClock, Trace, counter_value

from perjoule.meters.counters import domain_part
from perjoule.meters.gauge import GaugePoller, integral_unit_j
from perjoule.meters.readings import readings_between
from perjoule.protocols import Count
from perjoule.records import MeterFact, Window

if TYPE_CHECKING:
    from collections.abc import Callable

COUNTERS = {  # kind: update period, joules per count, counts to the wrap
    "RAPL powercap, Intel": (0.001, "1/1000000", 262_143_328_850),
    "RAPL powercap, short wrap": (0.001, "1/1000000", 5_000_000_000),
    "RAPL perf": (0.001, "1/4294967296", None),
    "NVML energy": (0.1, "1/1000", None),
    "amd_energy": (0.001, "1/1000000", None),
    "xe": (0.01, "1/1000000", None),
}
SPAN_S = 12.0


def fact(**changes: object) -> MeterFact:
    values: dict[str, object] = {
        "domain": "package-0", "scope": "package", "kind": "counter", "label": "measured", "grade": "test",
        "tick_s": 0.001, "source": "simulated", "unit_j": "1/1000000", "tolerance": 0.0,
    }  # fmt: skip
    return MeterFact(**{**values, **changes})  # type: ignore[arg-type]


def window(start: Count, end: Count) -> Window:
    reading = readings_between({start.domain: start}, {end.domain: end}, start.after_ns, end.after_ns)
    return Window(
        id="0.0/decode", process=0, phase="decode", start_s=start.after_ns / NS, end_s=end.after_ns / NS, cpu_s=1.0,
        steal_s=0.0, foreign_cpu_s=0.0, bytes_streamed=1, readings=reading,
    )  # fmt: skip


@pytest.mark.parametrize("kind", COUNTERS)
@pytest.mark.parametrize("shape", KINDS)
def test_a_counter_is_integrated_within_a_thousandth_and_one_tick(kind: str, shape: str):
    tick_s, unit_j, wrap = COUNTERS[kind]
    meter = fact(tick_s=tick_s, unit_j=unit_j, wrap_count=wrap)
    numerator, denominator = (int(x) for x in unit_j.split("/"))
    unit = numerator / denominator
    for seed in range(10):
        trace = KINDS[shape](seed, SPAN_S)
        draw = random.Random(seed)
        start_s = draw.uniform(0.5, 3.0)
        end_s = start_s + draw.uniform(4.0, 8.0)
        offset = wrap - draw.randrange(500_000_000) if wrap else draw.randrange(10**12)  # each passes its wrap
        counts = [
            Count(
                domain="package-0", before_ns=int(at * NS), after_ns=int(at * NS),
                count=counter_value(trace, at, tick_s=tick_s, unit_j=unit, wrap=wrap, offset=offset),
            )
            for at in (start_s, end_s)
        ]  # fmt: skip
        part = domain_part(meter, [window(*counts)])
        assert not isinstance(part, str), part
        truth = trace.energy_j(end_s) - trace.energy_j(start_s)
        one_tick_j = tick_s * float(trace.p.max()) + unit
        assert abs(part.joules.value - truth) <= 0.001 * truth + one_tick_j, (kind, shape, seed)


def poll_through(
    trace: Trace, show: Callable[[float], float], period_s: float, seed: int, *, fresh: bool
) -> tuple[list[Count], float]:
    """Poll a gauge in milliwatts along a trace; return its counts at two edges and the true joules between."""
    clock, draw = SimulatedClock(0), random.Random(seed)
    poller = GaugePoller(
        "test", lambda: {"package-0": round(1000 * show(clock.ns / NS))}, ["package-0"], period_s, clock, fresh=fresh
    )
    clock.advance(0.3 + draw.random())
    edges_s = [2.0 + draw.random(), 8.0 + 3 * draw.random()]
    poller.poll()
    counts: list[Count] = []
    for edge_s in edges_s:
        while (wait_s := period_s * draw.uniform(0.5, 1.5)) + clock.ns / NS < edge_s:
            clock.advance(wait_s)
            poller.poll()
        clock.advance(edge_s - clock.ns / NS)
        (snapshot,) = poller.snapshot()
        assert hasattr(snapshot, "count"), snapshot
        counts.append(snapshot)
    return counts, trace.energy_j(edges_s[1]) - trace.energy_j(edges_s[0])


@pytest.mark.parametrize("fresh", [True, False], ids=["looked at on edges", "held between polls"])
@pytest.mark.parametrize("shape", KINDS)
def test_a_gauge_is_within_its_interval_in_nine_of_ten_traces(shape: str, fresh: bool):
    period_s = 0.05
    meter = fact(kind="gauge", unit_j=integral_unit_j(Fraction(1, 1000)), tick_s=0.0 if fresh else period_s)
    inside, widths = 0, []
    for seed in range(200):
        trace = KINDS[shape](seed, SPAN_S)
        counts, truth = poll_through(trace, trace.power_w, period_s, seed, fresh=fresh)
        part = domain_part(meter, [window(*counts)])
        assert not isinstance(part, str), part
        inside += abs(part.joules.value - truth) <= part.random_j
        widths.append(part.random_j / truth)
    assert inside >= 180, f"{shape}: {inside} of 200 inside"
    assert sum(widths) / len(widths) < 0.15, "an interval that holds because it says nothing"


@pytest.mark.parametrize("shape", KINDS)
def test_a_gauge_that_shows_an_average_is_within_its_interval(shape: str):
    average_s = 0.2
    meter = fact(kind="gauge", unit_j=integral_unit_j(Fraction(1, 1000)), tick_s=average_s)
    inside = 0
    for seed in range(200):
        trace = KINDS[shape](seed, SPAN_S)

        def show(at_s: float, trace: Trace = trace) -> float:
            return trace.mean_w(max(0.0, at_s - average_s), at_s)

        counts, truth = poll_through(trace, show, 0.05, seed, fresh=True)
        part = domain_part(meter, [window(*counts)])
        assert not isinstance(part, str), part
        inside += abs(part.joules.value - truth) <= part.random_j
    assert inside >= 180, f"{shape}: {inside} of 200 inside"


def test_a_gauge_that_falls_silent_is_a_refusal_with_the_reason():
    clock, shown = SimulatedClock(), {"package-0": 1000}
    answers: dict[str, dict[str, int | str]] = {"now": dict(shown)}
    poller = GaugePoller("test", lambda: answers["now"], ["package-0"], 0.1, clock, fresh=False)
    (nothing,) = poller.snapshot()
    assert "no reading yet" in getattr(nothing, "reason", "")
    poller.poll()
    answers["now"] = {"package-0": "EAGAIN"}
    clock.advance(0.2)
    poller.poll()
    (still,) = poller.snapshot()
    assert getattr(still, "count", None) == 1000 * 200_000_000, "one lost poll is bridged, not a hole"
    clock.advance(1.5)
    poller.poll()
    answers["now"] = dict(shown)
    poller.poll()
    (lost,) = poller.snapshot()
    assert "EAGAIN" in getattr(lost, "reason", ""), "what was missed cannot be had later"
