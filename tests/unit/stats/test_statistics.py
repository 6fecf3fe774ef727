from __future__ import annotations

import statistics

import msgspec
import pytest
import scipy.stats
from builders import make_model, make_process, make_sample, make_scenario, make_windows
from hypothesis import given
from hypothesis import strategies as st

from perjoule.records import Missing, Quantity
from perjoule.stats.intervals import half_width, percentile, pooled_percentile, t_interval, unseen_share
from perjoule.stats.selection import select
from perjoule.stats.steady import is_steady
from perjoule.stats.steering import decide
from perjoule.stats.summary import summarize
from perjoule.stats.widening import lag1, widened_half_width


def summary_of(runs, scenario=None):
    return summarize(
        [s for r in runs for s in r.samples], [w for r in runs for w in r.windows], [r.record for r in runs],
        [m for r in runs for m in r.memory], scenario or make_scenario(), make_model(),
    )  # fmt: skip


def test_t_interval_is_student_s_widened_for_stopping_and_for_order():
    # of 1..5: s = sqrt(2.5); neighbours correlate by 4 / 10, by 0.84 without bias, by 9.3 / 35 beside the prior
    found = t_interval([1, 2, 3, 4, 5], unit="s", statistic="mean")
    quantile = float(scipy.stats.t.ppf(1 - 0.05 * 5 / 7 / 2, 4))
    inflation = 1 + 2 * ((30 * 0.17 + 5 * 0.84) / 35) / (1 - 0.5)
    assert found.high == pytest.approx(3 + quantile * (2.5 / 5 * inflation) ** 0.5, rel=1e-6)
    assert found.low == max(0.0, 6 - found.high)
    assert found.n == 5
    assert "widened" in found.interval


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=40))
def test_an_interval_is_never_narrower_than_student_s(values):
    found = half_width(values)
    assert found is not None
    n = len(values)
    textbook = float(scipy.stats.t.ppf(0.975, n - 1)) * statistics.stdev(values) / n**0.5
    assert found >= textbook * (1 - 1e-9)


def test_the_corrections_fade_as_processes_are_added():
    wide = [float(widened_half_width(n, 1.0, -1 / n)) * n**0.5 for n in (5, 20, 100, 1000)]
    assert wide == sorted(wide, reverse=True)
    assert wide[-1] == pytest.approx(1.96, rel=0.03)


def test_neighbours_that_resemble_each_other_widen_it():
    assert lag1([1.0, 1.0, 1.0, 2.0, 2.0, 2.0]) > 0.4 > -0.4 > lag1([1.0, 2.0] * 3)
    assert lag1([3.0, 3.0]) == 0
    wandering, alternating = half_width([1.0] * 10 + [2.0] * 10), half_width([1.0, 2.0] * 10)
    assert wandering is not None
    assert alternating is not None
    assert wandering > 1.5 * alternating


def test_a_mode_rarer_than_this_may_be_unseen():
    assert [round(unseen_share(n), 2) for n in (5, 8, 12)] == [0.45, 0.31, 0.22]


def test_one_process_has_no_bounds_and_says_why():
    found = t_interval([2.0], unit="s", statistic="mean")
    assert (found.value, found.low, found.high) == (2.0, None, None)
    assert "one process" in str(found.low_missing)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=20))
def test_an_interval_holds_its_value_and_never_goes_below_zero(values):
    found = t_interval(values, unit="s", statistic="mean")
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value <= found.high


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50), st.floats(0.01, 0.99))
def test_percentile_agrees_with_numpy(values, share):
    numpy = pytest.importorskip("numpy")
    assert percentile(values, share) == pytest.approx(float(numpy.quantile(values, share)), rel=1e-9, abs=1e-9)


