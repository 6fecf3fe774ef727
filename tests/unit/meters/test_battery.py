"""The battery: only while it is discharged, in every unit that fuel gauges use."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from simulated import add_supply, sysfs_of, use_tree
from traces import SimulatedClock

from perjoule.meters.battery import BatteryMeter
from perjoule.protocols import Count
from perjoule.records import MeterFact, MeterRefusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POWERS: dict[str, dict[str, int | str]] = {  # each is 12 W
    "uW": {"power_now": 12_000_000, "energy_now": 40_000_000},
    "uW, negative": {"power_now": -12_000_000},
    "uA": {"current_now": 1_000_000, "voltage_now": 12_000_000, "charge_now": 3_000_000},
    "uA, negative": {"current_now": -1_000_000, "voltage_now": 12_000_000},
    "a power that the firmware does not know": {
        "power_now": 0, "current_now": 1_000_000, "voltage_now": 12_000_000,
    },
}  # fmt: skip
LEFT: dict[str, tuple[dict[str, int | str], str, int]] = {  # what falls by how much in an hour at 12 W
    "uWh": ({"energy_now": 40_000_000}, "energy_now", 12_000_000),
    "uAh": ({"charge_now": 3_000_000, "voltage_now": 12_000_000}, "charge_now", 1_000_000),
}


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return sysfs_of(use_tree(tmp_path, monkeypatch))


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


@pytest.fixture
def meter(clock: SimulatedClock) -> Iterator[BatteryMeter]:
    made = BatteryMeter(clock)
    yield made
    made.close()


def started(meter: BatteryMeter) -> MeterFact:
    (fact,) = meter.probe().domains
    meter.open()
    return fact


def count(meter: BatteryMeter) -> int:
    (reading,) = meter.read()
    assert isinstance(reading, Count), reading
    return reading.count


def refused(meter: BatteryMeter) -> MeterRefusal:
    (reading,) = meter.read()
    assert isinstance(reading, MeterRefusal), reading
    return reading


@pytest.mark.parametrize("unit", POWERS)
def test_power_is_integrated_whatever_its_unit_and_sign(
    sysfs: Path, meter: BatteryMeter, clock: SimulatedClock, unit: str
):
    add_supply(sysfs, "AC", "Mains", online=0)
    add_supply(sysfs, "BAT0", "Battery", status="Discharging", **POWERS[unit])
    fact = started(meter)
    assert (fact.domain, fact.scope, fact.kind, fact.min_window_s) == ("battery", "battery", "gauge", 300.0)
    start = count(meter)
    for _ in range(300):
        clock.advance(1.0)
        meter._gauges.poll()  # type: ignore[union-attr]
    assert (count(meter) - start) * Fraction(fact.unit_j or "0") == 3600


@pytest.mark.parametrize("unit", LEFT)
def test_energy_left_is_followed_as_it_falls(sysfs: Path, meter: BatteryMeter, clock: SimulatedClock, unit: str):
    files, falls, an_hour = LEFT[unit]
    folder = add_supply(sysfs, "BAT1", "Battery", status="Discharging", **files)
    fact = started(meter)
    assert fact.kind == "counter"
    start, left = count(meter), int(files[falls])
    for _ in range(5):
        clock.advance(60.0)
        left -= an_hour // 60
        (folder / falls).write_text(f"{left}\n")
        meter.step()
    assert float((count(meter) - start) * Fraction(fact.unit_j or "0")) == pytest.approx(3600.0, rel=1e-4)


def test_energy_that_rises_ends_the_domain(sysfs: Path, meter: BatteryMeter):
    folder = add_supply(sysfs, "BAT0", "Battery", status="Discharging", energy_now=40_000_000)
    started(meter)
    for energy in (41_000_000, 39_000_000):
        (folder / "energy_now").write_text(f"{energy}\n")
        assert "rose by 1000000" in refused(meter).reason


@pytest.mark.parametrize("files", [POWERS["uW"], LEFT["uAh"][0]])
def test_a_status_that_changes_ends_the_domain_even_if_it_changes_back(
    sysfs: Path, meter: BatteryMeter, files: dict[str, int | str]
):
    folder = add_supply(sysfs, "BAT0", "Battery", status="Discharging", **files)
    started(meter)
    assert count(meter) == 0
    (folder / "status").write_text("Charging\n")
    meter.step()
    if meter._gauges is not None:
        meter._gauges.poll()
    (folder / "status").write_text("Discharging\n")
    refusal = refused(meter)
    assert "Charging" in refusal.reason
    assert "unplug" in refusal.fix
    assert refusal.domain == "battery"


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging", "Unknown", "", "7" * 5000])
def test_a_battery_that_is_not_discharged_is_refused(sysfs: Path, meter: BatteryMeter, status: str):
    add_supply(sysfs, "BAT0", "Battery", status=status, power_now=12_000_000)
    probe = meter.probe()
    assert not probe.domains
    assert "status" in probe.refusals[0].reason
    assert "unplug" in probe.refusals[0].fix


def test_a_charger_that_is_plugged_in_is_refused_whatever_the_battery_says(sysfs: Path, meter: BatteryMeter):
    add_supply(sysfs, "AC", "Mains", online=1)
    add_supply(sysfs, "BAT0", "Battery", status="Discharging", power_now=12_000_000)
    (refusal,) = meter.probe().refusals
    assert "charger (AC)" in refusal.reason


def test_two_batteries_are_two_domains(sysfs: Path, meter: BatteryMeter):
    add_supply(sysfs, "BAT0", "Battery", status="Discharging", power_now=12_000_000)
    add_supply(sysfs, "BAT1", "Battery", status="Not charging", power_now=0)
    probe = meter.probe()
    assert [f.domain for f in probe.domains] == ["battery-0"]
    assert [r.domain for r in probe.refusals] == ["battery-1"]


def test_no_battery_is_a_refusal(sysfs: Path, meter: BatteryMeter):
    add_supply(sysfs, "BAT9", "USB", status="Discharging", power_now=5)
    assert meter.probe().refusals[0].reason == "no battery"


@pytest.mark.parametrize("text", ["", "x", "1.5", "9" * 15, "9" * 40, "7" * 5000])
def test_malformed_power_is_refused_at_probe(sysfs: Path, meter: BatteryMeter, text: str):
    add_supply(sysfs, "BAT0", "Battery", status="Discharging", power_now=text)
    probe = meter.probe()
    assert not probe.domains
    assert "power" in probe.refusals[0].reason or "not a reading" in probe.refusals[0].reason


def test_a_failing_file_is_a_refusal_not_the_last_count(sysfs: Path, meter: BatteryMeter):
    folder = add_supply(sysfs, "BAT0", "Battery", status="Discharging", energy_now=40_000_000)
    started(meter)
    for text in ("-1", "x"):
        (folder / "energy_now").write_text(text)
        assert "energy_now" in refused(meter).reason
