"""The RAPL reader on trees like the kernel's: which domains, which counts, and what is refused with a reason."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from simulated import AMD_RANGE_UJ, WRAP_UJ, add_domain, use_tree
from traces import SimulatedClock

from perjoule.meters import open_meters, sysfs
from perjoule.meters.counters import CounterSet, domain_joules
from perjoule.meters.powercap import POLL_S, PowercapMeter
from perjoule.protocols import Count
from perjoule.records import MeterFact, MeterRefusal, Reading, Window

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_tree(tmp_path, monkeypatch)


@pytest.fixture
def amd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_tree(tmp_path, monkeypatch, vendor="AuthenticAMD", family=25, model=17)


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


@pytest.fixture
def meter(clock: SimulatedClock) -> Iterator[PowercapMeter]:
    made = PowercapMeter(clock)
    yield made
    made.close()


def facts(meter: PowercapMeter) -> dict[str, MeterFact]:
    return {fact.domain: fact for fact in meter.probe().domains}


def only(meter: PowercapMeter) -> Count | MeterRefusal:
    (reading,) = meter.read()
    return reading


def count(meter: PowercapMeter) -> int:
    reading = only(meter)
    assert isinstance(reading, Count), reading
    return reading.count


def reason(meter: PowercapMeter) -> str:
    reading = only(meter)
    assert isinstance(reading, MeterRefusal), reading
    assert reading.domain
    assert reading.fix
    return reading.reason


def window(start: int, end: int, seconds: float = 10.0) -> Window:
    return Window(
        id="0.0/decode", process=0, phase="decode", start_s=0.0, end_s=seconds, cpu_s=1.0, steal_s=0.0,
        foreign_cpu_s=0.0, bytes_streamed=1,
        readings=(Reading(domain="package-0", start_count=start, end_count=end),),
    )  # fmt: skip


def test_a_laptop_whose_second_index_is_the_platform_and_whose_package_has_an_mmio_twin(
    powercap: Path, meter: PowercapMeter
):
    for folder, name in (
        ("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:0:1", "uncore"),
        ("intel-rapl:0:2", "dram"), ("intel-rapl:1", "psys"), ("intel-rapl-mmio:0", "package-0"),
    ):  # fmt: skip
        add_domain(powercap, folder, name)
    found = facts(meter)
    assert {d: (f.scope, f.parent) for d, f in found.items()} == {
        "package-0": ("package", None), "package-0:core": ("core", "package-0"),
        "package-0:uncore": ("uncore", "package-0"), "package-0:dram": ("dram", None), "psys": ("platform", None),
    }  # fmt: skip
    assert {f.grade for f in found.values()} == {"rapl-package", "rapl-dram", "rapl-psys"}
    assert all(f.simulated and f.only_simulated and f.wrap_count == WRAP_UJ + 1 for f in found.values())
    counted = CounterSet(tuple(found.values()))
    assert ([f.domain for f in counted.counted], counted.scope) == (["package-0", "package-0:dram"], "package+dram")


def test_the_mmio_twin_is_read_where_it_is_alone(powercap: Path, meter: PowercapMeter):
    add_domain(powercap, "intel-rapl-mmio:0", "package-0")
    assert list(facts(meter)) == ["package-0"]


def test_two_sockets_with_two_dies_each_are_all_listed(powercap: Path, meter: PowercapMeter):
    names = [f"package-{p}-die-{d}" for p in (0, 1) for d in (0, 1)]
    for index, name in enumerate(names):
        add_domain(powercap, f"intel-rapl:{index}", name)
        add_domain(powercap, f"intel-rapl:{index}:0", "dram")
    found = facts(meter)
    assert sorted(found) == sorted([*names, *(f"{n}:dram" for n in names)])
    assert {f.scope for f in found.values()} == {"package", "dram"}


def test_counts_are_read_raw_and_one_wrap_is_added_back(powercap: Path, meter: PowercapMeter, clock: SimulatedClock):
    counter = add_domain(powercap, "intel-rapl:0", "package-0", WRAP_UJ - 999_999)
    (fact,) = meter.probe().domains
    meter.open()
    start = count(meter)
    assert start == WRAP_UJ - 999_999
    clock.advance(10.0)
    counter.write_text("1000000\n")
    assert domain_joules(fact, [window(start, count(meter))]) == pytest.approx(2.0)


def test_an_amd_without_memory_wraps_soon_and_is_summed_by_the_poller(
    amd: Path, meter: PowercapMeter, clock: SimulatedClock
):
    counter = add_domain(amd, "intel-rapl:0", "package-0", 60_000_000_000, AMD_RANGE_UJ)
    (fact,) = meter.probe().domains
    assert (fact.grade, fact.tolerance, fact.wrap_count) == ("amd-rapl", 0.10, None)
    assert "summed across wraps" in fact.source
    start, energy_uj = count(meter), 60_000_000_000
    for _ in range(20):  # 600 s at 400 W: 240 kJ, four wraps
        clock.advance(POLL_S)
        energy_uj += 400 * int(POLL_S) * 10**6
        counter.write_text(f"{energy_uj % (AMD_RANGE_UJ + 1)}\n")
        meter.poll()
    assert domain_joules(fact, [window(start, count(meter), 600.0)]) == pytest.approx(240_000.0)


def test_a_summed_counter_that_was_not_read_for_too_long_has_ended(
    amd: Path, meter: PowercapMeter, clock: SimulatedClock
):
    counter = add_domain(amd, "intel-rapl:0", "package-0", 5, AMD_RANGE_UJ)
    meter.probe()
    clock.advance(3600.0)
    counter.write_text("1000000\n")
    assert "may have wrapped unseen" in reason(meter)
    counter.write_text("1100000\n")
    assert "may have wrapped unseen" in reason(meter)


def test_a_counter_that_stands_still_is_frozen_but_resting_graphics_are_not(
    powercap: Path, meter: PowercapMeter, clock: SimulatedClock
):
    add_domain(powercap, "intel-rapl:0", "package-0")
    add_domain(powercap, "intel-rapl:0:0", "uncore")
    meter.probe()
    clock.advance(0.5)
    assert all(isinstance(r, Count) for r in meter.read())
    clock.advance(2.0)
    package, uncore = meter.read()
    assert isinstance(package, MeterRefusal)
    assert "frozen" in package.reason
    assert isinstance(uncore, Count)


def test_a_counter_that_goes_back_was_reset_not_wrapped(powercap: Path, meter: PowercapMeter, clock: SimulatedClock):
    counter = add_domain(powercap, "intel-rapl:0", "package-0", 9_000_000)
    meter.probe()
    clock.advance(1.0)
    counter.write_text("1000000\n")
    assert "went backwards by 8 J" in reason(meter)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a count"), ("garbage", "not a count"), ("1.5", "not a count"), ("1e9", "not a count"),
        ("-5", "negative"), (str(WRAP_UJ + 1), "more than"), ("9" * 40, "more than 64 bits"), ("7" * 5000, "longer"),
        ("\u0664\u0662", "not ASCII"),
    ],
)  # fmt: skip
def test_a_malformed_counter_is_refused_at_probe_and_during_the_run(
    powercap: Path, meter: PowercapMeter, text: str, why: str
):
    counter = add_domain(powercap, "intel-rapl:0", "package-0", text)
    probe = meter.probe()
    assert not probe.domains
    assert [r.domain for r in probe.refusals] == ["package-0"]
    assert why in probe.refusals[0].reason
    counter.write_text("1000\n")
    assert meter.probe().domains
    counter.write_text(text)
    assert why in reason(meter)


@pytest.mark.parametrize("text", ["", "x", "-1", "9" * 30])
def test_a_malformed_range_is_refused(powercap: Path, meter: PowercapMeter, text: str):
    add_domain(powercap, "intel-rapl:0", "package-0", 5, text)
    probe = meter.probe()
    assert not probe.domains
    assert "max_energy_range_uj" in probe.refusals[0].reason


@pytest.mark.parametrize("name", ["gpu", "package-x", "../../psys", "package-0\nroot"])
def test_a_domain_of_an_unknown_name_is_refused(powercap: Path, meter: PowercapMeter, name: str):
    add_domain(powercap, "intel-rapl:0", name)
    probe = meter.probe()
    assert not probe.domains
    assert "unknown domain" in probe.refusals[0].reason


@pytest.mark.parametrize(
    ("number", "why", "fix"),
    [(errno.EACCES, "Permission denied", "chmod a+r"), (errno.EAGAIN, "unavailable", "dmesg"),
     (errno.ENODATA, "No data", "dmesg"), (errno.EIO, "Input/output", "dmesg")],
)  # fmt: skip
def test_an_error_of_the_kernel_is_a_refusal_with_its_fix(
    powercap: Path, meter: PowercapMeter, monkeypatch: pytest.MonkeyPatch, number: int, why: str, fix: str
):
    counter = add_domain(powercap, "intel-rapl:0", "package-0")
    real = sysfs.read_text

    def failing(path: Path) -> str:
        if path == counter:
            raise OSError(number, os.strerror(number))
        return real(path)

    assert meter.probe().domains
    monkeypatch.setattr(sysfs, "read_text", failing)
    assert why in reason(meter)
    probe = meter.probe()
    assert not probe.domains
    assert why in probe.refusals[0].reason
    assert fix in probe.refusals[0].fix


def test_a_pipe_in_place_of_a_counter_does_not_block(powercap: Path, meter: PowercapMeter):
    counter = add_domain(powercap, "intel-rapl:0", "package-0")
    counter.unlink()
    os.mkfifo(counter)
    writer = os.open(counter, os.O_RDWR)
    try:
        assert "unavailable" in meter.probe().refusals[0].reason  # EAGAIN
    finally:
        os.close(writer)


def test_a_vanished_counter_and_a_folder_in_its_place_are_refusals_not_zero(powercap: Path, meter: PowercapMeter):
    counter = add_domain(powercap, "intel-rapl:0", "package-0")
    add_domain(powercap, "intel-rapl:1", "package-1")
    meter.probe()
    counter.unlink()
    first, second = meter.read()
    assert isinstance(first, MeterRefusal)
    assert isinstance(second, Count)
    counter.mkdir()
    assert isinstance(meter.read()[0], MeterRefusal)


def test_no_powercap_is_refused_with_a_fix_and_a_set_of_meters_has_the_facts(powercap: Path):
    with open_meters(["rapl-powercap"]) as meters:
        assert not meters.facts
        assert "virtual machine" in meters.refusals[0].reason
        assert meters.refusals[0].fix
    add_domain(powercap, "intel-rapl:0", "package-0", 4242)
    with open_meters(["rapl-powercap"]) as meters:
        assert [f.domain for f in meters.facts] == ["package-0"]
        assert [r.count for r in meters.read() if isinstance(r, Count)] == [4242]