def test_a_percentile_needs_enough_requests_and_processes():
    few = pooled_percentile([[1.0] * 3] * 5, 0.90, unit="s")
    assert isinstance(few, Missing)
    assert "20" in few.reason
    unbounded = pooled_percentile([[1.0, 2.0, 3.0, 4.0]] * 5, 0.90, unit="s")
    assert isinstance(unbounded, Quantity)
    assert unbounded.low is None
    bounded = pooled_percentile([[1.0 + p, 2.0, 3.0] for p in range(8)], 0.90, unit="s")
    assert isinstance(bounded, Quantity)
    assert bounded.low is not None
    assert bounded.low <= bounded.value
    assert "bootstrap standard error" in bounded.interval
    assert pooled_percentile([[1.0 + p, 2.0, 3.0] for p in range(8)] + [[]], 0.90, unit="s") == bounded


@pytest.mark.parametrize(
    ("series", "steady"),
    [([], False), ([1.0], False), ([2.0, 1.0], False), ([2.0, 1.0, 1.05], True), ([1.0, 1.05, 2.0], False),
     ([0.0, 0.0], True), ([1.05, 1.0], False), ([1.1, 1.05, 1.0], False), ([1.0, 1.05, 1.0], True),
     ([1.01, 1.0], True), ([2e-4, 1.5e-4], True)],
)  # fmt: skip
def test_steady(series, steady):
    assert is_steady(series) is steady


def test_metrics_follow_their_definitions():
    metrics = summary_of([make_process(p) for p in range(5)])
    slow = statistics.fmean(1 + 0.01 * p for p in range(5))
    assert metrics["ttft_s"].value == pytest.approx(0.5 * slow)
    assert metrics["tpot_s"].value == pytest.approx(0.02 * slow)
    assert metrics["itl_s"].value == pytest.approx(0.02 * slow)
    assert metrics["e2e_latency_s"].value == pytest.approx((0.5 + 63 * 0.02) * slow)
    assert metrics["prefill_tokens_per_s"].value == pytest.approx(
        statistics.fmean(512 / (1 + 0.01 * p) for p in range(5))
    )
    assert metrics["cpu_s_per_output_token"].value == pytest.approx(2 * (0.5 + 63 * 0.02) * slow / 64)
    assert metrics["peak_memory_bytes"].value == 380_000_000 + 4096 * 2
    assert metrics["weights_bytes"].value == 315_000_000
    assert isinstance(metrics["e2e_latency_p90_s"], Missing)
    assert isinstance(metrics["peak_gpu_memory_bytes"], Missing)


def test_one_token_answers_have_no_gaps():
    sample = make_sample(output_tokens=1)
    run = msgspec.structs.replace(make_process(0), samples=(sample,), windows=make_windows(sample))
    metrics = summary_of([run])
    for name in ("itl_s", "itl_p99_s", "tpot_s", "decode_tokens_per_s"):
        assert isinstance(metrics[name], Missing), name


def test_noisy_requests_are_left_out_unless_too_few_remain():
    runs = [make_process(p) for p in range(6)]
    noisy = make_process(5, rejected="noise")
    samples = [s for r in runs for s in r.samples]
    windows = [w for r in [*runs[:5], noisy] for w in r.windows]
    kept = select(samples, windows, make_scenario())
    assert (kept.rejected, kept.measured, kept.kept_rejected, len(kept.samples)) == (3, 18, False, 15)
    everything = select(samples, windows, make_scenario(min_processes=6))
    assert everything.kept_rejected
    assert len(everything.samples) == 18


def test_processes_are_added_until_the_target_or_the_budget():
    def after(count, measuring_s, **changes):
        runs = [make_process(p) for p in range(count)]
        return decide(
            [s for r in runs for s in r.samples], [w for r in runs for w in r.windows], [r.record for r in runs],
            make_scenario(**changes), measuring_s,
        )  # fmt: skip

    assert not after(4, 1e6).stop
    assert after(5, 1.0).stop
    assert "within" in after(5, 1.0).reason
    assert not after(5, 1.0, target_half_width=0.001).stop
    assert "budget" in after(5, 59.0, target_half_width=0.001).reason
