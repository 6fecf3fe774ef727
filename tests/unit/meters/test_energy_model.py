from __future__ import annotations

import pytest
from builders import make_host, make_result

from perjoule.meters.model import host_model
from perjoule.records import Window


def second(cpu_s: float, streamed: int = 10_000_000_000) -> Window:
    return Window(
        id="0.0/decode", process=0, phase="decode", start_s=0.0, end_s=1.0, cpu_s=cpu_s, steal_s=0.0,
        foreign_cpu_s=0.0, bytes_streamed=streamed,
    )  # fmt: skip


def test_two_busy_genoa_vcpus_at_10_gb_a_second() -> None:
    model = host_model(make_host(), 315_000_000, None)
    assert not isinstance(model, str)
    cpu, dram = model.parts([second(2.0)]) or []
    assert (cpu.joules.low, cpu.joules.value, cpu.joules.high) == pytest.approx((2.4, 4.4, 8.3), abs=0.06)
    assert (dram.joules.low, dram.joules.value, dram.joules.high) == pytest.approx((0.8, 1.384, 2.4))
    total = cpu.joules.plus(dram.joules)
    assert (total.low, total.value, total.high) == pytest.approx((3.2, 5.8, 10.7), abs=0.06)


def test_spinning_costs_cpu_seconds_though_no_more_bytes_move() -> None:
    model = host_model(make_host(), 315_000_000, None)
    assert not isinstance(model, str)
    calm, spun = model.parts([second(1.0)]) or [], model.parts([second(2.0)]) or []
    assert spun[0].joules.value == pytest.approx(2 * calm[0].joules.value)
    assert spun[1] == calm[1]


def test_weights_in_the_cache_may_cost_no_dram_energy() -> None:
    model = host_model(make_host(), 1_000_000, None)
    assert not isinstance(model, str)
    assert (model.parts([second(2.0)]) or [])[1].joules.low == 0.0


def test_headline_of_a_guest_carries_label_scope_convention_and_both_parts() -> None:
    headline = make_result().energy.headline
    assert headline is not None
    assert headline.label == "utilisation-modelled"
    assert headline.scope == "share of a server: CPU + DRAM"
    assert headline.convention == "fair-share"
    assert headline.low is not None
    assert headline.high is not None
    assert headline.low <= headline.systematic[0] < headline.value < headline.systematic[1] <= headline.high
    assert headline.random[0] < headline.value < headline.random[1]
