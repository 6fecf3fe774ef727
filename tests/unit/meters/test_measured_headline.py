from __future__ import annotations

import msgspec
from builders import make_host, make_model, make_sample, make_windows

from perjoule.meters.energy import Assessment, Evidence, assess
from perjoule.records import Block, Energy, IdlePower, MeterFact, Missing, Reading, RunSettings

COUNTS = 100_000_000


def rapl(**changes: object) -> MeterFact:
    fact = MeterFact(
        domain="package-0", scope="package", kind="counter", label="measured", grade="rapl-package",
        tick_s=0.001, source="made up", unit_j="1/1000000", wrap_count=None, min_window_s=1.0,
    )  # fmt: skip
    return msgspec.structs.replace(fact, **changes)


def idle_side(watts: float) -> dict[str, Energy]:
    return {
        "package-0": Energy(
            value=watts, low=0.9 * watts, high=1.1 * watts, unit="W", n=1, statistic="s", interval="i",
            label="measured", grade="rapl-package", scope="package", convention="gross",
            random=(watts, watts), systematic=(0.95 * watts, 1.05 * watts),
        )
    }  # fmt: skip


NO_IDLE = IdlePower(
    before=None, before_missing="not read", loaded=None, loaded_missing="not read", after=None, after_missing="not read"
)


def evidence(*meters: MeterFact, idle: IdlePower = NO_IDLE, **counts: int) -> Evidence:
    """Five processes of one request each; every meter counts COUNTS in each of the request's two windows."""
    samples = tuple(make_sample(process, start_s=100.0 * process) for process in range(5))
    readings = tuple(
        Reading(domain=m.domain, start_count=0, end_count=counts.get(m.domain.replace("-", "_"), COUNTS))
        for m in meters
    )
    windows = tuple(msgspec.structs.replace(w, readings=readings) for s in samples for w in make_windows(s))
    return Evidence(
        host=make_host(), meters=meters, windows=windows, samples=samples, model=make_model(),
        settings=RunSettings(seed=0), meters_refused=(), idle=idle,
    )  # fmt: skip


def assessed(**changes: object) -> Assessment:
    return assess(evidence(rapl(**changes)))


def test_counters_give_a_gross_measured_headline_with_the_sensors_tolerance() -> None:
    headline = assessed().report.headline
    assert headline is not None
    assert (headline.label, headline.scope, headline.convention) == ("measured", "package", "gross")
    assert headline.value == 5 * 2 * COUNTS / 1e6
    assert headline.systematic[0] <= 0.95 * headline.value
    assert headline.systematic[1] >= 1.05 * headline.value


def test_a_phase_shorter_than_the_sensor_needs_is_missing_but_the_request_is_not() -> None:
    metrics = assessed(tick_s=0.01).metrics
    prompt = metrics["energy_j_per_prompt_token"]
    assert isinstance(prompt, Missing)
    assert "window of 1 s" in prompt.reason
    decode = metrics["energy_j_per_decode_token"]
    assert isinstance(decode, Energy)
    assert isinstance(metrics["energy_j_per_request"], Energy)


def test_a_wall_meter_is_the_headline_and_the_package_inside_it_is_not_added() -> None:
    wall = rapl(domain="wall", scope="wall", grade="plug", tolerance=0.1)
    report = assess(evidence(rapl(), wall, wall=3 * COUNTS)).report
    assert report.headline is not None
    assert (report.headline.scope, report.headline.value) == ("wall", 5 * 2 * 3 * COUNTS / 1e6)
    package = next(d for d in report.domains if d.domain == "package-0")
    assert package.energy is not None
    assert package.energy.scope == "package"
    assert package.note == "inside wall"


def test_a_vanished_domain_is_null_with_the_reason_and_takes_the_total_with_it() -> None:
    given = evidence(rapl(), rapl(domain="package-0:dram", scope="dram", grade="rapl-dram"))
    lost = tuple(
        msgspec.structs.replace(w, readings=w.readings[:1]) if w.id == "3.2/decode" else w for w in given.windows
    )
    report = assess(msgspec.structs.replace(given, windows=lost)).report
    assert report.headline is None
    assert "package-0:dram could not be read in window 3.2/decode" in str(report.headline_missing)
    assert {d.domain: d.energy is None for d in report.domains} == {"package-0": False, "package-0:dram": True}


def test_net_is_gross_less_idle_and_drift_is_flagged() -> None:
    watts = 2 * COUNTS / 1e6 / 1.76
    calm = IdlePower(before=idle_side(20.0), loaded=idle_side(21.0), after=idle_side(20.0))
    found = assess(evidence(rapl(), idle=calm))
    net, gross = found.metrics["energy_net_j_per_request"], found.metrics["energy_j_per_request"]
    assert isinstance(net, Energy)
    assert isinstance(gross, Energy)
    seconds = gross.value / watts
    assert abs(net.value - (gross.value - 20.0 * seconds)) < 1e-6 * gross.value
    assert net.convention == "net"
    assert net.high is not None
    assert net.high - net.value > 0.05 * net.value, "an offset does not cancel, so net is wider than gross"
    assert not found.report.flags
    warmer = IdlePower(before=idle_side(20.0), loaded=idle_side(21.0), after=idle_side(40.0))
    assert [f.code for f in assess(evidence(rapl(), idle=warmer)).report.flags] == ["idle_drift"]


def test_a_board_whose_counter_and_power_reading_disagree_is_flagged() -> None:
    board = rapl(domain="gpu-0", scope="gpu", grade="nvml")
    gauge = rapl(domain="gpu-0:power", scope="gpu", grade="nvml-power", parent="gpu-0", kind="gauge")
    agree = assess(evidence(rapl(), board, gauge)).report
    assert agree.headline is not None
    assert agree.headline.scope == "package+gpu"
    assert not agree.flags
    apart = assess(evidence(rapl(), board, gauge, **{"gpu_0:power": COUNTS * 8 // 10})).report
    assert [f.code for f in apart.flags] == ["sensors_disagree"]


def test_whole_boxes_that_cost_impossibly_much_per_bit_are_flagged() -> None:
    wall = rapl(domain="wall", scope="wall", grade="plug", tolerance=0.1)
    assert [f.code for f in assess(evidence(wall, wall=COUNTS * 50)).report.flags] == ["energy_per_bit"]


def test_prefill_energy_comes_from_blocks_where_there_are_any() -> None:
    given = evidence(rapl(tick_s=0.1, min_window_s=10.0))
    blocks, windows = [], list(given.windows)
    for process in range(5):
        name = f"{process}.block/prefill"
        blocks.append(Block(process=process, window=name, requests=20, prompt_tokens=20 * 256))
        readings = (Reading(domain="package-0", start_count=0, end_count=20 * COUNTS),)
        windows.append(msgspec.structs.replace(
            windows[0], id=name, process=process, start_s=0.0, end_s=10.5, readings=readings
        ))  # fmt: skip
    found = assess(msgspec.structs.replace(given, blocks=tuple(blocks), windows=tuple(windows)))
    per_token = found.metrics["energy_j_per_prompt_token"]
    assert isinstance(per_token, Energy)
    assert abs(per_token.value - COUNTS / 1e6 / 256) < 1e-9
