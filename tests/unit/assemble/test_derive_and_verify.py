from __future__ import annotations

import msgspec
import pytest
from builders import make_host, make_model, make_process, make_raw, make_result, make_scenario

from perjoule.assemble import assemble, derive
from perjoule.records import Block, Energy, IdlePower, MeterFact, MeterRefusal, Quantity
from perjoule.verify import verify

# The single-stream names of docs/results-format.md.
NAMES = {
    "ttft_s", "itl_s", "itl_p99_s", "tpot_s", "e2e_latency_s", "e2e_latency_p90_s", "e2e_latency_p99_s",
    "prefill_tokens_per_s", "decode_tokens_per_s", "output_tokens_per_s", "requests_per_s", "load_s",
    "cold_ttft_s", "weights_bytes", "peak_memory_bytes", "peak_gpu_memory_bytes", "cpu_s_per_output_token",
    "energy_j_per_output_token", "energy_j_per_decode_token", "energy_j_per_prompt_token", "energy_j_per_request",
    "output_tokens_per_j", "power_w", "idle_power_w", "output_tokens_per_request", "energy_delay_j_s",
    "energy_net_j_per_output_token", "energy_net_j_per_request",
}  # fmt: skip


def codes(result):
    return {check.code: check.severity for check in result.checks}


def test_every_metric_that_applies_is_there_or_says_why():
    result = make_result()
    assert set(result.metric_names()) == NAMES
    for name in NAMES:
        assert result.metrics[name] is not None or result.metrics[f"{name}_missing"], name


def test_a_quiet_run_is_publishable_and_its_joules_are_called_modelled():
    result = make_result()
    assert result.publishable, result.checks
    energy = result.metrics["energy_j_per_output_token"]
    assert isinstance(energy, Energy)
    assert energy.label == "utilisation-modelled"
    assert codes(result)["modelled_energy"] == "note"
    assert result.created_utc == "2026-01-02T03:04:05Z"


def test_a_run_on_a_gpu_says_that_none_was_ever_seen_and_has_no_joules_of_the_processor_alone():
    result = make_result()
    backend = msgspec.structs.replace(result.backend, device="cuda:0")
    on_gpu = derive(msgspec.structs.replace(result, backend=backend))
    assert codes(on_gpu)["device_never_on_hardware"] == "note"
    assert "device_never_on_hardware" not in codes(result)
    assert on_gpu.metrics["energy_j_per_output_token"] is None
    assert "the engine ran on cuda:0" in on_gpu.metrics["energy_j_per_output_token_missing"]


def test_deriving_again_changes_nothing():
    result = make_result()
    assert derive(result) == result
    assert verify(result) == []


@pytest.mark.parametrize(
    ("changes", "code", "severity", "publishable"),
    [
        ({"runs": tuple(make_process(p) for p in range(3))}, "few_processes", "invalid", False),
        ({"runs": tuple(make_process(p, rejected="noise") for p in range(5))}, "noisy_host", "invalid", False),
        ({"host": make_host(simulated=True)}, "simulated_sensors", "invalid", False),
        ({"scenario": make_scenario(target_half_width=0.001)}, "target_missed", "warning", True),
        ({"scenario": make_scenario(new_tokens=65)}, "short_answers", "warning", True),
        ({"runs": tuple(make_process(p, steady=False) for p in range(5))}, "not_steady", "warning", True),
        ({"model": make_model(weights="synthetic")}, "synthetic_weights", "note", True),
    ],
)
def test_checks(changes, code, severity, publishable):
    result = assemble(make_raw(**changes))
    assert codes(result)[code] == severity
    assert result.publishable is publishable
    assert all(check.hint for check in result.checks)
    assert verify(result) == []


def test_a_run_of_warm_ups_only_is_kept_but_not_publishable():
    result = assemble(make_raw(runs=(make_process(0, requests=0),)))
    assert codes(result)["no_requests"] == "invalid"
    assert result.metrics["ttft_s"] is None


def test_refusals_while_reading_join_those_at_probe():
    refusal = MeterRefusal(meter="rapl", reason="gone", fix="look")
    run = msgspec.structs.replace(make_process(0), refusals=(refusal,))
    assert assemble(make_raw(runs=(run,))).meters_refused == (refusal,)


def test_a_simulated_meter_is_not_publishable():
    meter = MeterFact(
        domain="package-0", scope="package", kind="gauge", label="measured", grade="x", tick_s=None,
        tick_s_missing="a gauge", source="a tree", simulated=True,
    )  # fmt: skip
    result = assemble(make_raw(meters=(meter,)))
    assert codes(result)["simulated_sensors"] == "invalid"


def tampered_metric(result):
    ttft = result.metrics["ttft_s"]
    assert isinstance(ttft, Quantity)
    return {"metrics": {**result.metrics, "ttft_s": msgspec.structs.replace(ttft, value=ttft.value * 0.99)}}


def slower_sample(result):
    first = result.samples[2]
    return {"samples": (*result.samples[:2], msgspec.structs.replace(first, end_s=first.end_s + 1),
                        *result.samples[3:])}  # fmt: skip


@pytest.mark.parametrize(
    ("tamper", "where"),
    [
        (tampered_metric, "metrics.ttft_s.value"),
        (slower_sample, "metrics.output_tokens_per_s"),
        (lambda r: {"publishable": not r.publishable}, "publishable"),
        (lambda _: {"checks": ()}, "checks"),
        (lambda r: {"processes": r.processes[1:]}, "belongs to no process"),
        (lambda r: {"windows": r.windows[1:]}, "lacks a window"),
        (lambda r: {"windows": (*r.windows, r.windows[0])}, "used twice"),
        (lambda r: {"scenario": msgspec.structs.replace(r.scenario, sha256="0")}, "scenario.sha256"),
        (lambda r: {"scenario": msgspec.structs.replace(r.scenario, spec={})}, "cannot be computed again"),
        (lambda _: {"reproduce": "perjoule run chat"}, "id:"),
    ],
)
def test_verify_finds_what_was_changed(tamper, where):
    result = make_result()
    problems = verify(msgspec.structs.replace(result, **tamper(result)))
    assert any(where in problem for problem in problems), problems
    assert any(problem.startswith("id:") for problem in problems)


def test_noise_that_was_talked_away_is_found():
    result = assemble(make_raw(runs=tuple(make_process(p, rejected="noise") for p in range(5))))
    quiet = tuple(msgspec.structs.replace(w, rejected=None) for w in result.windows)
    problems = verify(derive(msgspec.structs.replace(result, windows=quiet)))
    assert any("its CPU times give" in problem for problem in problems)


def test_idle_power_without_its_window_is_found():
    result = make_result()
    told = {"package-0": result.energy.headline}
    invented = IdlePower(before=told, loaded=None, loaded_missing="none", after=told)  # type: ignore[arg-type]
    problems = verify(msgspec.structs.replace(result, idle=invented))
    assert any(problem.startswith("idle.before") for problem in problems)


def test_damage_is_told_not_raised():
    result = make_result()
    block = Block(process=0, window="0.block/prefill", requests=1, prompt_tokens=1)
    assert any("blocks" in p for p in verify(msgspec.structs.replace(result, blocks=(block,))))
    assert verify(msgspec.structs.replace(result, windows=()))
