"""RAPL through perf: events, units and CPUs as the kernel shows them; the system call is the only thing faked."""

from __future__ import annotations

import errno
import os
import struct
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from simulated import add_power_pmu, sysfs_of, use_tree, write_files
from traces import SimulatedClock

from perjoule import host
from perjoule.meters import perf
from perjoule.meters.perf import PerfMeter
from perjoule.protocols import Count
from perjoule.records import MeterRefusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVENTS = {"energy-cores": 1, "energy-pkg": 2, "energy-ram": 3, "energy-gpu": 4, "energy-psys": 5}


class FakePmu:
    """Hands out a pipe per event; what is put into it is what the kernel would count."""

    def __init__(self) -> None:
        self.opened: list[tuple[int, int, int]] = []
        self.ends: list[int] = []
        self.error: OSError | None = None

    def open(self, kind: int, config: int, cpu: int) -> int:
        if self.error is not None:
            raise self.error
        self.opened.append((kind, config, cpu))
        ours, theirs = os.pipe()
        self.ends.append(theirs)
        return ours

    def put(self, *counts: int) -> None:
        for end, count in zip(self.ends, counts, strict=True):
            os.write(end, struct.pack("=Q", count))

    def close(self) -> None:
        for end in self.ends:
            os.close(end)
        self.ends = []


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = sysfs_of(use_tree(tmp_path, monkeypatch))
    monkeypatch.setattr(host, "simulated", lambda: False)
    write_files(tmp_path / "proc/sys/kernel", perf_event_paranoid=2)
    return root


@pytest.fixture
def pmu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePmu]:
    fake = FakePmu()
    monkeypatch.setattr(perf, "perf_event_open", fake.open)
    yield fake
    fake.close()


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


@pytest.fixture
def meter(clock: SimulatedClock) -> Iterator[PerfMeter]:
    made = PerfMeter(clock)
    yield made
    made.close()


def test_every_event_becomes_the_domain_it_counts(sysfs: Path, pmu: FakePmu, meter: PerfMeter):
    add_power_pmu(sysfs, EVENTS, {0: (0, 0), 28: (1, 0)})
    found = {f.domain: f for f in meter.probe().domains}
    assert {d: (f.scope, f.parent) for d, f in found.items() if "1" not in d} == {
        "package-0": ("package", None), "package-0:core": ("core", "package-0"), "package-0:dram": ("dram", None),
        "package-0:igpu": ("igpu", "package-0"), "psys": ("platform", None),
    }  # fmt: skip
    assert sorted(d for d in found if "1" in d) == [f"package-1{s}" for s in ("", ":core", ":dram", ":igpu")]
    assert all(Fraction(f.unit_j or "") == Fraction(1, 2**32) and f.wrap_count is None for f in found.values())
    assert [(kind, config, cpu) for kind, config, cpu in pmu.opened if config == 2] == [(24, 2, 0), (24, 2, 28)]
    assert [cpu for _, config, cpu in pmu.opened if config == 5] == [0]  # one platform counter, not one per package


def test_dies_of_one_package_have_names_of_their_own(sysfs: Path, pmu: FakePmu, meter: PerfMeter):
    add_power_pmu(sysfs, {"energy-pkg": 2}, {0: (0, 0), 16: (0, 1), 32: (1, 0)})
    assert [f.domain for f in meter.probe().domains] == ["package-0-die-0", "package-0-die-1", "package-1"]
    assert len(pmu.opened) == 3


def test_counts_are_64_bits_and_go_on_above_the_registers_32(
    sysfs: Path, pmu: FakePmu, meter: PerfMeter, clock: SimulatedClock
):
    add_power_pmu(sysfs, {"energy-pkg": 2}, {0: (0, 0)})
    meter.probe()
    counts = []
    for count in (2**32 * 65_000, 2**32 * 66_000):
        pmu.put(count)
        (reading,) = meter.read()
        assert isinstance(reading, Count)
        counts.append(reading.count)
        clock.advance(10.0)
    assert (counts[1] - counts[0]) * Fraction(1, 2**32) == 1000


