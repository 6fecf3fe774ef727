"""hwmon drivers by name: what is read, in which unit, and what is refused rather than guessed."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from simulated import add_grace, add_hwmon, add_ina3221, sysfs_of, use_tree, write_files
from traces import SimulatedClock

from perjoule.meters.compose import Composition
from perjoule.meters.hwmon import HwmonMeter
from perjoule.protocols import Count, Probe
from perjoule.records import MeterFact, MeterRefusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return sysfs_of(use_tree(tmp_path, monkeypatch))


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


@pytest.fixture
def meter(clock: SimulatedClock) -> Iterator[HwmonMeter]:
    made = HwmonMeter(clock)
    yield made
    made.close()


def by_name(probe: Probe) -> dict[str, MeterFact]:
    return {fact.domain: fact for fact in probe.domains}


def joules_in_10_s(meter: HwmonMeter, clock: SimulatedClock) -> dict[str, float]:
    """Integrate every gauge over ten seconds of constant power."""
    facts = by_name(meter.probe())
    meter.open()
    before = {r.domain: r.count for r in meter.read() if isinstance(r, Count)}
    for _ in range(20):
        clock.advance(0.5)
        after = {r.domain: r.count for r in meter.read() if isinstance(r, Count)}
    return {d: float((after[d] - before[d]) * Fraction(f.unit_j or "0")) for d, f in facts.items()}


@pytest.mark.parametrize("driver", ["amd_energy", "zenergy"])
def test_sockets_are_taken_and_cores_that_repeat_them_are_not(
    sysfs: Path, meter: HwmonMeter, clock: SimulatedClock, driver: str
):
    for node in (0, 1):
        write_files(sysfs / f"devices/system/node/node{node}")
    labels = ["Ecore000", "Ecore001", "Esocket0", "Esocket1"]
    files = {f"energy{n}_label": text for n, text in enumerate(labels, 1)}
    folder = add_hwmon(sysfs, 3, driver, **files, **{f"energy{n}_input": 10**6 * n for n in range(1, 5)})
    found = by_name(meter.probe())
    assert list(found) == ["package-0", "package-1"]
    assert {(f.scope, f.grade, f.unit_j) for f in found.values()} == {("package", "amd-rapl", "1/1000000")}
    clock.advance(0.5)
    (folder / "energy3_input").write_text("3500000\n")
    counts = [r.count for r in meter.read() if isinstance(r, Count)]
    assert counts == [3_500_000, 4_000_000]


def test_a_second_socket_that_may_repeat_the_first_is_refused(sysfs: Path, meter: HwmonMeter):
    for node in range(4):
        write_files(sysfs / f"devices/system/node/node{node}")
    add_hwmon(
        sysfs, 0, "amd_energy", energy1_label="Esocket0", energy1_input=5, energy2_label="Esocket1", energy2_input=5
    )
    probe = meter.probe()
    assert list(by_name(probe)) == ["package-0"]
    assert [r.domain for r in probe.refusals] == ["package-1"]
    assert Composition(probe.domains, probe.refusals).incomplete()  # one socket of two is not the host


def test_grace_hopper_is_a_module_with_a_socket_inside(sysfs: Path, meter: HwmonMeter, clock: SimulatedClock):
    for number, (sensor, watts) in enumerate(
        [("CPU", 40), ("SysIO", 10), ("Grace", 60), ("Module", 300)], 1
    ):  # fmt: skip
        add_grace(sysfs, number, f"{sensor} Power Socket 0", watts * 10**6)
    probe = meter.probe()
    found = by_name(probe)
    assert {d: (f.scope, f.parent) for d, f in found.items()} == {
        "module-0": ("module", None), "package-0": ("package", "module-0"),
        "package-0:core": ("core", "package-0"), "package-0:soc": ("uncore", "package-0"),
    }  # fmt: skip
    assert found["module-0"].tick_s == 0.05
    assert "average over 0.05 s" in (found["module-0"].note or "")
    assert [f.domain for f in Composition(probe.domains).counted] == ["module-0"]
    assert joules_in_10_s(meter, clock) == pytest.approx(
        {"module-0": 3000, "package-0": 600, "package-0:core": 400, "package-0:soc": 100}
    )


def test_a_grace_socket_without_a_module_has_no_parent(sysfs: Path, meter: HwmonMeter):
    add_grace(sysfs, 1, "Grace Power Socket 1", 60_000_000)
    assert by_name(meter.probe())["package-1"].parent is None


def test_any_other_acpi_meter_is_of_the_chassis(sysfs: Path, meter: HwmonMeter):
    add_hwmon(sysfs, 0, "power_meter", power1_average=200_000_000, power1_average_interval=1000, power1_oem_info="PSU")
    (fact,) = meter.probe().domains
    assert (fact.domain, fact.scope, fact.tick_s, fact.min_window_s) == ("chassis-0", "chassis", 1.0, 100.0)


def test_a_jetson_in_mv_and_ma_has_a_module_and_rails_inside(sysfs: Path, meter: HwmonMeter, clock: SimulatedClock):
    add_ina3221(sysfs, 2, ("VDD_IN", 5000, 2000), ("VDD_CPU_GPU_CV", 5000, 800), ("NC", 0, 0))
    probe = meter.probe()
    assert {d: (f.scope, f.parent) for d, f in by_name(probe).items()} == {
        "module": ("module", None), "rail-vdd_cpu_gpu_cv": ("rail", "module"),
    }  # fmt: skip
    assert Composition(probe.domains).scope == "module"
    assert joules_in_10_s(meter, clock) == pytest.approx({"module": 100.0, "rail-vdd_cpu_gpu_cv": 40.0})


@pytest.mark.parametrize("folder", ["1-0040/iio:device0", "1-0040/iio_device"])
def test_a_jetson_with_an_older_kernel_is_read_in_mw(
    sysfs: Path, meter: HwmonMeter, clock: SimulatedClock, folder: str
):
    chip = sysfs / "bus/i2c/drivers/ina3221x" / folder
    write_files(chip, rail_name_0="POM_5V_IN", in_power0_input=2500, rail_name_1="POM_5V_GPU", in_power1_input=400)
    assert joules_in_10_s(meter, clock) == pytest.approx({"module": 25.0, "rail-pom_5v_gpu": 4.0})


def test_boards_are_numbered_after_those_of_nvml_and_an_apu_is_no_board(
    sysfs: Path, meter: HwmonMeter, clock: SimulatedClock
):
    write_files(sysfs / "bus/pci/drivers/nvidia/0000:01:00.0")
    add_hwmon(sysfs, 0, "amdgpu", power1_average=15_000_000, power1_label="PPT")
    add_hwmon(sysfs, 1, "amdgpu", power1_input=80_000_000, power1_label="PPT", power1_cap=300_000_000)
    add_hwmon(sysfs, 2, "xe", energy1_input=10, energy1_label="card", energy2_input=5, energy2_label="pkg")
    add_hwmon(sysfs, 3, "xe", energy2_input=7, energy2_label="pkg")
    add_hwmon(sysfs, 4, "i915", energy1_input=9)
    add_hwmon(sysfs, 5, "i915_gt0", energy1_input=9)
    probe = meter.probe()
    kinds = {d: (f.kind, f.grade) for d, f in by_name(probe).items()}
    assert kinds == {
        "gpu-1": ("gauge", "amdgpu"), "gpu-2": ("counter", "intel-gpu"), "gpu-3": ("counter", "intel-gpu"),
        "gpu-4": ("counter", "intel-gpu"),
    }  # fmt: skip
    assert ["APU" in r.reason for r in probe.refusals] == [True]
    clock.advance(5.0)  # boards at rest draw nothing their counter sees: not frozen
    assert [r.count for r in meter.read() if isinstance(r, Count)] == [10, 7, 9]


def test_regulators_of_an_ampere_are_parts_without_a_whole(sysfs: Path, meter: HwmonMeter, clock: SimulatedClock):
    add_hwmon(
        sysfs, 0, "smpro_hwmon", power1_input=30_000_000, power1_label="power1 CORE VRD", power2_input=9_000_000,
        power2_label="power2 SoC", power3_input=6_000_000, power3_label="power3 DIMM VRD1",
    )  # fmt: skip
    add_hwmon(sysfs, 1, "apm_xgene", power1_input=8_000_000, power1_label="CPU power")
    probe = meter.probe()
    assert {d: f.scope for d, f in by_name(probe).items()} == {
        "package-0:core_vrd": "core", "package-0:soc": "uncore", "package-0:dimm_vrd1": "dram",
        "package-0:cpu_power": "core",
    }  # fmt: skip
    assert "no sensor covers" in str(Composition(probe.domains).incomplete())
    assert joules_in_10_s(meter, clock)["package-0:core_vrd"] == pytest.approx(300.0)


def test_an_unknown_driver_is_refused_by_name_only_where_it_shows_power(sysfs: Path, meter: HwmonMeter):
    add_hwmon(sysfs, 0, "coretemp", temp1_input=40_000)
    add_hwmon(sysfs, 1, "zenpower", power1_input=20_000_000)
    add_hwmon(sysfs, 2, "corsairpsu", in_device=True, power1_input=90_000_000)
    refusals = meter.probe().refusals
    assert ["zenpower" in r.reason or "corsairpsu" in r.reason for r in refusals] == [True, True]
    assert all(r.fix for r in refusals)


def test_nothing_at_all_is_one_refusal(sysfs: Path, meter: HwmonMeter):
    assert sysfs.exists()
    (refusal,) = meter.probe().refusals
    assert "no sensor of power or energy" in refusal.reason


@pytest.mark.parametrize("text", ["", "x", "-5", "1.5", "9" * 15, "9" * 40, "7" * 5000])
def test_a_malformed_gauge_or_counter_is_refused_and_the_other_stays(sysfs: Path, meter: HwmonMeter, text: str):
    add_hwmon(sysfs, 0, "power_meter", power1_average=text)
    add_hwmon(sysfs, 1, "amdgpu", power1_average=5_000_000, power1_cap=9)
    add_hwmon(sysfs, 2, "xe", energy1_input=text if text != "9" * 15 else "x")
    probe = meter.probe()
    assert list(by_name(probe)) == ["gpu-0"]
    assert {r.domain for r in probe.refusals} == {"chassis-0", "gpu-1"}


def test_malformed_labels_and_intervals_end_one_device_only(sysfs: Path, meter: HwmonMeter):
    add_hwmon(sysfs, 0, "power_meter", power1_average=5_000_000, power1_average_interval="soon")
    add_hwmon(sysfs, 1, "amd_energy", energy1_input=5, energy1_label="7" * 5000)
    add_hwmon(sysfs, 2, "7" * 5000, power1_input=5)
    add_ina3221(sysfs, 3, ("VDD_IN", 5000, 1000))
    probe = meter.probe()
    assert list(by_name(probe)) == ["module"]
    assert len(probe.refusals) == 3


def test_a_gauge_that_fails_for_long_is_a_refusal_not_a_zero(sysfs: Path, meter: HwmonMeter, clock: SimulatedClock):
    folder = add_hwmon(sysfs, 0, "power_meter", power1_average=5_000_000)
    meter.probe()
    meter.open()
    (folder / "power1_average").write_text("-1\n")
    clock.advance(2.0)
    (reading,) = meter.read()
    assert isinstance(reading, MeterRefusal)
    assert "chassis-0" in reading.reason
