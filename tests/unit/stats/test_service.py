"""What a service is judged by, from requests whose times are written down here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from builders import make_model, make_process, make_scenario
from load_builders import SATURATED, make_server, served, serving
from scipy.stats import binomtest

from perjoule.records import Metric, Missing, Quantity
from perjoule.scenario import Scenario, Slo, load_scenario, with_overrides
from perjoule.stats.service import good_requests
from perjoule.stats.steering import decide
from perjoule.stats.summary import summarize

if TYPE_CHECKING:
    from perjoule.measure import ProcessRun

SERVER = load_scenario("server")


def metrics_of(runs: list[ProcessRun], scenario: Scenario = SERVER) -> dict[str, Metric]:
    return summarize(
        [s for r in runs for s in r.samples], [w for r in runs for w in r.windows], [r.record for r in runs],
        [m for r in runs for m in r.memory], scenario, make_model(), [s for r in runs for s in r.spans],
    )  # fmt: skip


def value(metric: Metric) -> float:
    assert isinstance(metric, Quantity), metric
    return metric.value


def run_of(waits_s: list[float], **changes: Any) -> ProcessRun:
    """Return one process whose requests waited so long, were prefilled in 0.3 s and decoded at 20 ms a token."""
    return serving(0, waits_s, every_s=1.0, rate_per_s=1.0, **changes)


def test_latency_counts_from_the_scheduled_arrival():
    found = metrics_of([run_of([0.0, 1.0, 5.0])])
    assert value(found["queue_delay_s"]) == pytest.approx(1.0)
    assert value(found["ttft_s"]) == pytest.approx(1.3), "the median one waited 1 s, and prefill took 0.3 s"
    assert value(found["e2e_latency_s"]) == pytest.approx(1.3 + 63 * 0.02)
    assert value(found["tpot_s"]) == pytest.approx(0.02)
    assert value(found["prefill_tokens_per_s"]) == pytest.approx(256 / 0.3), "never from the scheduled arrival"
    assert value(found["offered_requests_per_s"]) == pytest.approx(1.0)


def test_a_p99_needs_a_hundred_requests():
    few, enough = metrics_of([run_of([0.0] * 99)]), metrics_of([run_of([0.0] * 98 + [4.0] * 2)])
    missing = few["ttft_p99_s"]
    assert isinstance(missing, Missing)
    assert "100 requests" in missing.reason
    assert value(enough["ttft_p99_s"]) == pytest.approx(4.3)
    assert value(enough["tpot_p99_s"]) == pytest.approx(0.02)


def test_goodput_is_what_met_both_limits_in_the_time_that_was_served():
    slo = with_overrides(SERVER, {"slo.ttft_s": 1.0, "slo.tpot_s": 0.1})
    run = run_of([0.0] * 6 + [0.7, 0.71, 2.0, 2.0])
    [window] = [w for w in run.windows if w.phase == "serve"]
    found = metrics_of([run], slo)
    assert value(found["slo_met_share"]) == pytest.approx(0.7), "0.7 s of waiting and 0.3 s of prefill are just met"
    assert value(found["goodput_requests_per_s"]) == pytest.approx(7 / window.duration_s)
    assert value(found["requests_per_s"]) == pytest.approx(10 / window.duration_s)
    tight = with_overrides(slo, {"slo.tpot_s": 0.019})
    assert value(metrics_of([run], tight)["slo_met_share"]) == 0.0
    assert value(metrics_of([run], tight)["goodput_requests_per_s"]) == 0.0


@pytest.mark.parametrize(("waits", "offered"), [([0.0] * 50, 50), ([0.0] * 40 + [9.0] * 10, 50), ([9.0] * 30, 30)])
def test_the_share_has_its_exact_interval(waits: list[float], offered: int):
    share = metrics_of([run_of(waits)])["slo_met_share"]
    assert isinstance(share, Quantity)
    exact = binomtest(sum(w < 1 for w in waits), offered).proportion_ci(0.95, "exact")
    assert (share.low, share.high) == pytest.approx((exact.low, exact.high))
    assert share.n == offered


def test_unanswered_requests_miss_the_limits():
    share = metrics_of([run_of([0.0] * 10, offered=20)])["slo_met_share"]
    assert value(share) == pytest.approx(0.5)


def test_a_saturated_load_has_no_typical_latency_and_no_share():
    run = run_of([0.7 * i for i in range(16)], offered=64, verdict=SATURATED)
    found = metrics_of([run])
    latencies = ["ttft_s", "tpot_s", "itl_s", "itl_p99_s", "e2e_latency_s", "e2e_latency_p90_s", "e2e_latency_p99_s",
                 "ttft_p99_s", "tpot_p99_s", "queue_delay_s", "goodput_requests_per_s", "slo_met_share"]  # fmt: skip
    for name in latencies:
        missing = found[name]
        assert isinstance(missing, Missing), name
        assert SATURATED in missing.reason
        assert "15.7 s" in missing.reason
    assert value(found["output_tokens_per_s"]) > 0, "what it carries is known"
    assert value(found["offered_requests_per_s"]) == 1.0


def test_a_saturated_load_is_not_measured_again_and_again():
    """Its verdict does not sharpen, so neither a wide interval nor a long rigor asks for more processes."""
    full, kept_up = make_server(saturated=True), make_server()
    strict = with_overrides(load_scenario("server"), {"min_measured_s": 600.0, "target_half_width": 1e-9})

    def stops(result, processes):
        return decide(result.samples, result.windows, result.processes[:processes], strict, 1.0, result.spans)

    assert strict.min_processes == 5
    assert stops(full, 5).stop
    assert "more than the engine answers" in stops(full, 5).reason
    assert not stops(full, 4).stop
    assert not stops(kept_up, 5).stop
    assert "target_missed" not in {c.code for c in full.checks}


def test_offline_has_throughput_only():
    scenario = load_scenario("offline")
    found = metrics_of([run_of([float(i) for i in range(16)], planned_s=None)], scenario)
    missing = found["ttft_s"]
    assert isinstance(missing, Missing)
    assert "only throughput" in missing.reason
    assert not {"queue_delay_s", "ttft_p99_s", "offered_requests_per_s"} & set(found)
    assert value(found["requests_per_s"]) > 0


def test_a_trial_of_a_search_is_not_counted():
    run = run_of([0.0] * 4)
    trial = msgspec.structs.replace(run.spans[0], window="0.s1/serve", phase="warmup", rate_per_s=9.0, saturated=True)
    sample = served(0, 99, sent_s=1.0, wait_s=50.0, span="0.s1/serve", phase="warmup")
    more = msgspec.structs.replace(run, spans=(*run.spans, trial), samples=(*run.samples, sample))
    assert metrics_of([more]) == metrics_of([run])


def test_a_disturbed_load_is_left_out_with_its_requests():
    clean, noisy = (serving(p, [wait] * 4, every_s=1.0, rate_per_s=1.0) for p, wait in ((0, 0.0), (1, 5.0)))
    marked = tuple(msgspec.structs.replace(w, rejected="others used the machine") for w in noisy.windows)
    runs = [clean, msgspec.structs.replace(noisy, windows=marked)]
    scenario = with_overrides(SERVER, {"min_processes": 1})
    assert value(metrics_of(runs, scenario)["queue_delay_s"]) == 0.0
    assert value(metrics_of(runs, SERVER)["queue_delay_s"]) > 2.0, "too few clean ones: all are used"


def test_limits_can_be_set_for_requests_that_are_served_alone():
    run = make_process(0, requests=4)
    scenario = make_scenario(slo=Slo(ttft_s=0.5001, tpot_s=0.02001))
    spent = sum(s.end_s - s.start_s for s in run.samples if s.phase == "measured")
    found = metrics_of([run], scenario)
    assert value(found["slo_met_share"]) == 1.0
    assert value(found["goodput_requests_per_s"]) == pytest.approx(4 / spent)
    assert len(good_requests(run.samples, Slo(ttft_s=0.4))) == 0


@pytest.mark.parametrize(("factor", "ratio"), [(1.0, 1.0), (1.25, 0.8)])
def test_the_last_fifth_is_compared_with_the_first(factor: float, ratio: float):
    run = make_process(0, requests=10)
    measured = [s for s in run.samples if s.phase == "measured"]
    slow = {s.window for s in measured[-2:]}

    def slowed(sample: Any) -> Any:
        times = tuple(sample.first_token_s + (t - sample.first_token_s) * factor for t in sample.token_times_s)
        return msgspec.structs.replace(sample, token_times_s=times, end_s=times[-1])

    samples = tuple(slowed(s) if s.window in slow else s for s in run.samples)
    scenario = make_scenario(duration_s=60.0)
    found = metrics_of([msgspec.structs.replace(run, samples=samples)], scenario)
    assert value(found["last_fifth_decode_ratio"]) == pytest.approx(ratio)
    few = metrics_of([make_process(0, requests=9)], scenario)["last_fifth_decode_ratio"]
    assert isinstance(few, Missing)
    assert "10 requests" in few.reason
