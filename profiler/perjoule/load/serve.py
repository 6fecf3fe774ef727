"""Requests that come as they come, served by one engine: a queue in front of it, and places inside it.

One thread does it all: it takes what is due, gives the engine work, and sleeps while there is none. What is due while
the engine works is taken afterwards; its latency counts from when it was due, so the wait is in it.
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import TYPE_CHECKING, Protocol

from perjoule.load.single_stream import no_collection
from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.load.sources import Source
    from perjoule.protocols import Batch, Clock, Engine, FinishReason, OnToken, RemoteEngine


_LOOK_EACH_S = 0.25  # whether what waits for an engine elsewhere is overdue


class Served(Record, frozen=True, kw_only=True):
    """One answered request: monotonic ns at which it was due, begun, and each of its tokens existed."""

    index: int
    prompt_text_sha256: str
    prompt_ids_sha256: str
    prompt_tokens: int
    due_ns: int
    start_ns: int
    token_ns: tuple[int, ...]
    finish_reason: str
    output_tokens: int
    untimed: str = ""  # why ``token_ns`` are not those of tokens: they are those of pieces of text


class Answer:
    """A request on its way: plain and slotted, since one is made for each in the middle of the load.

    Its stamps take eight bytes each: the load shares the memory whose peak is measured.
    """

    __slots__ = (
        "due_ns",
        "finish_reason",
        "index",
        "output_tokens",
        "prompt_tokens",
        "start_ns",
        "token_ns",
        "untimed",
    )  # fmt: skip

    def __init__(self, index: int, due_ns: int, start_ns: int, prompt_tokens: int) -> None:
        self.index, self.due_ns, self.start_ns = index, due_ns, start_ns
        self.prompt_tokens = prompt_tokens
        self.token_ns = array("q")
        self.finish_reason: FinishReason = "length"
        self.output_tokens: int | None = None  # null: one a stamp
        self.untimed = ""

    @property
    def tokens(self) -> int:
        return len(self.token_ns) if self.output_tokens is None else self.output_tokens


class Judge(Protocol):
    """Says when an engine does not keep up: a verdict in words, empty while it does."""

    def begin(self, now_ns: int) -> None: ...
    def answered(self, now_ns: int, count: int, waiting: int, *, full: bool) -> str: ...
    def overdue(self, now_ns: int, unanswered: int) -> str: ...


class Patient:
    """The judge of loads that wait for their answers: they cannot be more than the engine answers."""

    def begin(self, now_ns: int) -> None:
        """Nothing is timed."""

    def answered(self, now_ns: int, count: int, waiting: int, *, full: bool) -> str:
        del now_ns, count, waiting, full
        return ""

    def overdue(self, now_ns: int, unanswered: int) -> str:
        del now_ns, unanswered
        return ""


class Tally:
    """What a load came to. ``answers`` are complete, in the order in which they were completed."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.start_ns = self.end_ns = 0
        self.start_cpu_ns = self.end_cpu_ns = 0
        self.offered = 0
        self.verdict = ""
        self.longest_wait_ns = 0
        self.passes_known = True  # false: an engine elsewhere batches as it likes
        self.forward_passes = 0
        self.positions = 0  # of all sequences, whose keys and values were read or written, summed over passes


def serve_one_by_one(
    engine: Engine,
    source: Source,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    clock: Clock,
    judge: Judge | None = None,
) -> Tally:
    """Serve a load with an engine that works on one request at a time. Prompt ``i`` is that of the i-th request due.

    Prompts may be packed arrays: an engine is given a list.
    """
    line = _Line(source, clock, judge or Patient(), prompts, places=1)
    with no_collection(), line:
        while (answer := line.next()) is not None:
            ids = list(prompts[answer.index])
            answer.finish_reason = engine.generate(ids, new_tokens, frozenset(), _stamper(answer, clock))
            count, prompt = len(answer.token_ns), len(ids)
            line.tally.forward_passes += count
            line.tally.positions += prompt + (count - 1) * prompt + (count - 1) * count // 2
            line.answered([answer], working=0)
    return line.tally


def _stamper(answer: Answer, clock: Clock) -> OnToken:
    stamp, now_ns = answer.token_ns.append, clock.now_ns
    return lambda _token_id: stamp(now_ns())


def serve_together(
    batch: Batch,
    places: int,
    source: Source,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    clock: Clock,
    judge: Judge | None = None,
) -> Tally:
    """Serve a load with an engine that advances up to ``places`` requests together (continuous batching).

    Whoever waits is prefilled as soon as a place is free, before the others go on: their next token comes later by it.
    """
    line = _Line(source, clock, judge or Patient(), prompts, places=places)
    now_ns, tally = clock.now_ns, line.tally
    active: list[Answer] = []
    with no_collection(), line:
        while True:
            if len(active) < places and (answer := line.next(working=len(active))) is not None:
                ids = list(prompts[answer.index])
                batch.add(ids)
                answer.token_ns.append(now_ns())
                active.append(answer)
                tally.forward_passes += 1
                tally.positions += len(ids)
            elif active and not tally.verdict:
                batch.step()
                at_ns = now_ns()
                tally.forward_passes += 1
                for answer in active:
                    tally.positions += answer.prompt_tokens + len(answer.token_ns)
                    answer.token_ns.append(at_ns)
                if len(active) == places:
                    line.look(at_ns, working=places)
            else:
                break
            if done := _removed(batch, active, new_tokens):
                line.answered(done, working=len(active))
    return tally


