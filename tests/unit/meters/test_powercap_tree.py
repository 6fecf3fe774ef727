from __future__ import annotations

from pathlib import Path

import pytest
from simulated import WRAP_UJ, add_domain, use_tree

from perjoule.meters import open_meters
from perjoule.meters.counters import CounterSet, domain_joules
from perjoule.protocols import Count
from perjoule.records import MeterFact, Reading, Window


def window(**counts: tuple[int, int]) -> Window:
    return Window(
        id="0.0/decode", process=0, phase="decode", start_s=0.0, end_s=10.0, cpu_s=1.0, steal_s=0.0,
        foreign_cpu_s=0.0, bytes_streamed=1,
        readings=tuple(
            Reading(domain=d.replace("_", "-"), start_count=a, end_count=b) for d, (a, b) in counts.items()
        ),
    )  # fmt: skip


def package() -> MeterFact:
    return MeterFact(
        domain="package-0", scope="package-0", kind="counter", label="measured", grade="rapl-package",
        tick_s=0.001, source="made up", unit_j="1/1000000", wrap_count=WRAP_UJ + 1, min_window_s=1.0,
    )  # fmt: skip


def test_packages_and_dram_are_counted_psys_core_and_mmio_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    powercap = use_tree(tmp_path, monkeypatch)
    add_domain(powercap, "intel-rapl:0", "package-0")
    add_domain(powercap, "intel-rapl:0:0", "core")
    add_domain(powercap, "intel-rapl:0:1", "dram")
    add_domain(powercap, "intel-rapl:1", "psys")
    add_domain(powercap, "intel-rapl-mmio:0", "package-0")
    with open_meters(["rapl-powercap"]) as meters:
        counted = [m.domain for m in CounterSet(meters.facts).counted]
        assert counted == ["package-0", "package-0:dram"]
        assert CounterSet(meters.facts).scope == "package+dram"
        assert [m.domain for m in meters.facts].count("package-0") == 1
        assert all(m.simulated for m in meters.facts)


def test_read_returns_the_counters_text_and_a_vanished_file_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = add_domain(use_tree(tmp_path, monkeypatch), "intel-rapl:0", "package-0", 77)
    with open_meters(["rapl-powercap"]) as meters:
        (first,) = meters.read()
        assert isinstance(first, Count)
        assert first.count == 77
        counter.unlink()
        (second,) = meters.read()
        assert not isinstance(second, Count)
        assert "package-0" in second.reason


def test_a_counter_only_root_may_read_is_refused_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = add_domain(use_tree(tmp_path, monkeypatch), "intel-rapl:0", "package-0")
    real = Path.read_text

    def denied(self: Path, *args: str, **kwargs: str) -> str:
        if self == counter:
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", denied)
    with open_meters(["rapl-powercap"]) as meters:
        assert not meters.facts
        assert "Permission denied" in meters.refusals[0].reason
        assert "udev" in meters.refusals[0].fix


def test_no_powercap_is_a_refusal_not_a_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tree(tmp_path, monkeypatch)
    with open_meters(["rapl-powercap"]) as meters:
        assert not meters.facts
        assert "virtual machine" in meters.refusals[0].reason


def test_a_wrap_inside_the_window_is_added_back() -> None:
    joules = domain_joules(package(), [window(package_0=(WRAP_UJ - 999_999, 1_000_000))])
    assert joules == pytest.approx(2.0)


def test_a_counter_that_does_not_move_is_dead() -> None:
    assert "dead" in str(domain_joules(package(), [window(package_0=(5, 5))]))


def test_a_missing_reading_is_a_reason() -> None:
    assert "could not be read" in str(domain_joules(package(), [window()]))


def test_tolerance_and_tick_make_the_range() -> None:
    parts = CounterSet([package()]).parts([window(package_0=(0, 100_000_000))])
    assert not isinstance(parts, str)
    joules = parts[0].joules
    assert (joules.low, joules.value, joules.high) == pytest.approx((94.99, 100.0, 105.01))
