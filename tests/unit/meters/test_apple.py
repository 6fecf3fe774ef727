"""The reader of Apple chips on a made-up `zeus_apple_silicon`."""

from __future__ import annotations

import platform
import sys
from fractions import Fraction
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from fake_nvml import FakeClock

from perjoule.meters.apple import AppleMeter
from perjoule.meters.compose import Composition
from perjoule.protocols import Count
from perjoule.records import MeterRefusal

WATTS = {"cpu_total_mj": 12.0, "gpu_mj": 0.5, "dram_mj": 2.0, "ane_mj": 0.0}


class FakeMac:
    """IOReport: counters in mJ since boot, at ``watts`` each; a field that is None is not reported."""

    def __init__(self, patch: pytest.MonkeyPatch, **watts: float | None) -> None:
        self.clock = FakeClock()
        self.watts: dict[str, float | None] = {**WATTS, **watts}
        self.forced: dict[str, Any] = {}
        self.error: Exception | None = None
        module: Any = ModuleType("zeus_apple_silicon")
        module.AppleEnergyMonitor = lambda: SimpleNamespace(get_cumulative_energy=self._told)
        patch.setitem(sys.modules, "zeus_apple_silicon", module)
        patch.setattr(platform, "system", lambda: "Darwin")

    def _told(self) -> Any:
        if self.error is not None:
            raise self.error
        seconds = self.clock.now_ns() / 1e9
        fields = {name: None if w is None else 10**9 + int(w * seconds * 1e3) for name, w in self.watts.items()}
        return SimpleNamespace(**{**fields, **self.forced})


def test_cores_graphics_and_memory_stand_side_by_side_and_add_up(monkeypatch: pytest.MonkeyPatch):
    mac = FakeMac(monkeypatch)
    meter = AppleMeter(mac.clock)
    probe = meter.probe()
    meter.open()
    assert [f.domain for f in probe.domains] == ["package-0", "package-0:igpu", "package-0:dram"]
    assert {(f.label, f.grade, f.tolerance, f.unit_j) for f in probe.domains} == {
        ("measured", "apple-ioreport", 0.15, "1/1000")
    }
    composition = Composition(probe.domains)
    assert [f.domain for f in composition.counted] == ["package-0", "package-0:igpu", "package-0:dram"]
    assert Composition(probe.domains, probe.refusals).incomplete() is None
    before = meter.read()
    mac.clock.sleep(20.0)
    after = meter.read()
    joules = {
        a.domain: float((a.count - b.count) * Fraction(1, 1000))
        for a, b in zip(after, before, strict=True)
        if isinstance(a, Count) and isinstance(b, Count)
    }
    assert joules == {"package-0": 240.0, "package-0:igpu": 10.0, "package-0:dram": 40.0}


def test_a_field_that_the_chip_lacks_is_refused_and_the_rest_is_read(monkeypatch: pytest.MonkeyPatch):
    mac = FakeMac(monkeypatch, dram_mj=None)
    probe = AppleMeter(mac.clock).probe()
    assert [f.domain for f in probe.domains] == ["package-0", "package-0:igpu"]
    assert "dram_mj" in probe.refusals[0].reason
    assert Composition(probe.domains, probe.refusals).incomplete() is None
    mac.watts["cpu_total_mj"] = None
    probe = AppleMeter(mac.clock).probe()
    assert Composition(probe.domains, probe.refusals).incomplete() is not None


@pytest.mark.parametrize(
    ("field", "forced", "says"),
    [
        ("cpu_total_mj", 10**9 + 60_000, "frozen"),
        ("cpu_total_mj", 5, "went backwards"),
        ("cpu_total_mj", None, "does not report"),
        ("dram_mj", -1, "-1 is no count"),
        ("dram_mj", 1.5, "1.5 is no count"),
    ],
)
def test_a_counter_that_stands_still_or_breaks_is_a_refusal_not_a_zero(
    monkeypatch: pytest.MonkeyPatch, field: str, forced: Any, says: str
):
    mac = FakeMac(monkeypatch)
    meter = AppleMeter(mac.clock)
    meter.probe()
    meter.read()
    mac.forced[field] = forced
    if says == "frozen":
        meter.read()
    mac.clock.sleep(11.0)
    readings = meter.read()
    refusals = [r for r in readings if isinstance(r, MeterRefusal)]
    assert len(readings) == 3
    assert [says in r.reason for r in refusals] == [True]


def test_graphics_may_rest(monkeypatch: pytest.MonkeyPatch):
    mac = FakeMac(monkeypatch, gpu_mj=0.0)
    meter = AppleMeter(mac.clock)
    meter.probe()
    for _ in range(3):
        assert all(isinstance(r, Count) for r in meter.read())
        mac.clock.sleep(30.0)


def test_a_monitor_that_fails_during_the_run_refuses_every_domain(monkeypatch: pytest.MonkeyPatch):
    mac = FakeMac(monkeypatch)
    meter = AppleMeter(mac.clock)
    meter.probe()
    mac.error = RuntimeError("Failed to create IOReport subscription.")
    refusals = meter.read()
    assert [r.domain for r in refusals] == ["package-0", "package-0:igpu", "package-0:dram"]
    assert all("IOReport" in r.reason for r in refusals if isinstance(r, MeterRefusal))
    assert AppleMeter(mac.clock).probe().refusals[0].fix == "pip install 'perjoule[apple]' on an Apple chip"
    meter.close()
    assert meter.read() == []


def test_elsewhere_it_refuses_in_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    (refusal,) = AppleMeter().probe().refusals
    assert refusal.reason == "Apple silicon is metered under macOS; this is Linux"
    assert refusal.fix
