"""Joules: the model against its worked example, counters against known truth, and what must be refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from builders import make_host, make_result

from perjoule.meters.counters import CounterSet, domain_joules
from perjoule.meters.model import HostModel, find_row, host_model
from perjoule.records import Energy, MeterFact, MeterRefusal, Reading, Window

if TYPE_CHECKING:
    from perjoule.meters.amounts import Range


def window(cpu_s: float = 2.0, seconds: float = 1.0, streamed: int = 10**10, **changes: object) -> Window:
    made = Window(
        id="0.0/decode", process=0, phase="decode", start_s=0.0, end_s=seconds, cpu_s=cpu_s, steal_s=0.0,
        foreign_cpu_s=0.0, bytes_streamed=streamed,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def counter(domain: str, **changes: object) -> MeterFact:
    part = domain.rpartition(":")[2].partition("-")[0]
    made = MeterFact(
        domain=domain, scope={"psys": "platform"}.get(part, part), kind="counter", label="measured",
        grade="rapl-package", tick_s=0.001, source="test", unit_j="1/1000000", wrap_count=10**9, min_window_s=1.0,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def joules(model: HostModel, one: Window) -> dict[str, Range]:
    parts = model.parts([one])
    assert not isinstance(parts, str), parts
    return {p.domain: p.joules for p in parts}


def test_the_worked_example_of_two_busy_genoa_vcpus():
    model = host_model(make_host(), weights_bytes=10**9, tdp_w=None)
    assert not isinstance(model, str)
    parts = joules(model, window())
    cpu, dram = parts["cpu"], parts["dram"]
    assert [round(x, 1) for x in (cpu.low, cpu.value, cpu.high)] == [2.4, 4.4, 8.3]
    assert [round(x, 1) for x in (dram.low, dram.value, dram.high)] == [0.8, 1.4, 2.4]


def test_weights_in_the_cache_may_cost_no_dram():
    model = host_model(make_host(), weights_bytes=10**6, tdp_w=None)
    assert not isinstance(model, str)
    dram = joules(model, window())["dram"]
    assert dram.low == 0 < dram.value


def test_spinning_shows_as_energy():
    model = host_model(make_host(), weights_bytes=10**9, tdp_w=None)
    assert not isinstance(model, str)
    lazy, spinning = (joules(model, window(cpu_s=c))["cpu"].value for c in (1.0, 2.0))
    assert spinning == pytest.approx(2 * lazy)


def test_a_part_that_cannot_be_had_leaves_no_total_with_a_wider_name():
    model = host_model(make_host(), weights_bytes=10**9, tdp_w=None)
    assert not isinstance(model, str)
    silent = window(bytes_streamed=None, bytes_streamed_missing="not said")
    assert "DRAM" in str(model.parts([silent]))


def test_an_unknown_bare_machine_gets_no_joules_without_a_tdp():
    host = make_host(virtualization=None, virtualization_missing="bare metal")
    host = msgspec.structs.replace(host, cpu=msgspec.structs.replace(host.cpu, family=99))
    assert "TDP" in str(host_model(host, 10**9, None))
    with_tdp = host_model(host, 10**9, 100.0)
    assert not isinstance(with_tdp, str)
    one_of_two_threads_for_a_second_j = 50.0
    assert joules(with_tdp, window(cpu_s=1.0))["cpu"].value == pytest.approx(one_of_two_threads_for_a_second_j)


def test_an_unknown_guest_gets_the_widest_row():
    host = make_host()
    host = msgspec.structs.replace(host, cpu=msgspec.structs.replace(host.cpu, vendor="GenuineIntel", model=1))
    assert find_row(host.cpu) is None
    model = host_model(host, 10**9, None)
    assert "unknown x86 server" in model.grade if not isinstance(model, str) else False


def test_a_counter_is_integrated_across_its_wrap():
    reading = Reading(domain="package-0", start_count=999_999_990, end_count=10)
    assert domain_joules(counter("package-0"), [window(readings=(reading,))]) == pytest.approx(20e-6)


@pytest.mark.parametrize(
    ("readings", "wrap", "why"),
    [
        ((Reading(domain="package-0", start_count=5, end_count=5),), 10**9, "dead"),
        ((Reading(domain="package-0", start_count=5, end_count=4),), None, "backwards"),
        ((), 10**9, "could not be read"),
    ],
)
def test_a_failing_counter_gives_the_reason_not_zero(readings: tuple[Reading, ...], wrap: int | None, why: str):
    found = domain_joules(counter("package-0", wrap_count=wrap), [window(readings=readings)])
    assert isinstance(found, str)
    assert why in found


def test_the_platform_and_parts_of_a_package_are_never_summed():
    meters = [counter(d) for d in ("package-0", "package-0:core", "package-0:uncore", "package-0:dram", "psys")]
    chosen = CounterSet(meters)
    assert [m.domain for m in chosen.counted] == ["package-0", "package-0:dram"]
    assert chosen.scope == "package+dram"


REFUSED = MeterRefusal(meter="rapl-powercap", reason="package-1: EACCES", fix="chmod", domain="package-1")


@pytest.mark.parametrize(
    ("domains", "refused", "whole"),
    [
        (["package-0", "package-0:dram"], (), True),
        (["gpu-0"], (), False),
        (["package-0:dram"], (), False),
        (["package-0"], (REFUSED,), False),
    ],
)
def test_a_part_of_the_host_is_never_its_total(domains: list[str], refused: tuple[MeterRefusal, ...], whole: bool):
    assert (CounterSet([counter(d) for d in domains], refused).incomplete() is None) is whole


def test_a_reset_counter_is_not_a_wrap():
    reading = Reading(domain="package-0", start_count=5 * 10**9, end_count=10)
    found = domain_joules(counter("package-0", wrap_count=65532610988), [window(readings=(reading,))])
    assert "reset" in str(found)


def test_dies_that_mirror_one_counter_count_once():
    dies = ["package-0-die-0", "package-0-die-1"]
    readings = tuple(Reading(domain=d, start_count=10**9 + i, end_count=10**9 + 10**8) for i, d in enumerate(dies))
    run = [window(readings=readings)]
    counters = CounterSet([counter(d, wrap_count=10**10) for d in dies], run=run)
    parts = counters.parts(run)
    assert not isinstance(parts, str)
    assert sum(p.joules.value for p in parts) == pytest.approx(100.0)
    assert "mirror" in counters.left_out["package-0-die-1"]


def test_two_dies_just_opened_are_not_taken_for_one():
    dies = ["package-0-die-0", "package-0-die-1"]
    run = [window(readings=tuple(Reading(domain=d, start_count=0, end_count=10**7) for d in dies))]
    assert len(CounterSet([counter(d) for d in dies], run=run).counted) == 2


def test_an_unknown_grade_is_wide_not_a_crash():
    reading = Reading(domain="package-0", start_count=0, end_count=100_000)
    parts = CounterSet([counter("package-0", grade="new")]).parts([window(readings=(reading,))])
    assert not isinstance(parts, str)
    assert parts[0].joules.high == pytest.approx(0.12, rel=0.01)


def test_a_result_carries_label_scope_and_both_parts_of_its_uncertainty():
    energy = make_result().metric("energy_j_per_output_token")
    assert isinstance(energy, Energy)
    assert energy.label == "utilisation-modelled"
    assert "share of a server" in energy.scope
    assert energy.low is not None
    assert energy.high is not None
    assert energy.low <= energy.systematic[0] <= energy.value <= energy.systematic[1] <= energy.high
    assert energy.random[0] <= energy.value <= energy.random[1]


def test_floor_value_and_ceiling_are_in_order():
    report = make_result().energy
    assert report.headline is not None
    assert report.floor_j is not None
    assert report.ceiling_j is not None
    assert report.floor_j <= report.headline.value <= report.ceiling_j
    assert not report.flags