def serve_remotely(
    engine: RemoteEngine,
    places: int,
    source: Source,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    clock: Clock,
    judge: Judge | None = None,
) -> Tally:
    """Serve a load with an engine that schedules by itself: up to ``places`` requests are in flight at a time.

    What was in flight when it was found not to keep up is hung up on. Answers are counted once the load is over.
    """
    line = _Line(source, clock, judge or Patient(), prompts, places=places)
    tally, active, tickets = line.tally, dict[int, Answer](), dict[int, Answer]()
    with no_collection(), line:
        while not tally.verdict:
            while len(active) < places and (answer := line.next(working=len(active))) is not None:
                ids = list(prompts[answer.index])
                active[engine.submit(ids, new_tokens, _stamper(answer, clock))] = answer
            if tally.verdict or not active:
                break
            for ticket in engine.wait(line.due_in_s()):
                tickets[ticket] = answer = active.pop(ticket)
                line.answered([answer], working=len(active))
            line.look(clock.now_ns(), working=len(active))
        if active:
            engine.abandon()
    for ticket, answer in tickets.items():
        delivery = engine.delivery(ticket)
        answer.output_tokens, answer.untimed = delivery.output_tokens, delivery.untimed
        answer.finish_reason = delivery.finish_reason
    _count_passes(tally, known=places == 1)
    return tally


def _count_passes(tally: Tally, *, known: bool) -> None:
    tally.passes_known = known
    for count, prompt in ((a.tokens, a.prompt_tokens) for a in tally.answers):
        tally.forward_passes += count
        tally.positions += count * prompt + (count - 1) * count // 2


def _removed(batch: Batch, active: list[Answer], new_tokens: int) -> list[Answer]:
    """Take the complete answers out of the batch, and out of ``active``, whose order is that of the batch's places."""
    done: list[Answer] = []
    for place in range(len(active) - 1, -1, -1):
        if len(active[place].token_ns) >= new_tokens:
            batch.remove(place)
            done.append(active[place])
            last = active.pop()
            if place < len(active):
                active[place] = last
    return done


class _Line:
    """The queue in front of the engine's ``places``, and the book that is kept of it."""

    def __init__(
        self, source: Source, clock: Clock, judge: Judge, prompts: Sequence[Sequence[int]], places: int
    ) -> None:
        self._source, self._clock, self._judge, self._prompts = source, clock, judge, prompts
        self._places = places
        self._waiting: deque[int] = deque()
        self._taken = 0
        self.tally = Tally()

    def __enter__(self) -> None:
        tally, clock = self.tally, self._clock
        tally.start_cpu_ns, tally.start_ns = clock.cpu_ns(), clock.now_ns()
        self._source.begin(tally.start_ns)
        self._judge.begin(tally.start_ns)

    def __exit__(self, *_error: object) -> None:
        tally, clock = self.tally, self._clock
        tally.end_ns, tally.end_cpu_ns = clock.now_ns(), clock.cpu_ns()
        if self._waiting:
            tally.longest_wait_ns = max(tally.longest_wait_ns, tally.end_ns - self._waiting[0])

    def next(self, *, working: int = 0) -> Answer | None:
        """Return the request to begin now; None if there is none, or once the engine was found not to keep up.

        Where the engine works on nothing, sleep until one is due or the load is over.
        """
        source, waiting, clock, tally = self._source, self._waiting, self._clock, self.tally
        while True:
            now_ns = clock.now_ns()
            self.look(now_ns, working=working)
            if tally.verdict:
                return None
            if waiting:
                break
            until_ns = source.lasts_until_ns if source.next_due_ns is None else source.next_due_ns
            if working or (source.next_due_ns is None and until_ns <= now_ns):
                return None
            if until_ns > now_ns:
                clock.sleep((until_ns - now_ns) / 1e9)
        sent_ns = waiting.popleft()
        answer = Answer(self._taken, sent_ns, now_ns, len(self._prompts[self._taken]))
        tally.longest_wait_ns = max(tally.longest_wait_ns, now_ns - sent_ns)
        self._taken += 1
        return answer

    def due_in_s(self) -> float:
        """Return the seconds until the next request is due; at most those until somebody should look again."""
        due_ns = self._source.next_due_ns
        left_s = _LOOK_EACH_S if due_ns is None else (due_ns - self._clock.now_ns()) / 1e9
        return max(0.0, min(_LOOK_EACH_S, left_s))

    def look(self, now_ns: int, *, working: int) -> None:
        """Put what has come into the queue, and ask whether it has waited too long."""
        self._take(now_ns)
        if self._waiting and not self.tally.verdict:
            self.tally.verdict = self._judge.overdue(now_ns, len(self._waiting) + working)

    def answered(self, done: Sequence[Answer], *, working: int) -> None:
        """Note answers that were completed at the same instant, while ``working`` others go on."""
        at_ns = done[0].token_ns[-1]
        self.tally.answers += done
        for _ in done:
            self._source.answered(at_ns)
        self._take(at_ns)
        if not self.tally.verdict:
            waiting = len(self._waiting)
            self.tally.verdict = self._judge.answered(
                at_ns, len(done), waiting, full=working + waiting >= self._places
            )  # fmt: skip

    def _take(self, now_ns: int) -> None:
        due_ns = self._source.next_due_ns
        if due_ns is not None and due_ns <= now_ns:
            came = self._source.take(now_ns)
            self._waiting.extend(came)
            self.tally.offered += len(came)
