"""A reduced `make bench-coverage`: on simulated machines the intervals hold the truth as often as they say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import simulated_machines as sim
from hypothesis import given
from hypothesis import strategies as st

from perjoule.stats.intervals import half_width
from perjoule.stats.paired import compare_pairs, log_ratio_half_width
from perjoule.stats.sequential import Targets, enough, enough_pairs
from perjoule.stats.steady import is_steady
from perjoule.stats.trend import leftover_ramp, trend

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("coverage_tables", ROOT / "benchmarks" / "coverage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


@pytest.fixture(scope="module")
def noise():
    return sim.fit()


def test_the_noise_of_the_traces_is_what_they_show(noise):
    assert 0.03 < noise.within_spread < 0.15
    assert 0.05 < noise.between_spread < 0.2
    assert 0.1 < noise.between_lag1 < 0.6
    assert 0.1 < noise.slow_share < 0.5
    assert 0.2 < noise.disturbed_share < noise.noisy_share < 1


# 300 runs: a true 95 % gives less than 91.5 % once in a few hundred cells
@pytest.mark.parametrize(
    ("kind", "spread"),
    [("plain", 0.02), ("plain", 0.05), ("drift", 0.05), ("bursts", 0.05), ("bimodal processes", 0.02),
     ("warm-up ramps", 0.05), ("correlated requests", 0.05)],
)  # fmt: skip
@pytest.mark.parametrize("rigor", [0, 1])
def test_intervals_hold_the_truth_after_the_stopping_rule(bench, noise, kind, spread, rigor):
    median = sim.Machine(kind, 0.0, noise).mean_median(50_000)
    found = bench.simulate(sim.Machine(kind, spread, noise), bench.RIGORS[rigor], 300, median)["widened"]
    assert found.decided.mean() > 0.95
    assert 0.915 <= found.covered[found.decided].mean() <= 0.995


@pytest.mark.parametrize("rigor", [0, 1, 2])
def test_plain_t_falls_short_where_processes_resemble_each_other_and_the_widened_one_does_not(bench, noise, rigor):
    machine = sim.Machine("correlated processes", 0.05, noise)
    found = bench.simulate(machine, bench.RIGORS[rigor], 200, machine.mean_median(50_000))
    wide, plain = found["widened"], found["plain t"]
    assert plain.covered[plain.decided].mean() < 0.92
    assert wide.covered[wide.decided].mean() > plain.covered[plain.decided].mean() + 0.03


def test_a_noisy_machine_is_seldom_decided_and_wrong_and_otherwise_says_too_noisy(bench, noise):
    machine = sim.Machine("plain", 0.12, noise)
    found = bench.simulate(machine, bench.RIGORS[0], 300, machine.mean_median(50_000))["widened"]
    assert found.decided.mean() < 0.7
    assert (found.decided & ~found.covered).mean() < 0.06
    assert found.covered[~found.decided].mean() > 0.92


def test_the_simulated_rule_is_the_one_of_a_run(bench, noise):
    rigor = bench.Rigor("quick", 5, 0.05, 20.0)
    machine = sim.Machine("all at once", 0.05, noise)
    runs = machine.runs(np.random.default_rng(2), 40, 60, 60, machine.mean_median(50_000))
    simulated, _ = bench.outcome(runs, rigor, bench.METHODS["widened"])
    for seed in range(40):
        for done in range(1, 61):
            kept = [v for v in runs.values[seed, :done].tolist() if v == v]  # noqa: PLR0124 - not a number
            decision = enough(
                {"ttft_s": kept}, Targets(min_processes=5, half_width=0.05, budget_s=20.0), processes=done,
                measuring_s=float(runs.busy_s[seed, :done].sum()), noisy=len(kept) < min(5, done),
            )  # fmt: skip
            if decision.stop:
                break
        assert simulated.processes[seed] == done
        assert simulated.decided[seed] == ("within" in decision.reason)


def test_the_simulated_moments_give_the_half_width_of_a_run(bench):
    values = np.random.default_rng(3).normal(1.0, 0.1, (5, 30))
    n, _, stdev, lag1 = bench.moments(values)
    found = bench.METHODS["widened"](np.maximum(n, 2), stdev, lag1)
    for row, widths in zip(values.tolist(), found, strict=True):
        for k in range(2, 31):
            assert widths[k - 1] == pytest.approx(half_width(row[:k]), rel=1e-6)


@given(st.lists(st.floats(1e-4, 1.0), min_size=2, max_size=9))
def test_simulated_warm_up_ends_where_a_process_would_end_it(durations):
    at, found = sim.settled_at(np.array([durations]))
    ends = [k for k in range(2, len(durations) + 1) if is_steady(durations[:k])]
    assert bool(found[0]) is bool(ends)
    assert at[0] == (ends[0] if ends else len(durations))


def test_steep_ramps_are_cut_better_than_by_two_that_agree(noise):
    def bias(agree_only):
        machine = sim.Machine("steep ramps", 0.0, noise, 6, agree_only)
        runs = machine.runs(np.random.default_rng(4), 40, 50, 50, 1.0)
        return runs.values.mean() / machine.mean_median(50_000) - 1

    assert 0 < bias(agree_only=False) < 0.7 * bias(agree_only=True)


def test_what_is_left_of_a_ramp_shows_over_many_processes(noise):
    def noticed(kind):
        runs = sim.Machine(kind, 0.0, noise).runs(np.random.default_rng(5), 60, 150, 150, 1.0)
        seen = [leftover_ramp(np.exp(np.stack([row, 0 * row], axis=1)).tolist()) for row in runs.falls]
        return np.mean([s is not None and s.warming_up for s in seen])

    assert noticed("plain") < 0.08
    assert noticed("steep ramps") > 0.5


def test_a_drift_shows_as_a_trend_and_chance_seldom_does(noise):
    def flagged(kind):
        runs = sim.Machine(kind, 0.05, noise).runs(np.random.default_rng(6), 60, 40, 40, 1.0)
        return np.mean([t is not None and t.drifts for t in map(trend, runs.values.tolist())])

    assert flagged("plain") < 0.08
    assert flagged("drift") > 0.3


def test_pairs_alarm_seldom_and_find_five_per_cent(bench, noise):
    machine = sim.Machine("correlated processes", 0.05, noise)
    rows = [bench._pair_run(machine, seed, 1.0) for seed in range(100)]
    _, met, alarm, _, wrong, found = (np.array(column) for column in zip(*rows, strict=True))
    small, five, large = range(len(bench.EFFECTS))
    assert met.mean() > 0.9
    assert alarm.mean() <= 0.11  # 5 %, of 100 runs
    assert (wrong.mean(axis=0) <= 0.11).all()  # whatever the true effect is
    assert found[met, five].mean() >= 0.9
    assert found[met, small].mean() < found[met, five].mean() <= found[met, large].mean()


def test_simulated_pairs_stop_where_a_run_would(bench, noise):
    values = bench.pair_values(sim.Machine("plain", 0.02, noise), np.random.default_rng(7), 60, 1.0)
    used, met = bench.stop_pairs(values, 0.03)
    assert met
    logs = {m: np.log(v[:, 1] / v[:, 0]).tolist() for m, v in values.items()}
    targets = Targets(min_processes=5, half_width=0.03, budget_s=1e9)
    stops = [enough_pairs({m: v[:k] for m, v in logs.items()}, targets, measuring_s=1.0).stop for k in range(61)]
    assert stops.index(True) == used
    widths = [log_ratio_half_width(v[:used]) for v in logs.values()]
    assert max(w for w in widths if w is not None) <= 0.03
    assert (
        compare_pairs({m: (v[:used, 0].tolist(), v[:used, 1].tolist()) for m, v in values.items()})["ttft_s"].n == used
    )
