"""How many tokens an answer was: the server's count, our tokenizer's and the number of pieces, and who is believed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import EngineError
from perjoule.protocols import UNKNOWN_TOKEN
from perjoule_backends.openai_server.answer import Answer, Counted

if TYPE_CHECKING:
    from collections.abc import Sequence


class Letters:
    """Every letter is a token."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode()


def token_of(text: str) -> int:
    return ord(text) if len(text) == 1 else UNKNOWN_TOKEN


def answered(
    pieces: Sequence[str], usage: int | None = None, *, prompt: int = 5, wanted: int = 100, end: str = "length"
) -> Answer:
    answer = Answer(5, wanted, "length", lambda _token: None)
    events = [{"choices": [{"text": p, "finish_reason": None}]} for p in pieces]
    events.append({"choices": [{"text": "", "finish_reason": end}]})
    if usage is not None:
        events.append({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": usage}})
    for event in events:
        answer.feed(f"data: {json.dumps(event)}\n\n".encode(), token_of, frozenset())
    answer.feed(b"data: [DONE]\n\n", token_of, frozenset())
    answer.ended()
    return answer


def counted(pieces: Sequence[str], usage: int | None = None, **more: int) -> Counted:
    return answered(pieces, usage, **more).count(Letters())  # type: ignore[arg-type]


def test_three_witnesses_that_agree():
    found = counted(list("abcdefgh"), 8)
    assert found.delivery.output_tokens == 8
    assert found.delivery.untimed == ""
    noticed = (found.usage_missing, found.usage_differs, found.pieces_differ, found.prompt_differs)
    assert noticed == (False, False, False, False)


def test_pieces_of_several_tokens_have_no_times():
    found = counted(["abcd", "efgh"], 8)
    assert found.delivery.output_tokens == 8
    assert found.delivery.untimed == "8 tokens came in 2 pieces"
    assert found.pieces_differ
    assert not found.usage_differs


@pytest.mark.parametrize("said", [1, 4, 90])
def test_a_server_that_counts_other_tokens_than_came_is_not_believed(said: int):
    found = counted(list("abcdefgh"), said)
    assert found.usage_differs
    assert found.delivery.output_tokens == 8
    assert found.delivery.untimed == "", "as many pieces came as the text has tokens"


def test_a_count_that_another_cut_of_the_text_explains_is_the_servers():
    found = counted(list("abcdefgh"), 9)
    assert not found.usage_differs
    assert found.delivery.output_tokens == 9
    assert found.delivery.untimed == "9 tokens came in 8 pieces"


def test_without_a_count_pieces_that_are_a_token_each_are_counted():
    found = counted(list("abcdefgh"))
    assert found.usage_missing
    assert (found.delivery.output_tokens, found.delivery.untimed) == (8, "")


def test_without_a_count_longer_pieces_are_counted_by_their_text():
    found = counted(["abc", "d", "e"])
    assert found.delivery.output_tokens == 5
    assert found.delivery.untimed == "5 tokens came in 3 pieces"


def test_another_prompt_than_was_sent_is_noticed():
    assert counted(list("ab"), 2, prompt=15).prompt_differs
    assert not counted(list("ab"), 2, prompt=6).prompt_differs, "a beginning-of-sequence token"


@given(
    pieces=st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=30),
    usage=st.none() | st.integers(0, 200),
)
def test_no_time_is_claimed_for_a_token_that_was_not_seen(pieces: list[str], usage: int | None):
    found = counted(pieces, usage)
    of_text = len("".join(pieces))
    assert abs(found.tokens - of_text) <= 1 + max(found.tokens, of_text) // 20, "the text decides"
    assert (found.delivery.untimed == "") == (found.tokens == len(pieces))


def test_why_it_ended():
    assert answered(list("ab"), 2, wanted=2).reason(2) == "length"
    assert answered(list("ab"), 2, wanted=9, end="stop").reason(2) == "stop"


def test_a_stop_token_ends_it_where_it_came():
    seen: list[int] = []
    answer = Answer(5, 100, "length", seen.append)
    for piece in "abcd":
        answer.feed(f"data: {json.dumps({'choices': [{'text': piece}]})}\n\n".encode(), token_of, frozenset({ord("c")}))
    assert (seen, answer.finish_reason, answer.done) == ([97, 98, 99], "stop", True)


def test_an_answer_that_ends_without_a_reason_is_refused():
    answer = Answer(5, 100, "length", lambda _token: None)
    answer.feed(b'data: {"choices": [{"text": "a"}]}\n\n', token_of, frozenset())
    with pytest.raises(EngineError, match="without saying why"):
        answer.ended()


def test_an_answer_without_text_is_refused():
    with pytest.raises(EngineError, match="without any text"):
        answered([], 0).refuse_empty()


def test_a_server_that_does_not_stop_is_stopped():
    with pytest.raises(EngineError, match="2 tokens were asked for"):
        answered(["a"] * 100, wanted=2)
