"""What a run observed: requests, windows, counter readings, memory."""

from __future__ import annotations

from typing import Literal

from msgspec import UnsetType

from perjoule.records.base import UNSET, Energy, Reason, Record

Phase = Literal["warmup", "measured"]
WindowPhase = Literal["idle", "load", "prefill", "decode", "serve"]


class Reading(Record, frozen=True, kw_only=True):
    """Raw integer counts of one domain at the two edges of a window (strings above 2^53).

    A gauge is integrated as it is polled; its counts are raw unit x ns, and ``sampling_error_count`` is the standard
    uncertainty of their difference that comes from having looked only ``polls`` times.
    """

    domain: str
    start_count: int | str
    end_count: int | str
    skew_s: float = 0.0  # how much later than the worker's stamps the counter was read, end minus start
    polls: int | None = None  # null: a counter, which misses nothing between its edges
    sampling_error_count: float = 0.0


class Window(Record, frozen=True, kw_only=True):
    """One stretch of time that energy and noise are computed from.

    ``cpu_s`` is CPU time of the worker process (all threads) inside the window, or of the server's processes where one
    was asked, ``foreign_cpu_s`` that of every process outside our own tree and the server's, ``steal_s`` what the
    hypervisor took, ``bytes_streamed`` the weights and KV cache that had to be read from memory at least once per
    forward pass.

    The machine's CPU times come in ticks of ``cpu_tick_s``, our own do not: ``cpu_undercount_s`` is by how much ours
    exceeded what the machine was seen busy, where it did. Counts, swapped pages and pressure (time in which some task
    waited) are what the window added; ``freq_hz`` is the mean of CPUs and of the two edges; ``clock_jump_s`` by how
    much the wall clock moved against the monotonic one. What could not be seen is left out; ``unwatched`` of the
    process says why.
    """

    id: str
    process: int
    phase: WindowPhase
    start_s: float
    end_s: float
    cpu_s: float | None
    cpu_s_missing: Reason = UNSET
    steal_s: float | None
    steal_s_missing: Reason = UNSET
    foreign_cpu_s: float | None
    foreign_cpu_s_missing: Reason = UNSET
    bytes_streamed: int | None
    bytes_streamed_missing: Reason = UNSET
    readings: tuple[Reading, ...] = ()
    rejected: str | None = None
    cpu_tick_s: float | UnsetType = UNSET
    cpu_undercount_s: float | UnsetType = UNSET
    throttle_count: int | UnsetType = UNSET
    swap_pages: int | UnsetType = UNSET
    pressure_cpu_s: float | UnsetType = UNSET
    pressure_memory_s: float | UnsetType = UNSET
    pressure_io_s: float | UnsetType = UNSET
    freq_hz: float | UnsetType = UNSET
    clock_jump_s: float | UnsetType = UNSET

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


class Sample(Record, frozen=True, kw_only=True):
    """One request. Stamps are seconds since the run's start, taken where the token id came into being.

    ``window`` is the id stem of the request: its windows are ``<window>/prefill`` and ``<window>/decode``, unless
    it was served among others: then ``span`` is the id of the one window they share. ``scheduled_s`` is when it was
    sent or due; from there latency counts, from ``start_s`` on the engine worked on it.
    """

    process: int
    window: str
    index: int
    phase: Phase
    prompt_text_sha256: str
    prompt_ids_sha256: str
    prompt_tokens: int
    output_tokens: int
    finish_reason: Literal["length", "stop", "context"]
    scheduled_s: float | None
    scheduled_s_missing: Reason = UNSET
    start_s: float
    first_token_s: float
    token_times_s: tuple[float, ...] | None
    token_times_s_missing: Reason = UNSET
    end_s: float
    span: str | UnsetType = UNSET
    question: str | UnsetType = UNSET  # id of what was asked: task/language/level/number, or passage/language
    answer: str | UnsetType = UNSET  # what the model said
    correct: bool | UnsetType = UNSET  # whether that is the right answer, where there is one

    @property
    def sent_s(self) -> float:
        """When the request was sent or due, seconds: where latency starts."""
        return self.start_s if self.scheduled_s is None else self.scheduled_s

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt_tokens < 1 or self.output_tokens < 1:
            msg = "a sample needs at least one prompt token and one output token"
            raise ValueError(msg)
        if not self.start_s <= self.first_token_s <= self.end_s:
            msg = "a sample's stamps must be in order: start, first token, end"
            raise ValueError(msg)
        if self.scheduled_s is not None and self.scheduled_s > self.start_s:
            msg = "a sample cannot start before it was sent"
            raise ValueError(msg)


