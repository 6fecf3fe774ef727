from __future__ import annotations

import msgspec
from builders import make_host, make_model, make_sample, make_windows

from perjoule.meters.energy import Assessment, Evidence, assess
from perjoule.records import Energy, IdlePower, MeterFact, Missing, Reading

COUNTS = 100_000_000


def rapl(min_window_s: float) -> MeterFact:
    return MeterFact(
        domain="package-0", scope="package-0", kind="counter", label="measured", grade="rapl-package",
        tick_s=0.001, source="made up", unit_j="1/1000000", wrap_count=None, min_window_s=min_window_s,
    )  # fmt: skip


def assessed(min_window_s: float = 0.1) -> Assessment:
    samples = tuple(make_sample(process, start_s=100.0 * process) for process in range(5))
    readings = (Reading(domain="package-0", start_count=0, end_count=COUNTS),)
    windows = tuple(msgspec.structs.replace(w, readings=readings) for s in samples for w in make_windows(s))
    return assess(
        Evidence(
            host=make_host(), meters=(rapl(min_window_s),), windows=windows, samples=samples, model=make_model(),
            threads=2, tdp_w=None, meters_refused=(),
            idle=IdlePower(before=None, before_missing="not read", after=None, after_missing="not read"),
        )
    )  # fmt: skip


def test_counters_give_a_gross_measured_headline_with_the_sensors_tolerance() -> None:
    headline = assessed().report.headline
    assert headline is not None
    assert (headline.label, headline.scope, headline.convention) == ("measured", "package", "gross")
    assert headline.value == 5 * 2 * COUNTS / 1e6
    assert headline.systematic[0] <= 0.95 * headline.value
    assert headline.systematic[1] >= 1.05 * headline.value


def test_a_phase_shorter_than_the_sensor_needs_is_missing_but_the_request_is_not() -> None:
    metrics = assessed(min_window_s=1.0).metrics
    prompt = metrics["energy_j_per_prompt_token"]
    assert isinstance(prompt, Missing)
    assert "window of 1 s" in prompt.reason
    assert isinstance(metrics["energy_j_per_request"], Energy)
