"""The model of hosts without a sensor: worked example, guests and bare metal, load curve, TDP rules, bounds."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from builders import make_host, make_result
from hypothesis import given, settings
from hypothesis import strategies as st

from perjoule.meters.amounts import Range, total
from perjoule.meters.coefficients import coefficients, find_row, power_share
from perjoule.meters.explain import explain
from perjoule.meters.model import HostModel, host_model
from perjoule.records import HostFacts, Window

BARE: dict[str, Any] = {"virtualization": None, "virtualization_missing": "no hypervisor flag: bare metal"}
GENOA_FULL_W, GENOA_THREADS = 1.567, 192
INT8_MACS_PER_CPU_S = 4e12  # beyond what a core does


def second(cpu_s: float, streamed: int = 10_000_000_000, foreign_s: float = 0.0) -> Window:
    return Window(
        id="0.0/decode", process=0, phase="decode", start_s=0.0, end_s=1.0, cpu_s=cpu_s, steal_s=0.0,
        foreign_cpu_s=foreign_s, bytes_streamed=streamed,
    )  # fmt: skip


def guest(**cpu: Any) -> HostFacts:
    host = make_host()
    return msgspec.structs.replace(host, cpu=msgspec.structs.replace(host.cpu, **cpu))


def bare(**cpu: Any) -> HostFacts:
    shape = {"threads": GENOA_THREADS, "cores_visible": GENOA_THREADS // 2} | cpu
    return msgspec.structs.replace(guest(**shape), **BARE)


def modelled(host: HostFacts, tdp_w: float | None = None, weights_bytes: int = 315_000_000) -> HostModel:
    model = host_model(host, weights_bytes, tdp_w)
    assert not isinstance(model, str), model
    return model


def cpu_j(model: HostModel, *windows: Window) -> Range:
    parts = model.parts(windows)
    assert not isinstance(parts, str), parts
    return parts[0].joules


def relative(span: Range) -> tuple[float, float]:
    return span.low / span.value, span.high / span.value


def test_two_busy_genoa_vcpus_at_10_gb_a_second() -> None:
    cpu, dram = modelled(make_host()).parts([second(2.0)])
    assert (cpu.joules.low, cpu.joules.value, cpu.joules.high) == pytest.approx((2.4, 4.4, 8.3), abs=0.06)
    assert (dram.joules.low, dram.joules.value, dram.joules.high) == pytest.approx((0.8, 1.384, 2.4))
    both = total([cpu, dram]).joules
    assert (both.low, both.value, both.high) == pytest.approx((3.2, 5.8, 10.7), abs=0.06)


@pytest.mark.parametrize("streamed", [0, 10**10])
def test_spinning_costs_cpu_seconds_though_no_more_bytes_move(streamed: int) -> None:
    calm, spun = (modelled(make_host()).parts([second(cpu_s, streamed)]) for cpu_s in (1.0, 2.0))
    assert spun[0].joules == calm[0].joules.times(2)
    assert spun[1] == calm[1]


def test_weights_in_the_cache_may_cost_no_dram_energy() -> None:
    assert modelled(make_host(), weights_bytes=1_000_000).parts([second(2.0)])[1].joules.low == 0.0


@pytest.mark.parametrize(
    ("cpu", "row"),
    [
        ({"name": "AMD EPYC"}, "EPYC Genoa/Bergamo"),
        ({"name": "AMD EPYC 7B13", "model": 1}, "EPYC Milan"),
        ({"name": "", "family": 23, "model": 49}, "EPYC Rome"),
        ({"name": "AMD EPYC", "family": 26, "model": 2}, "EPYC Turin"),
        ({"name": "AMD EPYC", "model": 160}, "EPYC Genoa/Bergamo"),
        ({"name": "Intel Xeon Processor", "vendor": "GenuineIntel", "family": 6, "model": 143}, "Xeon Sapphire Rapids"),
        ({"name": "Intel(R) Xeon(R) CPU", "vendor": "GenuineIntel", "family": 6, "model": 106}, "Xeon Ice Lake"),
        ({"name": "Intel(R) Xeon(R) W-3345", "vendor": "GenuineIntel", "family": 6, "model": 106}, None),
        ({"name": "AMD Ryzen Threadripper 7980X", "model": 24}, None),
        ({"name": "AMD EPYC Genoa", "model": None}, None),
        ({"name": "AMD EPYC Genoa", "family": 6}, None),
    ],
)
def test_family_and_model_choose_the_row_since_names_are_masked(cpu: dict[str, Any], row: str | None) -> None:
    found = find_row(guest(**cpu).cpu)
    assert (found.name if found else None) == row


@pytest.mark.parametrize("vendor", ["AuthenticAMD", "GenuineIntel"])
def test_an_unknown_cpu_of_a_guest_is_known_within_a_factor_of_three(vendor: str) -> None:
    model = modelled(guest(vendor=vendor, family=99))
    assert relative(model.thread_w) == pytest.approx((1 / 3, 3))
    assert "unknown" in model.grade


def test_a_guest_of_another_maker_has_no_figures_and_a_tdp_does_not_help() -> None:
    reason = host_model(guest(vendor="ARM", family=8, model=0xD40), 0, 65.0)
    assert "no power figures for this CPU on a virtual machine" in str(reason)
    assert "ignored" in str(reason)


def test_a_tdp_says_nothing_about_a_share_of_a_server() -> None:
    with_tdp, without = modelled(make_host(), 400.0), modelled(make_host())
    assert with_tdp.thread_w == without.thread_w
    assert "ignored" in " ".join(with_tdp.notes)
    assert not without.notes


@pytest.mark.parametrize(("load", "share"), [(0.0, 0.22), (0.5, 0.60), (1.0, 1.0), (0.25, 0.465), (-1.0, 0.22), (7, 1)])
def test_the_load_curve_at_its_points_and_between(load: float, share: float) -> None:
    assert power_share(load) == pytest.approx(share)


@pytest.mark.parametrize(("load", "share"), [(0.5, 0.60), (1.0, 1.0)])
def test_bare_metal_alone_draws_the_curve_at_its_load(load: float, share: float) -> None:
    joules = cpu_j(modelled(bare()), second(load * GENOA_THREADS))
    assert joules.value == pytest.approx(share * GENOA_THREADS * GENOA_FULL_W)
    assert relative(joules) == pytest.approx((0.65, 1.35))


def test_an_almost_idle_machine_of_ones_own_costs_its_idle_power() -> None:
    joules = cpu_j(modelled(bare()), second(1e-9))
    assert joules.value == pytest.approx(0.22 * GENOA_THREADS * GENOA_FULL_W)
    assert cpu_j(modelled(bare()), second(0.0)).value == 0


def test_power_is_shared_by_busy_time() -> None:
    model, half = modelled(bare()), GENOA_THREADS / 2
    whole = cpu_j(model, second(GENOA_THREADS))
    ours = cpu_j(model, second(half, foreign_s=half))
    assert ours.value == pytest.approx(whole.value / 2)


def test_windows_are_priced_one_by_one_so_phases_add_up() -> None:
    model = modelled(bare())
    busy, calm = second(GENOA_THREADS), second(10.0)
    assert cpu_j(model, busy, calm).value == pytest.approx(cpu_j(model, busy).value + cpu_j(model, calm).value)


def test_what_the_load_added_stands_beside_the_headline_of_bare_metal() -> None:
    model, window = modelled(bare()), second(GENOA_THREADS / 2)
    beside = {part.domain: part.joules for part in model.outside([window])}
    assert beside["above idle"].value == pytest.approx((0.60 - 0.22) * GENOA_THREADS * GENOA_FULL_W)
    assert "idle share" not in beside
    assert "idle share" in {part.domain for part in modelled(make_host()).outside([second(1.0)])}


def test_a_core_without_smt_counts_for_its_two_threads() -> None:
    off = modelled(bare(threads=96, cores_visible=96))
    assert cpu_j(off, second(96.0)).value == pytest.approx(cpu_j(modelled(bare()), second(192.0)).value)
    assert "SMT" in " ".join(off.notes)


def test_bare_metal_without_the_load_of_others_has_a_reason() -> None:
    window = msgspec.structs.replace(second(1.0), foreign_cpu_s=None, foreign_cpu_s_missing="not read")
    assert "other processes" in str(modelled(bare()).parts([window]))
    assert not isinstance(modelled(make_host()).parts([window]), str)


@pytest.mark.parametrize(
    ("cpu", "tdp_w", "full_w", "width"),
    [
        ({}, 360.0, 360 * 0.98, (0.70, 1.30)),
        ({"vendor": "GenuineIntel", "family": 6, "model": 143}, 350.0, 350 * 1.30, (0.70, 1.30)),
        ({"family": 99}, 65.0, 65.0, (0.65, 1.45)),
        ({"vendor": "ARM", "family": 8, "model": 0xD0B}, 12.0, 12.0, (0.65, 1.45)),
    ],
)
def test_a_tdp_on_bare_metal(cpu: dict[str, Any], tdp_w: float, full_w: float, width: tuple[float, float]) -> None:
    model = modelled(bare(**cpu), tdp_w)
    full = cpu_j(model, second(GENOA_THREADS))
    assert full.value == pytest.approx(full_w)
    assert relative(full) == pytest.approx(width)
    assert f"{tdp_w:g} W" in model.grade


def test_an_unknown_bare_machine_asks_for_its_tdp() -> None:
    assert "--tdp W" in str(host_model(bare(family=99), 0, None))


def test_the_floor_holds_bytes_and_arithmetic() -> None:
    model = modelled(make_host())
    assert model.floor_j([second(2.0)]) == pytest.approx(0.8)
    assert model.floor_j([second(2.0)], macs=10**12) == pytest.approx(0.8 + 0.02)


SHAPES = st.sampled_from(
    [
        {}, {"family": 99}, {"vendor": "GenuineIntel", "family": 6, "model": 207}, {"vendor": "GenuineIntel"},
        {"family": 23, "model": 49}, {"threads": 8, "cores_visible": 8}, {"threads": 256, "cores_visible": 128},
    ]
)  # fmt: skip
SHARES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(0, 10**11)), min_size=1, max_size=4)


@settings(deadline=None)
@given(shape=SHAPES, virtual=st.booleans(), tdp_w=st.none() | st.floats(1, 2000), shares=SHARES, weights=st.integers(0))
def test_intervals_hold_their_centre_and_lie_between_floor_and_ceiling(
    shape: dict[str, Any], virtual: bool, tdp_w: float | None, shares: list[tuple[float, float, int]], weights: int
) -> None:
    host = guest(**shape) if virtual else bare(**shape)
    model = host_model(host, weights, tdp_w)
    if isinstance(model, str):
        assert not virtual
        assert tdp_w is None
        return
    threads = host.cpu.threads
    windows = [second(ours * threads, streamed, others * (1 - ours) * threads) for ours, others, streamed in shares]
    parts = model.parts(windows)
    assert not isinstance(parts, str)
    for span in [*(part.joules for part in (*parts, *model.outside(windows))), model.thread_w]:
        assert 0 <= span.low <= span.value <= span.high
    macs = int(INT8_MACS_PER_CPU_S * sum(w.cpu_s or 0.0 for w in windows))
    headline = total(parts).joules
    slack = 1 + 1e-9
    if model.thread_w.value > 1:  # W a thread: a TDP may be given that is too small for the arithmetic
        assert model.floor_j(windows, macs) <= headline.value * slack
    assert headline.high <= model.ceiling_j(windows) * slack


@pytest.mark.parametrize("tdp_w", [None, 65.0])
@pytest.mark.parametrize("host", [make_host(), guest(family=99), bare(), bare(family=99), bare(vendor="ARM")])
def test_the_explanation_fits_and_says_what_every_figure_rests_on(host: HostFacts, tdp_w: float | None) -> None:
    model = host_model(host, 0, tdp_w)
    lines = explain(host, model)
    text = " ".join(" ".join(lines).split())
    assert max(map(len, lines)) < 100
    assert f"{host.cpu.vendor} family {host.cpu.family} model {host.cpu.model}" in text
    assert ("virtual machine (kvm)" if host.virtualization else "bare metal") in text
    if isinstance(model, str):
        assert model in text
        return
    assert model.row.source in text or model.rest in {"family-tdp", "tdp"}
    assert coefficients().dram.source in text
    assert model.scope in text
    assert "Outside the headline" in text
    assert all(note in text for note in model.notes)


def test_the_explanation_works_the_example() -> None:
    host = make_host()
    text = "\n".join(explain(host, modelled(host)))
    assert "CPU 4.4 (2.4-8.3) W + DRAM 1.4 (0.8-2.4) W = 5.8 (3.2-11) W" in text
    assert "name that the cloud masks" in " ".join(text.split())
    assert "CPU limit (cgroup): none" in text


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
