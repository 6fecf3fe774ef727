"""Requests in flight at an engine that schedules by itself, on a simulated clock: what must be seen follows."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from fake_engines import prompts, stamps_s
from hypothesis import given
from hypothesis import strategies as st
from traces import SimulatedClock

from perjoule.load.serve import Patient, Tally, serve_remotely
from perjoule.load.sources import AllAtOnce, ClosedLoop, OpenLoop, Source
from perjoule.protocols import Delivery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.protocols import OnToken
    from perjoule.records import ServerCounts


class Elsewhere:
    """Gives the first piece after ``ttft_s`` and one more each ``itl_s``, however many requests are in flight."""

    def __init__(
        self, clock: SimulatedClock, places: int, ttft_s: float = 1.0, itl_s: float = 0.1, size: int = 1
    ) -> None:
        self._clock, self._places, self._ttft_s, self._itl_s, self._size = clock, places, ttft_s, itl_s, size
        self._events: list[tuple[int, int, int, OnToken]] = []  # when, ticket, how many follow
        self._next = 0
        self.most, self.abandoned = 0, 0
        self.counted: list[int] = []
        self._tokens: dict[int, int] = {}

    def submit(self, prompt_ids: Sequence[int], max_new_tokens: int, on_token: OnToken) -> int:
        assert prompt_ids
        ticket, self._next = self._next, self._next + 1
        pieces = -(-max_new_tokens // self._size)
        self._tokens[ticket] = max_new_tokens
        self._events.append((self._clock.now_ns() + int(self._ttft_s * 1e9), ticket, pieces - 1, on_token))
        self.most = max(self.most, len(self._events))
        assert len(self._events) <= self._places
        return ticket

    def wait(self, seconds: float | None) -> list[int]:
        due_ns = None if seconds is None else self._clock.now_ns() + int(seconds * 1e9)
        while self._events and (due_ns is None or min(self._events)[0] <= due_ns):
            event = min(self._events)
            self._events.remove(event)
            at_ns, ticket, left, on_token = event
            self._clock.advance((at_ns - self._clock.now_ns()) / 1e9)
            on_token(0)
            if not left:
                return [ticket]
            self._events.append((at_ns + int(self._itl_s * 1e9), ticket, left - 1, on_token))
        if due_ns is not None:
            self._clock.advance(max(0, due_ns - self._clock.now_ns()) / 1e9)
        return []

    def delivery(self, ticket: int | None = None) -> Delivery:
        assert ticket is not None
        self.counted.append(ticket)
        return Delivery(
            finish_reason="length", output_tokens=self._tokens[ticket], untimed="" if self._size == 1 else "in pieces"
        )

    def abandon(self) -> None:
        self.abandoned, self._events = len(self._events), []

    def counts(self) -> ServerCounts:
        raise NotImplementedError


def served(source: Source, count: int, places: int, *, tokens: int = 3, **engine: float) -> tuple[Tally, Elsewhere]:
    clock = SimulatedClock()
    remote = Elsewhere(clock, places, **engine)  # type: ignore[arg-type]
    return serve_remotely(remote, places, source, prompts(count, 2), tokens, clock), remote


def rounded(tally: Tally) -> list[tuple[float, ...]]:
    return [tuple(round(t, 4) for t in row) for row in stamps_s(tally)]


def test_as_many_as_there_are_places_are_in_flight_and_nobody_waits_for_a_step_of_others():
    tally, remote = served(AllAtOnce(5), 5, 2)
    assert rounded(tally) == [(0, 0, 1.2), (0, 0, 1.2), (0, 1.2, 2.4), (0, 1.2, 2.4), (0, 2.4, 3.6)]
    assert remote.most == 2


def test_one_that_comes_while_others_are_answered_is_sent_at_once_and_delays_nobody():
    tally, _remote = served(OpenLoop([0.0, 1.05], 1.2), 2, 2)
    assert rounded(tally) == [(0, 0, 1.2), (1.05, 1.05, 2.25)]


def test_one_that_finds_no_place_waits_and_its_latency_counts_from_when_it_was_due():
    tally, _remote = served(OpenLoop([0.0, 0.5], 1.0), 2, 1)
    assert rounded(tally) == [(0, 0, 1.2), (0.5, 1.2, 2.4)]
    assert tally.longest_wait_ns == pytest.approx(0.7e9, rel=1e-3)


def test_clients_send_their_next_when_the_last_was_answered():
    tally, remote = served(ClosedLoop(clients=2, requests=6), 6, 2)
    assert rounded(tally) == [(t, t, round(t + 1.2, 4)) for t in (0, 0, 1.2, 1.2, 2.4, 2.4)]
    assert remote.most == 2


def test_the_time_after_the_last_arrival_is_part_of_the_load():
    tally, _remote = served(OpenLoop([0.0], 9.0), 1, 1)
    assert (tally.end_ns - tally.start_ns) / 1e9 == pytest.approx(9.0, rel=1e-3)


def test_tokens_are_counted_after_the_load_and_pieces_are_not_tokens():
    tally, remote = served(AllAtOnce(2), 2, 2, tokens=7, size=3)
    assert [a.tokens for a in tally.answers] == [7, 7]
    assert [len(a.token_ns) for a in tally.answers] == [3, 3]
    assert {a.untimed for a in tally.answers} == {"in pieces"}
    assert sorted(remote.counted) == [0, 1]


def test_passes_are_known_only_where_nothing_can_be_batched():
    alone, _remote = served(AllAtOnce(2), 2, 1)
    assert (alone.passes_known, alone.forward_passes, alone.positions) == (True, 6, 2 * (2 + 3 + 4))
    together, _remote = served(AllAtOnce(2), 2, 2)
    assert not together.passes_known


class _EndsAfter(Patient):
    def __init__(self, answers: int) -> None:
        self._left = answers

    def answered(self, now_ns: int, count: int, waiting: int, *, full: bool) -> str:
        del now_ns, waiting, full
        self._left -= count
        return "enough" if self._left <= 0 else ""


class _Impatient(Patient):
    def __init__(self, seconds: float) -> None:
        self._limit_ns, self._begin_ns = int(seconds * 1e9), 0

    def begin(self, now_ns: int) -> None:
        self._begin_ns = now_ns

    def overdue(self, now_ns: int, unanswered: int) -> str:
        return "late" if unanswered and now_ns - self._begin_ns > self._limit_ns else ""


def test_what_is_in_flight_at_the_verdict_is_hung_up_on():
    clock = SimulatedClock()
    remote = Elsewhere(clock, 3, itl_s=0.1)
    tally = serve_remotely(
        remote, 3, OpenLoop([0.0, 0.5, 0.9], 20.0), prompts(3), 3, clock, _EndsAfter(1)
    )  # fmt: skip
    assert (tally.verdict, len(tally.answers), tally.offered, remote.abandoned) == ("enough", 1, 3, 2)


def test_a_load_that_is_overdue_is_noticed_while_all_places_are_taken():
    clock = SimulatedClock()
    remote = Elsewhere(clock, 1, ttft_s=1000.0)
    tally = serve_remotely(remote, 1, OpenLoop([0.0, 0.1], 1.0), prompts(2), 3, clock, _Impatient(5.0))
    assert tally.verdict == "late"
    assert (tally.end_ns - tally.start_ns) / 1e9 < 6


@given(gaps=st.lists(st.floats(0, 2), min_size=1, max_size=20), places=st.integers(1, 5), tokens=st.integers(1, 5))
def test_whatever_comes_is_answered_in_order_of_arrival(gaps: list[float], places: int, tokens: int):
    times = list(itertools.accumulate(gaps))
    tally, remote = served(OpenLoop(times, times[-1] + 0.1), len(times), places, tokens=tokens)
    by_index = sorted(tally.answers, key=lambda a: a.index)
    assert [a.index for a in by_index] == list(range(len(times)))
    assert [a.start_ns for a in by_index] == sorted(a.start_ns for a in by_index)
    assert all(a.due_ns <= a.start_ns < a.token_ns[0] and len(a.token_ns) == tokens for a in by_index)
    assert remote.most <= places