def test_frozen_backwards_and_stopped_events_are_refusals(
    sysfs: Path, pmu: FakePmu, meter: PerfMeter, clock: SimulatedClock
):
    add_power_pmu(sysfs, {"energy-pkg": 2}, {0: (0, 0)})
    meter.probe()
    pmu.put(2**40)
    meter.read()
    told = []
    for count in (2**40, 2**39):
        clock.advance(2.0)
        pmu.put(count)
        told += meter.read()
    pmu.close()
    told += meter.read()
    assert [isinstance(r, MeterRefusal) and r.domain for r in told] == ["package-0"] * 3
    reasons = [r.reason for r in told if isinstance(r, MeterRefusal)]
    assert [word in text for word, text in zip(("frozen", "backwards", "not counting"), reasons, strict=True)]


def test_no_right_to_count_names_the_setting_and_both_commands(sysfs: Path, pmu: FakePmu, meter: PerfMeter):
    add_power_pmu(sysfs, {"energy-pkg": 2}, {0: (0, 0)})
    pmu.error = OSError(errno.EACCES, os.strerror(errno.EACCES))
    (refusal,) = meter.probe().refusals
    assert refusal.domain == "package-0"
    assert "perf_event_paranoid is 2" in refusal.reason
    assert "sysctl kernel.perf_event_paranoid=0" in refusal.fix
    assert "setcap cap_perfmon+ep" in refusal.fix


def test_an_event_the_kernel_does_not_know_is_refused(sysfs: Path, pmu: FakePmu, meter: PerfMeter):
    add_power_pmu(sysfs, {"energy-pkg": 2}, {0: (0, 0)})
    pmu.error = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    (refusal,) = meter.probe().refusals
    assert "No such file" in refusal.reason


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("energy-pkg", "event=2"), ("energy-pkg", "umask=0x02"), ("energy-pkg.unit", "Watts"),
        ("energy-pkg.scale", "0"), ("energy-pkg.scale", "-1e-9"), ("energy-pkg.scale", "1e999999999"),
        ("energy-pkg.scale", "many"), ("energy-pkg.scale", "7" * 5000),
    ],
)  # fmt: skip
def test_a_malformed_event_is_refused_without_opening_it(
    sysfs: Path, pmu: FakePmu, meter: PerfMeter, name: str, text: str
):
    path = add_power_pmu(sysfs, {"energy-pkg": 2}, {0: (0, 0)})
    (path / "events" / name).write_text(text)
    probe = meter.probe()
    assert not probe.domains
    assert "energy-pkg" in probe.refusals[0].reason
    assert not pmu.opened


@pytest.mark.parametrize(("name", "text"), [("type", "-1"), ("type", "x"), ("cpumask", ""), ("cpumask", "0-x")])
def test_a_malformed_pmu_is_refused(sysfs: Path, meter: PerfMeter, name: str, text: str):
    path = add_power_pmu(sysfs, {"energy-pkg": 2}, {0: (0, 0)})
    (path / name).write_text(text)
    probe = meter.probe()
    assert not probe.domains
    assert "cannot be used" in probe.refusals[0].reason


def test_no_pmu_is_a_virtual_machine(sysfs: Path, meter: PerfMeter):
    assert sysfs.exists()
    assert "virtual machine" in meter.probe().refusals[0].reason


def test_perf_is_never_taken_for_a_simulated_sensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meter: PerfMeter):
    add_power_pmu(sysfs_of(use_tree(tmp_path, monkeypatch)), EVENTS, {0: (0, 0)})
    probe = meter.probe()
    assert not probe.domains
    assert "cannot be simulated" in probe.refusals[0].reason


def test_the_system_call_reaches_the_kernel():
    """An event type that does not exist is answered by the kernel itself, or forbidden by it."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is what is checked
        perf.perf_event_open(0x7FFFFFFF, 0, 0)
    assert caught.value.errno in {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOSYS}
