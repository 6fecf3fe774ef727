"""Where requests come from: when each kind hands them out."""

from __future__ import annotations

import pytest

from perjoule.load.sources import AllAtOnce, ClosedLoop, OpenLoop

S = 1_000_000_000


def test_a_schedule_is_handed_out_when_it_is_due_however_late_it_is_asked_for():
    source = OpenLoop([0.0, 1.0, 1.0, 2.5], 4.0)
    assert source.next_due_ns is None, "the load has not begun"
    source.begin(10 * S)
    assert source.next_due_ns == 10 * S
    assert list(source.take(10 * S)) == [10 * S]
    assert (source.next_due_ns, list(source.take(10 * S + 1))) == (11 * S, [])
    source.answered(10 * S)
    assert source.next_due_ns == 11 * S, "an answer does not move the schedule"
    assert list(source.take(20 * S)) == [11 * S, 11 * S, 12 * S + S // 2], "due when scheduled, not when taken"
    assert source.next_due_ns is None
    assert source.lasts_until_ns == 14 * S
    assert list(source.take(21 * S)) == []


def test_an_empty_schedule_is_over_at_once():
    source = OpenLoop([])
    source.begin(5)
    assert (source.next_due_ns, source.lasts_until_ns) == (None, 5)


def test_clients_send_their_next_request_when_the_last_was_answered():
    source = ClosedLoop(clients=2, requests=5)
    source.begin(S)
    assert list(source.take(S)) == [S, S]
    assert (source.next_due_ns, list(source.take(S))) == (None, [])
    source.answered(3 * S)
    assert source.next_due_ns == 3 * S
    assert list(source.take(3 * S)) == [3 * S]
    source.answered(4 * S)
    source.answered(4 * S)
    assert list(source.take(4 * S)) == [4 * S, 4 * S], "five were to be sent"
    source.answered(5 * S)
    assert (list(source.take(5 * S)), source.next_due_ns) == ([], None)


@pytest.mark.parametrize(("most", "sent"), [(None, 10), (7, 7)])
def test_clients_go_on_until_the_duration_is_over_or_the_prompts_are(most: int | None, sent: int):
    source = ClosedLoop(clients=1, requests=3, duration_s=10.0, most=most)
    source.begin(0)
    count, now = 0, 0
    while came := list(source.take(now)):
        count += len(came)
        now += S
        source.answered(now)
    assert count == sent


def test_a_short_duration_does_not_cut_the_requests_that_are_asked_for():
    source = ClosedLoop(clients=1, requests=3, duration_s=0.5)
    source.begin(0)
    sent = 0
    for second in range(6):
        sent += len(source.take(second * S))
        source.answered(second * S)
    assert sent == 3


def test_everything_at_once_is_due_when_the_load_begins():
    source = AllAtOnce(3)
    source.begin(7)
    assert list(source.take(9)) == [7, 7, 7]
    assert (source.next_due_ns, list(source.take(9))) == (None, [])
