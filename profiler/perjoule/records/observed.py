"""What a run observed: requests, windows, counter readings, memory."""

from __future__ import annotations

from typing import Literal

from perjoule.records.base import UNSET, Energy, Reason, Record

Phase = Literal["warmup", "measured"]
WindowPhase = Literal["idle", "load", "prefill", "decode"]


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

    ``cpu_s`` is CPU time of the worker process (all threads) inside the window, ``foreign_cpu_s`` that of
    every process outside our own tree, ``steal_s`` what the hypervisor took, ``bytes_streamed`` the weights
    and KV cache that had to be read from memory at least once per forward pass.
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

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


class Sample(Record, frozen=True, kw_only=True):
    """One request. Stamps are seconds since the run's start, taken where the token id came into being.

    ``window`` is the id stem of the request: its windows are ``<window>/prefill`` and ``<window>/decode``.
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt_tokens < 1 or self.output_tokens < 1:
            msg = "a sample needs at least one prompt token and one output token"
            raise ValueError(msg)
        if not self.start_s <= self.first_token_s <= self.end_s:
            msg = "a sample's stamps must be in order: start, first token, end"
            raise ValueError(msg)


class ProcessRecord(Record, frozen=True, kw_only=True):
    """One fresh worker process: how it started and whether it reached a steady state."""

    process: int
    start_s: float
    load_s: float
    cold_ttft_s: float
    warmup_requests: int
    steady: bool
    shared_prefix_tokens: int


class MemoryPeak(Record, frozen=True, kw_only=True):
    """High-water marks of the worker: while loading, over all requests, and in one request's two phases."""

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


class Block(Record, frozen=True, kw_only=True):
    """Requests of one phase back to back in one window, so that a slow sensor's shortest window is filled."""

    process: int
    window: str  # the id of its window
    requests: int
    prompt_tokens: int
