"""Single-stream load: one request at a time, the next begins when the last has ended."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

from perjoule.protocols import RemoteEngine
from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perjoule.protocols import Clock, Engine, FinishReason


class Observed(Record, frozen=True, kw_only=True):
    """What one request showed: monotonic ns stamps, and CPU time of this process at the three edges."""

    start_ns: int
    first_token_ns: int
    end_ns: int
    start_cpu_ns: int
    first_token_cpu_ns: int
    end_cpu_ns: int
    token_ns: tuple[int, ...]
    finish_reason: str
    output_tokens: int
    untimed: str = ""  # why ``token_ns`` are not those of tokens: they are those of pieces of text


def observe_request(
    engine: Engine,
    clock: Clock,
    prompt_ids: Sequence[int],
    max_new_tokens: int,
    *,
    stop: frozenset[int] = frozenset(),
    said: list[int] | None = None,
    on_first_token: Callable[[int], None] | None = None,
    on_end: Callable[[], None] | None = None,
) -> Observed:
    """Run one request and stamp each token where its id comes into being, the same way for every engine.

    ``on_first_token(ns)`` and ``on_end()`` are called once, after the stamps of the first token and of the end have
    been taken. Ids are added to ``said`` where they are wanted. Call ``gc.collect()`` before: nothing is collected
    meanwhile.
    """
    token_ns: list[int] = []
    now_ns, stamp = clock.now_ns, token_ns.append
    first_cpu_ns = 0

    def on_token(token_id: int) -> None:
        stamp(now_ns())
        if said is not None:
            said.append(token_id)
        if not first_cpu_ns:
            on_first()

    def on_first() -> None:
        nonlocal first_cpu_ns
        first_cpu_ns = clock.cpu_ns()
        if on_first_token is not None:
            on_first_token(token_ns[0])

    with no_collection():
        start_cpu_ns = clock.cpu_ns()
        start_ns = clock.now_ns()
        reason: FinishReason = engine.generate(prompt_ids, max_new_tokens, stop, on_token)
        end_ns = clock.now_ns()
        end_cpu_ns = clock.cpu_ns()
        if on_end is not None:
            on_end()
    delivery = engine.delivery() if isinstance(engine, RemoteEngine) else None
    return Observed(
        start_ns=start_ns,
        first_token_ns=token_ns[0],
        end_ns=end_ns,
        start_cpu_ns=start_cpu_ns,
        first_token_cpu_ns=first_cpu_ns,
        end_cpu_ns=end_cpu_ns,
        token_ns=tuple(token_ns),
        finish_reason=reason if delivery is None else delivery.finish_reason,
        output_tokens=len(token_ns) if delivery is None else delivery.output_tokens,
        untimed="" if delivery is None else delivery.untimed,
    )


def observe_prefills(
    engine: Engine, clock: Clock, prompts: Sequence[Sequence[int]], span_s: float
) -> tuple[int, int, int, int]:
    """Run prefills back to back, one output token each, until ``span_s`` is over or the prompts are used up.

    Returns monotonic ns at start and end, CPU ns of this process, and how many prompts were run.
    """
    done = 0
    with no_collection():
        start_cpu_ns, start_ns = clock.cpu_ns(), clock.now_ns()
        due_ns = start_ns + int(span_s * 1e9)
        for ids in prompts:
            engine.generate(ids, 1, frozenset(), lambda _token_id: None)
            done += 1
            if clock.now_ns() >= due_ns:
                break
        end_ns, end_cpu_ns = clock.now_ns(), clock.cpu_ns()
    return start_ns, end_ns, end_cpu_ns - start_cpu_ns, done


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep Python's cyclic collector out of a request, as timeit does: its pauses belong to no engine."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
