"""Every load shape from end to end on the null engine: what it was paced at is what the result says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from perjoule import store
from perjoule.cli import main
from perjoule.records import Missing, Quantity
from perjoule.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule.records import RunResult, Span

TTFT_S, ITL_S, TOKENS = 0.02, 0.005, 6
SERVICE_S = TTFT_S + (TOKENS - 1) * ITL_S
SLOWER = 3.0  # than the pace, on a machine that does other things too: only floors are exact
LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_latency_s", "e2e_latency_p90_s")


def run(folder: Path, scenario: str, *, processes: int = 2, **settings: object) -> RunResult:
    """Run a scenario with tiny settings, and return its one result, which verifies."""
    tiny = {
        "backend.ttft_s": TTFT_S, "backend.itl_s": ITL_S, "prompt_tokens": 16, "new_tokens": TOKENS,
        "min_processes": processes,
    }  # fmt: skip
    words = [
        word for key, value in (tiny | settings).items() for word in ("--set", f"{key.replace('__', '.')}={value}")
    ]
    budget = str(settings.get("duration_s", 0.1))
    command = ["run", scenario, "--backend", "null", "--out", str(folder), "--time-budget", budget, *words]
    assert main(command) == 0
    [path] = folder.glob("*.json")
    result = store.load(path)
    assert verify(result) == []
    return result


def value(result: RunResult, name: str) -> float:
    metric = result.metric(name)
    assert isinstance(metric, Quantity), (name, metric)
    return metric.value


def reason(result: RunResult, name: str) -> str:
    metric = result.metric(name)
    assert isinstance(metric, Missing), (name, metric)
    return metric.reason


def measured(result: RunResult) -> list[Span]:
    return [s for s in result.spans if s.phase == "measured"]


def codes(result: RunResult) -> set[str]:
    return {check.code for check in result.checks}


def test_an_open_load_within_capacity(tmp_path: Path):
    result = run(
        tmp_path, "server", arrivals="constant", rate_per_s=4, duration_s=2, batch=1, slo__ttft_s=1, slo__tpot_s=1
    )  # fmt: skip
    assert TTFT_S <= value(result, "ttft_s") < SLOWER * TTFT_S
    assert ITL_S * 0.99 <= value(result, "tpot_s") < SLOWER * ITL_S
    assert value(result, "queue_delay_s") < TTFT_S
    assert value(result, "offered_requests_per_s") == 4
    assert value(result, "requests_per_s") == pytest.approx(4, rel=0.1)
    assert value(result, "slo_met_share") == 1
    assert "saturated" not in codes(result)
    for span in measured(result):
        assert (span.offered, span.finished, span.saturated) == (8, 8, False)
    windows = {w.id: w for w in result.windows}
    assert all(windows[s.window].duration_s >= 2 for s in measured(result))


def test_an_open_load_of_four_times_the_capacity(tmp_path: Path):
    result = run(tmp_path, "server", rate_per_s=4 / SERVICE_S, duration_s=5, batch=1)
    assert "saturated" in codes(result)
    for name in (*LATENCIES, "queue_delay_s", "slo_met_share", "goodput_requests_per_s"):
        assert "saturated" in reason(result, name)
    windows = {w.id: w for w in result.windows}
    for span in measured(result):
        assert span.saturated
        assert span.finished < span.offered
        assert windows[span.window].duration_s < 0.8 * 5, "it was ended early"
    assert 0 < value(result, "requests_per_s") <= 1.01 / SERVICE_S, "what it carries is known"


def test_the_highest_rate_is_looked_for_by_one_process_and_measured_by_all(tmp_path: Path):
    result = run(
        tmp_path, "server-max", arrivals="constant", duration_s=1.5, batch=1, slo__ttft_s=4 * SERVICE_S, slo__tpot_s=1
    )
    rates = {span.rate_per_s for span in measured(result)}
    assert len(rates) == 1
    found = rates.pop()
    assert found is not None
    assert 0.3 / SERVICE_S < found <= 1.15 / SERVICE_S
    assert {s.process for s in result.spans if s.phase == "warmup"} == {0}
    assert value(result, "offered_requests_per_s") == pytest.approx(found)


@pytest.mark.parametrize("batch", [1, 4])
def test_everything_at_once(tmp_path: Path, batch: int):
    result = run(tmp_path, "offline", requests_per_process=8, batch=batch)
    passes_s = 8 * TTFT_S + 8 / batch * (TOKENS - 1) * ITL_S
    assert 8 / passes_s / SLOWER < value(result, "requests_per_s") <= 8 / passes_s * 1.001
    assert value(result, "output_tokens_per_s") == pytest.approx(TOKENS * value(result, "requests_per_s"))
    assert "only throughput" in reason(result, "ttft_s")
    sent = [(s.process, s.prompt_ids_sha256) for s in result.samples]  # no prefix cache outlives its process
    assert len(set(sent)) == len(sent)


@pytest.mark.parametrize("batch", [1, 2])
def test_clients_that_wait_for_their_answers(tmp_path: Path, batch: int):
    result = run(tmp_path, "multi-stream", clients=2, requests_per_process=8, batch=batch)
    assert value(result, "ttft_s") >= TTFT_S
    assert value(result, "e2e_latency_s") >= SERVICE_S * 0.999
    if batch == 1:
        assert value(result, "queue_delay_s") >= SERVICE_S * 0.9, "the other client's request comes first"
    for span in measured(result):
        assert (span.offered, span.finished) == (8, 8)
    assert 0 < value(result, "output_tokens_per_s") < 2 * TOKENS / SERVICE_S


def test_nothing_is_asked(tmp_path: Path):
    result = run(tmp_path, "idle", duration_s=0.5)
    assert 0 <= value(result, "idle_cpu_share") < 0.5
    assert [s.offered for s in measured(result)] == [0] * len(result.processes)
    assert not [s for s in result.samples if s.phase == "measured"]


def test_from_nothing_to_the_first_answer(tmp_path: Path):
    result = run(tmp_path, "cold-start")
    assert all(s.phase == "measured" for s in result.samples)
    assert len(result.samples) == len(result.processes)
    assert value(result, "cold_ttft_s") == pytest.approx(value(result, "ttft_s"))
    assert value(result, "ttft_s") >= TTFT_S


def test_one_after_the_other_without_a_pause(tmp_path: Path):
    result = run(tmp_path, "sustained", processes=1, duration_s=1.5)
    assert len([s for s in result.samples if s.phase == "measured"]) >= 10
    spent = sum(s.end_s - s.start_s for s in result.samples if s.phase == "measured")
    assert spent <= 1.5 + SLOWER * SERVICE_S
    assert 0.5 < value(result, "last_fifth_decode_ratio") < 2
