"""MLCommons LoadGen drives a null system: its schedule, percentiles and early stopping against ours.

LoadGen writes when each query was scheduled, issued and complete to its trace, and what it makes of them to its detail
log. Requests with the same stamps go through our summary. Its percentile is the order statistic of index floor(n p),
counted from 0 (``loadgen/results.cc``); ours interpolates between neighbours (Hyndman and Fan's type 7), so that both
lie between the order statistics of index floor((n - 1) p) and ceil(n p).
"""

from __future__ import annotations

import bisect
import itertools
import json
import queue
import random
import re
import statistics
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from builders import make_model, make_sample
from fake_engines import OneByOne
from traces import SimulatedClock

from perjoule.load.arrivals import arrival_times
from perjoule.load.serve import serve_one_by_one
from perjoule.load.sources import OpenLoop
from perjoule.records import UNSET, Quantity
from perjoule.scenario import load_scenario
from perjoule.stats.early_stopping import estimate, judge_server, single_stream
from perjoule.stats.intervals import percentile
from perjoule.stats.summary import summarize

loadgen = pytest.importorskip(
    "mlperf_loadgen", reason="mlcommons-loadgen is not installed here: make test-oracles runs this where it is"
)

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule.records import Sample

pytestmark = pytest.mark.extras

QUERIES, RATE_PER_S = 1500, 1500.0
SAMPLE = re.compile(
    r'"name":"Sample","cat":"[^"]*","ph":"b".*?"ts":([0-9.]+),"args":.*?'
    r'"issue_start_ns":(\d+),"complete_ns":(\d+)'
)  # fmt: skip


class Run(NamedTuple):
    """What LoadGen saw: seconds of each query (scheduled, issued, complete), and what it told, by key."""

    scheduled_s: list[float]
    issued_s: list[float]
    complete_s: list[float]
    told: dict[str, Any]

    @property
    def latency_ns(self) -> list[int]:
        return [round((c - s) * 1e9) for s, c in zip(self.scheduled_s, self.complete_s, strict=True)]


def drive(folder: Path, scenario: str, limit_s: float = 0.01) -> Run:
    """Let LoadGen drive a system that answers after some hundred microseconds, one query at a time."""
    waiting: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    draw = random.Random(1)

    def work() -> None:
        while (query := waiting.get()) is not None:
            time.sleep(draw.uniform(50e-6, 400e-6))
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(query, 0, 0)])

    worker = threading.Thread(target=work)
    worker.start()
    settings = loadgen.TestSettings()
    settings.scenario, settings.mode = getattr(loadgen.TestScenario, scenario), loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms, settings.max_duration_ms = 1, 60_000
    settings.min_query_count = settings.max_query_count = QUERIES
    settings.server_target_qps, settings.server_target_latency_percentile = RATE_PER_S, 0.99
    settings.server_target_latency_ns = round(limit_s * 1e9)
    settings.single_stream_expected_latency_ns = 300_000
    logs, output = loadgen.LogSettings(), loadgen.LogOutputSettings()
    output.outdir, output.copy_summary_to_stdout = str(folder), False
    logs.log_output, logs.enable_trace = output, True
    system = loadgen.ConstructSUT(lambda queries: [waiting.put(q.id) for q in queries] and None, lambda: None)
    library = loadgen.ConstructQSL(64, 64, lambda _indices: None, lambda _indices: None)
    try:
        loadgen.StartTestWithLogSettings(system, library, settings, logs)
    finally:
        waiting.put(None)
        worker.join()
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(system)
    return read(folder)


def read(folder: Path) -> Run:
    """Read the trace by its lines: as a whole it is not JSON."""
    rows = [
        (float(start_us) / 1e6, int(issue_ns) / 1e9, int(complete_ns) / 1e9)
        for start_us, issue_ns, complete_ns in SAMPLE.findall((folder / "mlperf_log_trace.json").read_text("utf-8"))
    ]
    told = {}
    for line in (folder / "mlperf_log_detail.txt").read_text("utf-8").splitlines():
        event = json.loads(line.removeprefix(":::MLLOG "))
        told[event["key"]] = event["value"]
    assert len(rows) == QUERIES
    return Run([s for s, _, _ in rows], [s + i for s, i, _ in rows], [s + c for s, _, c in rows], told)