class ServerCounts(Record, frozen=True, kw_only=True):
    """What a server said of its answers to one process, warm-up included, against what came.

    Requests for which it counted no tokens (``usage_missing_count``), other tokens than the text has
    (``usage_differs_count``), another prompt than was sent (``prompt_differs_count``), or whose pieces of text were not
    one token each (``pieces_differ_count``). Of all ``pieces_count`` pieces ``read_together_count`` were read at once
    with the one before. ``most_cached_tokens`` of one prompt came from its prefix cache.
    """

    requests_count: int  # answered
    usage_missing_count: int
    usage_differs_count: int
    prompt_differs_count: int
    pieces_differ_count: int
    pieces_count: int
    read_together_count: int
    most_cached_tokens: int | None
    most_cached_tokens_missing: Reason = UNSET


class ProcessRecord(Record, frozen=True, kw_only=True):
    """One fresh worker process: how it started and whether it reached a steady state.

    ``unwatched`` says, by field of its windows, what could not be seen there. ``others_count`` processes with
    ``others_cpu_share`` of all cores were found by a look at who disturbs, right after this process. Where a server was
    asked, the process is that of the client, and ``server`` holds what the server said.
    """

    process: int
    start_s: float
    load_s: float | None
    load_s_missing: Reason = UNSET
    cold_ttft_s: float | None
    cold_ttft_s_missing: Reason = UNSET
    load_read_bytes: int | UnsetType | None = UNSET  # from storage while loading: 0 where all was in the page cache
    load_read_bytes_missing: Reason = UNSET
    warmup_requests: int
    steady: bool
    shared_prefix_tokens: int
    unwatched: dict[str, str] | UnsetType = UNSET
    others_count: int | UnsetType = UNSET
    others_cpu_share: float | UnsetType = UNSET
    server: ServerCounts | UnsetType = UNSET


class MemoryPeak(Record, frozen=True, kw_only=True):
    """High-water marks of the worker: while loading, over all requests, and in one request's two phases.

    Where a server was asked they are those of its processes, summed.
    """

    process: int
    phase: Literal["load", "requests", "prefill", "decode"]
    rss_peak_bytes: int | None
    rss_peak_bytes_missing: Reason = UNSET
    pss_bytes: int | None
    pss_bytes_missing: Reason = UNSET
    gpu_bytes: int | None
    gpu_bytes_missing: Reason = UNSET


class IdlePower(Record, frozen=True, kw_only=True):
    """Power per domain at rest: ``before`` the first process, ``after`` the last, ``loaded`` with an engine waiting."""

    before: dict[str, Energy] | None
    before_missing: Reason = UNSET
    loaded: dict[str, Energy] | None
    loaded_missing: Reason = UNSET
    after: dict[str, Energy] | None
    after_missing: Reason = UNSET


class Span(Record, frozen=True, kw_only=True):
    """Requests served one beside or behind the other in one window (``<process>.s<k>/serve``), as one load.

    ``offered`` requests were sent or due until the load ended; ``finished`` of them were answered. A span that is
    ``saturated`` ended early, since the engine could not keep up; ``verdict`` says so in words.
    """

    process: int
    window: str
    phase: Phase  # warm-up: a trial of a search, which is not counted
    planned_s: float | None  # how long the load was to last
    planned_s_missing: Reason = UNSET
    rate_per_s: float | None  # offered, open loop
    rate_per_s_missing: Reason = UNSET
    offered: int
    finished: int
    saturated: bool
    verdict: str
    longest_wait_s: float  # in the queue, of requests that were never started too


class GapHistogram(Record, frozen=True, kw_only=True):
    """Gaps between tokens of one process, where a file would hold too many times of tokens.

    Bin ``i`` counts gaps from ``first_s * ratio ** i`` to the next; gaps below ``first_s`` are in bin 0.
    """

    process: int
    first_s: float
    ratio: float
    counts: tuple[int, ...]


class Block(Record, frozen=True, kw_only=True):
    """Requests of one phase back to back in one window, so that a slow sensor's shortest window is filled."""

    process: int
    window: str  # the id of its window
    requests: int
    prompt_tokens: int
