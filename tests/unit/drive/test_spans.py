"""The loads of one process from warm-up to the end, on a simulated clock."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from load_jobs import Parent, make_job
from traces import SimulatedClock

from perjoule import messages
from perjoule.drive.spans import SpanDriver
from perjoule.errors import EngineError
from perjoule.protocols import EngineOptions
from perjoule.scenario import Slo
from perjoule_backends.null import NullEngine

TTFT_S, ITL_S, TOKENS = 0.1, 0.02, 8
SERVICE_S = TTFT_S + (TOKENS - 1) * ITL_S


def drive(parent: Parent | None = None, **changes: Any) -> Parent:
    """Run one process on the null engine, whose times are exact on a simulated clock; return what it said."""
    parent, clock, batch = parent or Parent(), SimulatedClock(), changes.pop("batch", 1)
    job = make_job(options=EngineOptions(context_tokens=2048, batch=batch), **changes)
    SpanDriver(parent, clock, job, NullEngine(clock, 2048, TTFT_S, ITL_S, batch)).run()
    assert isinstance(parent.said[-1], messages.Finished)
    return parent


def measured(parent: Parent) -> messages.SpanDone:
    [found] = [s for s in parent.of(messages.SpanDone) if s.measured]
    return found


def seconds(span: messages.SpanDone) -> float:
    return (span.end_ns - span.start_ns) / 1e9


def ttft_s(span: messages.SpanDone) -> list[float]:
    return [(r.token_ns[0] - r.due_ns) / 1e9 for r in span.requests]


def test_a_constant_rate_below_capacity_is_served_as_it_comes():
    span = measured(drive(shape="server", arrivals="constant", rate_per_s=2.0, duration_s=10.0))
    assert ttft_s(span) == pytest.approx([TTFT_S] * 20)
    assert (span.offered, span.saturated, span.planned_s, span.rate_per_s) == (20, False, 10.0, 2.0)
    assert seconds(span) == pytest.approx(10.0), "requests a second are those that were offered"
    assert span.verdict == "all 20 requests were answered"


def test_an_engine_that_is_offered_four_times_too_much_is_found_out_early():
    span = measured(drive(shape="server", arrivals="poisson", rate_per_s=4 / SERVICE_S, duration_s=60.0))
    assert span.saturated
    assert "about 4.17 are answered" in span.verdict
    assert seconds(span) < 20
    assert len(span.requests) < span.offered
    assert span.longest_wait_ns > 1e9


def test_recorded_arrivals_are_replayed_and_have_a_rate():
    times = (0.0, 0.05, 3.0)
    span = measured(drive(shape="server", arrivals="recorded", arrival_times_s=times, duration_s=6.0))
    assert [(r.due_ns - span.start_ns) / 1e9 for r in span.requests] == pytest.approx(times)
    assert ttft_s(span) == pytest.approx([TTFT_S, SERVICE_S - 0.05 + TTFT_S, TTFT_S])
    assert span.rate_per_s == pytest.approx(0.5)


def test_everything_at_once_takes_as_long_as_it_takes():
    span = measured(drive(shape="offline", requests=5))
    assert seconds(span) == pytest.approx(5 * SERVICE_S)
    assert (span.planned_s, span.rate_per_s, span.offered) == (None, None, 5)


def test_an_engine_that_batches_meets_its_batch_before_the_load():
    parent = drive(shape="offline", requests=8, batch=4)
    warm, load = parent.of(messages.SpanDone)
    assert (warm.measured, len(warm.requests), load.measured, len(load.requests)) == (False, 4, True, 8)
    assert seconds(load) == pytest.approx(2 * (4 * TTFT_S + (TOKENS - 1) * ITL_S))
    assert len({r.prompt_ids_sha256 for s in (warm, load) for r in s.requests}) == 12, "no prompt is used twice"


def test_clients_go_on_for_the_duration():
    span = measured(drive(shape="multi-stream", clients=3, requests=4, duration_s=5.0))
    assert 5.0 <= seconds(span) < 5.0 + 3 * SERVICE_S + 1e-6
    assert span.offered == len(span.requests) == pytest.approx(5.0 / SERVICE_S + 2, abs=1.5)
    assert span.verdict.endswith("were answered")


def test_clients_whose_prompts_are_used_up_say_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("perjoule.drive.spans._MAX_POOL", 6)
    span = measured(drive(shape="multi-stream", clients=2, requests=4, duration_s=50.0))
    assert len(span.requests) == 6
    assert "their prompts were used up after" in span.verdict


def test_waiting_is_a_load_without_requests():
    parent = drive(shape="idle", duration_s=7.0, requests=1, max_warmup_requests=1)
    span = measured(parent)
    assert (seconds(span), span.requests, span.offered) == (pytest.approx(7.0), (), 0)


def test_the_highest_rate_is_found_and_then_measured():
    """With constant arrivals every rate up to the capacity is met, and none beyond."""
    slo = Slo(ttft_s=2 * SERVICE_S, share=0.99)
    parent = drive(shape="server", arrivals="constant", find_rate=True, slo=slo, duration_s=60.0)
    *trials, load = parent.of(messages.SpanDone)
    assert load.measured
    assert not any(t.measured for t in trials)
    assert load.rate_per_s == pytest.approx(1 / SERVICE_S, rel=0.1)
    assert not load.saturated
    assert len(trials) <= 8
    found_before = {"arrivals": "constant", "find_rate": True, "rate_per_s": 1.0, "slo": slo, "duration_s": 9.0}
    given = measured(drive(shape="server", **found_before))
    assert given.rate_per_s == 1.0, "what another process found is measured"


def test_a_level_that_cannot_be_met_ends_at_the_lowest_rate():
    slo = Slo(ttft_s=TTFT_S / 2)
    parent = drive(shape="server", arrivals="constant", find_rate=True, slo=slo, duration_s=600.0)
    rates = [s.rate_per_s for s in parent.of(messages.SpanDone)]
    assert rates[-1] == min(r for r in rates if r is not None)


def test_a_disturbed_load_is_measured_once_more():
    parent = drive(Parent(verdicts=[False, False, True]), shape="offline", requests=2)
    assert [s.measured for s in parent.of(messages.SpanDone)] == [True, True]
    one = drive(Parent(verdicts=[True]), shape="offline", requests=2)
    assert len(one.of(messages.SpanDone)) == 1


def test_the_end_is_said_before_it_is_told():
    """The parent reads its meters when the load ends, not when its requests have been put into words."""
    said = drive(shape="server", arrivals="constant", rate_per_s=1.0, duration_s=5.0).said
    for before, after in itertools.pairwise(said):
        if isinstance(after, messages.SpanDone):
            assert isinstance(before, messages.LastToken)
    ready = next(i for i, e in enumerate(said) if isinstance(e, messages.BlockReady))
    assert isinstance(said[ready + 1], messages.LastToken)


@pytest.mark.parametrize(
    ("changes", "least", "most"),
    [
        ({"shape": "server", "arrivals": "constant", "rate_per_s": 1.0, "duration_s": 60.0}, 90, 120),
        ({"shape": "offline", "requests": 10}, 20 * SERVICE_S, 40 * SERVICE_S),
        ({"shape": "multi-stream", "clients": 2, "requests": 100, "duration_s": 1.0}, 200 * SERVICE_S, 400 * SERVICE_S),
        ({"shape": "idle", "duration_s": 5.0}, 6, 20),
    ],
)
def test_a_load_may_be_silent_for_as_long_as_it_may_take(changes: dict[str, Any], least: float, most: float):
    quiet_s = [e.quiet_s for e in drive(**changes).of(messages.BlockReady)]
    assert least <= quiet_s[-1] <= most


def test_preparing_many_prompts_is_no_silence():
    class Slow(SimulatedClock):
        def now_ns(self) -> int:
            self.ns += 300_000_000
            return self.ns

    parent, clock = Parent(), Slow()
    job = make_job(shape="offline", requests=30)
    SpanDriver(parent, clock, job, NullEngine(clock, 2048, 0.0, 0.0)).run()
    said = parent.of(messages.Progress)
    assert len(said) >= 5
    assert all(e.text == "preparing prompts" and 0 < (e.done_share or 0) <= 1 for e in said)


def test_a_batch_needs_an_engine_that_holds_one():
    class Alone:
        tokenizer = NullEngine(SimulatedClock(), 8, 0, 0).tokenizer

    job = msgspec.structs.replace(make_job(), options=EngineOptions(batch=2))
    with pytest.raises(EngineError, match="one request at a time"):
        SpanDriver(Parent(), SimulatedClock(), job, Alone())  # type: ignore[arg-type]
