"""HTTP answers and event streams, whole and cut anywhere, sound and hostile."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import EngineError
from perjoule_backends.openai_server.events import MAX_EVENT_BYTES, EventStream, Usage, read_piece, said_in
from perjoule_backends.openai_server.response import MAX_HEAD_BYTES, Response

BODY = b"data: one\n\ndata: two\n\n"
_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = _CHUNKS + b"5;x=y\r\ndata:\r\n11\r\n one\n\ndata: two\n\n\r\n0\r\nA: b\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n" + BODY
UNTIL_CLOSE = b"HTTP/1.0 200 OK\r\n\r\n" + BODY
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(p % (len(data) + 1) for p in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("answer", [CHUNKED, SIZED, UNTIL_CLOSE, INTERIM])
@given(places=st.lists(st.integers(0, 500), max_size=12))
def test_an_answer_is_the_same_however_it_is_cut(answer: bytes, places: list[int]):
    response = Response()
    body = b"".join(response.feed(part) for part in cut(answer, places))
    if answer is UNTIL_CLOSE:
        assert not response.done
        response.hung_up()
    assert (response.status, body, response.done) == (200, BODY, True)
    assert response.reusable == (answer is not UNTIL_CLOSE)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01\x02\x00",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HEAD_BYTES,
        b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 300,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
    ],
)
def test_what_is_no_http_is_refused_with_a_hint(answer: bytes):
    with pytest.raises(EngineError) as caught:
        Response().feed(answer)
    assert caught.value.hint
    assert "\n" not in caught.value.message


@given(data=st.binary(max_size=400))
def test_whatever_comes_is_taken_or_refused(data: bytes):
    response = Response()
    with suppress(EngineError):
        body = response.feed(_CHUNKS + data)
        assert len(body) <= len(data)
    assert response.status == 200


@pytest.mark.parametrize(("seen", "said"), [(b"", "without an answer"), (SIZED[:-3], "in the middle")])
def test_a_server_that_hangs_up_early_is_told_from_one_that_is_done(seen: bytes, said: str):
    response = Response()
    response.feed(seen)
    with pytest.raises(EngineError, match=said):
        response.hung_up()


@given(places=st.lists(st.integers(0, 500), max_size=12), ending=st.sampled_from([b"\n", b"\r\n"]))
def test_events_are_the_same_however_they_are_cut(places: list[int], ending: bytes):
    lines = [b": ping", b"", b"event: x", b"id: 3", b"data: one", b"", b"data:two", b"data: lines", b"", b"", b"data:"]
    stream, found = EventStream(), []
    for part in cut(ending.join(lines) + ending, places):
        found += stream.feed(part)
    assert found == [b"one", b"two\nlines"], "the last one is not complete"


@pytest.mark.parametrize("line", [b"<html>\n", b'{"text": "x"}\n', b"garbage\n"])
def test_a_line_that_is_no_event_is_shown(line: bytes):
    with pytest.raises(EngineError, match="no event"):
        EventStream().feed(line)


@pytest.mark.parametrize("start", [b"data: ", b"data: x\n" * 200_000 + b"data: "])
def test_an_event_that_never_ends_is_refused(start: bytes):
    stream = EventStream()
    stream.feed(start[:10])
    with pytest.raises(EngineError, match="more than"):
        stream.feed(start[10:] + b"a" * MAX_EVENT_BYTES)


def piece(**event: object) -> bytes:
    return json.dumps(event).encode()


def test_a_piece_says_text_reason_and_usage():
    found = read_piece(piece(choices=[{"text": " hi", "finish_reason": "length", "logprobs": None}], id="x"))
    assert found == (" hi", "length", None)
    found = read_piece(piece(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}))
    assert found.usage == Usage(7, 3, -1)
    cached = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}}
    assert read_piece(piece(choices=[], usage=cached)).usage == Usage(7, 3, 5)


def test_a_piece_of_a_chat_is_what_is_thought_and_said():
    assert read_piece(piece(choices=[{"delta": {"role": "assistant"}}])).text == ""
    assert read_piece(piece(choices=[{"delta": {"content": "a"}}])).text == "a"
    assert read_piece(piece(choices=[{"delta": {"reasoning_content": "hm", "content": None}}])).text == "hm"


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"nonsense", b'{"choices": 3}', b'{"choices": [{"text": 3}]}', b"\xff\xfe", b"[" * 5000]
)
def test_what_is_no_piece_is_shown_on_one_line(data: bytes):
    with pytest.raises(EngineError, match="in the middle of an answer") as caught:
        read_piece(data)
    assert len(caught.value.message) < 300
    assert "\n" not in caught.value.message


def test_an_error_inside_a_stream_is_the_servers():
    with pytest.raises(EngineError, match="out of memory"):
        read_piece(piece(error={"message": "out of memory", "code": 500}))
    with pytest.raises(EngineError, match="several answers"):
        read_piece(piece(choices=[{"text": "a", "index": 1}]))


@pytest.mark.parametrize("count", [-1, 1 << 40])
def test_a_count_that_is_none_is_as_good_as_missing(count: int):
    assert read_piece(piece(choices=[], usage={"prompt_tokens": count, "completion_tokens": 2})).usage == (-1, 2, -1)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ({"message": "no\nmore"}, "no more"),
        ({"error": {"message": "deep"}}, "deep"),
        ({"detail": [{"msg": "a field", "loc": ["body"]}]}, "a field"),
        ("plain", "plain"),
        ({}, "it does not say why"),
        ({"message": "\x1b[31mred"}, "?[31mred"),
    ],
)
def test_errors_are_told_as_servers_write_them(error: object, said: str):
    assert said_in(error) == said