@pytest.fixture(scope="module", params=["Server", "SingleStream"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return drive(tmp_path_factory.mktemp("loadgen"), request.param)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return drive(tmp_path_factory.mktemp("server"), "Server")


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return drive(tmp_path_factory.mktemp("stream"), "SingleStream")


def samples_of(run: Run) -> list[Sample]:
    return [
        make_sample(
            0, index, output_tokens=1, scheduled_s=scheduled, scheduled_s_missing=UNSET, start_s=issued,
            first_token_s=complete, token_times_s=(complete,), end_s=complete,
        )
        for index, (scheduled, issued, complete) in enumerate(
            zip(run.scheduled_s, run.issued_s, run.complete_s, strict=True)
        )
    ]  # fmt: skip


def told_ns(run: Run, share: float) -> int:
    return int(run.told[f"result_{share * 100:.2f}_percentile_latency_ns"])


def test_latencies_are_the_same_order_statistics(run: Run):
    latency_ns = sorted(run.latency_ns)
    for share in (0.5, 0.9, 0.95, 0.97, 0.99, 0.999):
        told = told_ns(run, share)
        assert abs(latency_ns[int(QUERIES * share)] - told) <= 1, "index floor(n p), from 0"
        ours = percentile(latency_ns, share)
        assert latency_ns[int((QUERIES - 1) * share)] <= ours <= told + 1, "ours lies below, by less than one rank"


def test_our_summary_gives_its_percentiles(run: Run):
    found = summarize(samples_of(run), [], [], [], load_scenario("server"), make_model())
    gap_ns = sorted(run.latency_ns)
    for name, share in (("e2e_latency_p90_s", 0.9), ("e2e_latency_p99_s", 0.99), ("ttft_p99_s", 0.99)):
        metric, rank = found[name], int(QUERIES * share)
        assert isinstance(metric, Quantity)
        assert metric.n == QUERIES
        assert gap_ns[rank - 1] / 1e9 - 1e-8 <= metric.value <= told_ns(run, share) / 1e9 + 1e-8
    median = found["e2e_latency_s"]
    assert isinstance(median, Quantity)
    assert median.value * 1e9 == pytest.approx(statistics.median(gap_ns), abs=10)


def test_the_early_stopping_estimates_of_single_stream_are_equal(stream: Run):
    latency_ns = stream.latency_ns
    ours = single_stream(latency_ns)
    assert ours.value == pytest.approx(stream.told["early_stopping_latency_ss"], abs=1)
    assert estimate(latency_ns, 0.99).value == pytest.approx(stream.told["early_stopping_latency_ms"], abs=1)
    text = stream.told["early_stopping_result"]
    assert f"Processed at least {ours.least} queries ({QUERIES})" in text
    assert ours.rank_from_top is not None
    assert f"Would discard {ours.rank_from_top - 1} highest" in text


@pytest.mark.parametrize("share_within", [0.5, 0.985, 0.999, 1.0])
def test_the_early_stopping_verdict_on_a_server_is_equal(tmp_path: Path, server: Run, share_within: float):
    """Limits are taken from a first run, so that hardly any, some or all of the queries exceed them."""
    limit_s = 60.0 if share_within == 1.0 else percentile(server.latency_ns, share_within) / 1e9
    run = drive(tmp_path, "Server", limit_s)
    over = sum(ns > round(limit_s * 1e9) for ns in run.latency_ns)
    assert over == run.told["result_overlatency_query_count"]
    ours = judge_server(over, QUERIES)
    assert ours.passed == run.told["early_stopping_met"]
    text = run.told["early_stopping_result"]
    assert (f"at least {ours.more} more queries" in text) if ours.more else ("Run successful" in text)


def test_its_schedule_and_ours_are_draws_from_the_same_distribution(server: Run):
    """Two-sample Kolmogorov-Smirnov test of the gaps between arrivals, at 0.1 %."""
    theirs, ours = server.scheduled_s, arrival_times("poisson", rate_per_s=RATE_PER_S, duration_s=QUERIES / RATE_PER_S)
    gaps = [sorted(b - a for a, b in itertools.pairwise(times)) for times in (theirs, ours)]
    worst = max(abs(_below(gaps[0], at) - _below(gaps[1], at)) for at in (*gaps[0], *gaps[1]))
    assert worst < 1.95 * (1 / len(gaps[0]) + 1 / len(gaps[1])) ** 0.5
    assert run_rate(theirs) == pytest.approx(server.told["result_scheduled_samples_per_sec"], rel=1e-3)


def test_its_arrivals_and_services_give_our_queue_the_latencies_it_measured(server: Run):
    """Replayed on a simulated clock: each waits until the last was complete, then takes as long as it took."""
    first_s = server.scheduled_s[0]
    begun, free_s = [], 0.0
    for issued, complete in zip(server.issued_s, server.complete_s, strict=True):
        begun.append(max(issued, free_s))
        free_s = complete
    service = iter([c - b for b, c in zip(begun, server.complete_s, strict=True)])
    clock = SimulatedClock()
    tally = serve_one_by_one(
        OneByOne(clock, lambda: next(service)), OpenLoop([s - first_s for s in server.scheduled_s]),  # type: ignore[arg-type]
        [[1]] * QUERIES, 1, clock,
    )  # fmt: skip
    found = [(a.token_ns[0] - a.due_ns) / 1e9 for a in tally.answers]
    late = [i - s for s, i in zip(server.scheduled_s, server.issued_s, strict=True)]  # LoadGen's own, in its latency
    theirs = [ns / 1e9 for ns in server.latency_ns]
    assert all(t - sum(late) <= f <= t + 1e-6 for f, t in zip(found, theirs, strict=True))
    assert statistics.median(abs(f - t) for f, t in zip(found, theirs, strict=True)) <= max(1e-6, percentile(late, 0.9))


def _below(values: list[float], at: float) -> float:
    return bisect.bisect_right(values, at) / len(values)


def run_rate(times_s: list[float]) -> float:
    return (len(times_s) - 1) / (times_s[-1] - times_s[0])
