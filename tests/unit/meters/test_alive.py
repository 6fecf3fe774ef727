"""Counters watched under load: the update period is found, and what does not move is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from traces import NS, SimulatedClock

from perjoule import registry
from perjoule.meters import MeterSet, alive
from perjoule.meters.alive import MAX_LOAD_S, characterise
from perjoule.protocols import Count, Probe
from perjoule.records import MeterFact, MeterRefusal

if TYPE_CHECKING:
    from collections.abc import Sequence

CLOCK = SimulatedClock()
WATTS = {"package-0": 80.0, "package-0:dram": 5.0, "package-0:core": 0.0, "gpu-0": 90_000.0, "slow": 40.0}
TICKS = {"package-0": 0.001, "package-0:dram": 0.004, "package-0:core": 0.001, "gpu-0": 0.001, "slow": 0.3}


class FiveDomains:
    """Reads that take 50 us; counters in microjoules, updated at their own tick; one is dead, one impossible."""

    def probe(self) -> Probe:
        return Probe(domains=tuple(
            MeterFact(
                domain=d, scope="package", kind="counter", label="measured", grade="test", tick_s=0.001,
                source="test", unit_j="1/1000000", min_window_s=1.0,
            )
            for d in WATTS
        ))  # fmt: skip

    def open(self) -> None:
        return

    def read(self) -> Sequence[Count | MeterRefusal]:
        before_ns = CLOCK.ns
        CLOCK.advance(50e-6)
        now_s = CLOCK.ns / NS
        return [
            Count(domain=d, count=int(1e6 * w * (now_s - now_s % TICKS[d])), before_ns=before_ns, after_ns=CLOCK.ns)
            for d, w in WATTS.items()
        ]

    def close(self) -> None:
        return


class Explodes:
    def __init__(self, where: str) -> None:
        self._where = where

    def _maybe(self, here: str) -> None:
        if here == self._where:
            raise RuntimeError(f"the driver failed in {here}")

    def probe(self) -> Probe:
        self._maybe("probe")
        return Probe(domains=(FiveDomains().probe().domains[0],))

    def open(self) -> None:
        self._maybe("open")

    def read(self) -> Sequence[Count | MeterRefusal]:
        self._maybe("read")
        return []

    def close(self) -> None:
        self._maybe("close")


@pytest.fixture
def meters(monkeypatch: pytest.MonkeyPatch) -> MeterSet:
    monkeypatch.setattr(alive, "_LOOPS", 1)
    monkeypatch.setitem(registry.BUILT_IN["perjoule.meters"], "five", f"{__name__}:FiveDomains")
    monkeypatch.setattr(registry, "load", lambda _group, name: {"five": FiveDomains, "explodes": Explodes}[name])
    return MeterSet(["five"])


def test_ticks_are_found_dead_and_impossible_counters_are_refused(meters: MeterSet):
    with meters:
        begin_ns = CLOCK.ns
        characterise(meters, CLOCK)
        assert (CLOCK.ns - begin_ns) / NS <= MAX_LOAD_S + 0.1
        ticks = {f.domain: f.tick_s for f in meters.facts}
        assert set(ticks) == {"package-0", "package-0:dram", "slow"}
        assert ticks["package-0"] == pytest.approx(0.001, rel=0.05)
        assert ticks["package-0:dram"] == pytest.approx(0.004, rel=0.05)
        assert ticks["slow"] == pytest.approx(0.3, rel=0.05)
        windows = {f.domain: f.min_window_s for f in meters.facts}
        assert windows["package-0"] == 1.0
        assert windows["slow"] == pytest.approx(30.0, rel=0.05)
        reasons = {r.domain: r.reason for r in meters.refusals}
        assert "dead" in reasons["package-0:core"]
        assert "which no such part draws" in reasons["gpu-0"]


@pytest.mark.parametrize(("tdp_w", "kept"), [(None, True), (65.0, True), (40.0, False), (5000.0, False)])
def test_a_tdp_says_what_a_package_can_draw(meters: MeterSet, tdp_w: float | None, kept: bool):
    with meters:
        characterise(meters, CLOCK, tdp_w)
        assert ("package-0" in {f.domain for f in meters.facts}) is kept


def test_a_sensor_that_needs_more_patience_than_asked_for_is_left_out(meters: MeterSet):
    with meters:
        meters.found_tick("slow", 3.0, 300.0)
        meters.limit_windows(named=True)
        assert "slow" in {f.domain for f in meters.facts}
        meters.limit_windows(named=False)
        assert "slow" not in {f.domain for f in meters.facts}
        assert "--meter" in meters.refusals[-1].fix


@pytest.mark.parametrize("where", ["probe", "open"])
def test_a_meter_that_raises_is_a_refusal_and_the_others_go_on(meters: MeterSet, where: str):
    with MeterSet([f"explodes:{where}", "five"]) as both:
        assert len(both.facts) == len(WATTS)
        assert f"RuntimeError: the driver failed in {where}" in both.refusals[0].reason
    meters.close()


def test_a_meter_that_raises_when_read_gives_a_reason_each_time(meters: MeterSet):
    with MeterSet(["explodes:read"]) as one:
        (found,) = one.read()
        assert isinstance(found, MeterRefusal)
        assert "the driver failed in read" in found.reason
    meters.close()


def test_the_second_reader_of_a_domain_is_left_out_with_the_reason(meters: MeterSet):
    with MeterSet(["five", "five"]) as twice:
        assert len(twice.facts) == len(WATTS)
        assert "is read through" in twice.refusals[0].reason
        assert len(twice.read()) == len(WATTS)
    meters.close()
