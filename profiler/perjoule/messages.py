"""What parent and worker say to each other: JSON lines, one message a line, typed on both sides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from perjoule.load.serve import Served
from perjoule.load.single_stream import Observed
from perjoule.protocols import EngineOptions, Prepared
from perjoule.records import MemoryPeak, Quality, Record, ServerCounts
from perjoule.scenario import Arrivals, PageCache, Scenario, Shape, Slo

QualityWanted = Literal["none", "fidelity", "full"]

# ---- parent to worker (standard input) ----


class PrepareJob(Record, frozen=True, kw_only=True, tag_field="job", tag="prepare"):
    """Resolve and convert a model; the worker answers with ``Progress`` and one ``PreparedReply``."""

    backend: str
    ref: str
    options: EngineOptions


class Question(Record, frozen=True, kw_only=True):
    """One request that says something of its own: a question in the model's chat template, or a passage to be read.

    ``id`` names it in the result; ``chat``: it is put as a user's message, behind ``system`` if there is one, and the
    answer ends where the model ends it, or after ``max_new_tokens``. ``thinking``: what the template's switch for it
    is set to; None leaves it as it ships.
    """

    id: str
    prompt: str
    system: str | None = None
    chat: bool
    max_new_tokens: int
    thinking: bool | None = None


class MeasureJob(Record, frozen=True, kw_only=True, tag_field="job", tag="measure"):
    """Load the engine, warm it up, then run ``requests`` measured requests (more until ``min_span_s``)."""

    backend: str
    prepared: Prepared
    options: EngineOptions
    process: int
    corpus: str
    seed: int
    prompt_tokens: int
    new_tokens: int
    requests: int
    max_warmup_requests: int
    min_span_s: float
    prefill_block_s: float = 0.0  # a prefill shorter than this is repeated in a block of its own; 0: no block
    shape: Shape = "single-stream"
    duration_s: float | None = None
    clients: int = 1
    arrivals: Arrivals | None = None
    rate_per_s: float | None = None
    arrival_times_s: tuple[float, ...] = ()
    find_rate: bool = False
    slo: Slo | None = None
    page_cache: PageCache = "warm"
    questions: tuple[Question, ...] = ()  # asked once each, in place of the corpus' prompts
    memory_request: bool = True  # one request more, whose two phases show their own peaks of memory
    pin: tuple[int, ...] | None = None
    nice: int | None = None
    server_pid: int | None = None  # of the server that is asked, where it is known


class QualityJob(Record, frozen=True, kw_only=True, tag_field="job", tag="quality"):
    """Say how good the engine's predictions are; the worker answers with ``Progress`` and one ``QualityReply``.

    ``reference`` is the same checkpoint at fp32 for ``reference_backend``, or the reason why there is none.
    """

    backend: str
    prepared: Prepared
    options: EngineOptions
    reference_backend: str
    reference: Prepared | str
    machine_id: str
    wanted: QualityWanted


Job = PrepareJob | MeasureJob | QualityJob
GO = b"go\n"  # the parent has read its meters: the request may start
KEPT, NOISY = b"kept\n", b"noisy\n"  # the parent's verdict on a request, so that a noisy one can be measured again


_WARM_UP = 128, 16  # tokens in and out, before questions


def measure_job(
    scenario: Scenario,
    *,
    backend: str,
    prepared: Prepared,
    options: EngineOptions,
    process: int,
    seed: int,
    window_s: float,
    found_rate_per_s: float | None = None,
    questions: tuple[Question, ...] = (),
) -> MeasureJob:
    """Return what one process is to do for a scenario.

    ``window_s`` is the shortest window of the meters; ``found_rate_per_s`` what an earlier process' search ended with.
    """
    return MeasureJob(
        backend=backend,
        prepared=prepared,
        options=options,
        process=process,
        corpus=scenario.corpus,
        seed=seed,
        # questions bring lengths of their own; the scenario's only bound them, and warm-up need not be as long
        prompt_tokens=min(scenario.prompt_tokens, _WARM_UP[0]) if questions else scenario.prompt_tokens,
        new_tokens=min(scenario.new_tokens, _WARM_UP[1]) if questions else scenario.new_tokens,
        requests=scenario.requests_per_process,
        max_warmup_requests=scenario.max_warmup_requests,
        min_span_s=window_s,
        prefill_block_s=window_s if scenario.shape == "single-stream" else 0.0,
        shape=scenario.shape,
        duration_s=scenario.duration_s,
        clients=scenario.clients,
        arrivals=scenario.arrivals,
        rate_per_s=scenario.rate_per_s if found_rate_per_s is None else found_rate_per_s,
        arrival_times_s=scenario.arrival_times_s,
        find_rate=scenario.find_rate,
        slo=scenario.slo,
        page_cache=scenario.page_cache,
        questions=questions,
        memory_request=process < scenario.min_processes,  # peaks hardly differ; later processes save the time
    )


# ---- worker to parent (its own pipe) ----


class Progress(Record, frozen=True, kw_only=True, tag_field="event", tag="progress"):
    text: str
    done_share: float | None


class PreparedReply(Record, frozen=True, kw_only=True, tag_field="event", tag="prepared"):
    prepared: Prepared


class Loaded(Record, frozen=True, kw_only=True, tag_field="event", tag="loaded"):
    start_ns: int
    end_ns: int
    engine_version: str
    effective_options: dict[str, Any]
    libraries: dict[str, str]
    memory: MemoryPeak
    read_bytes: int | str  # from storage while loading, or why it is not known


class Ready(Record, frozen=True, kw_only=True, tag_field="event", tag="ready"):
    """A request is about to start; the worker waits for ``GO``."""

    index: int
    measured: bool


class BlockReady(Record, frozen=True, kw_only=True, tag_field="event", tag="block_ready"):
    """A block of prefills, or a load, is about to start; the worker waits for ``GO``."""

    quiet_s: float  # that the worker may then say nothing


class PrefillBlock(Record, frozen=True, kw_only=True, tag_field="event", tag="prefill_block"):
    """Prefills back to back, one output token each: monotonic ns, CPU ns of the worker, what was done."""

    start_ns: int
    end_ns: int
    cpu_ns: int
    requests: int
    prompt_tokens: int


class SpanDone(Record, frozen=True, kw_only=True, tag_field="event", tag="span_done"):
    """Requests served in one window, said once it is over; begun by ``BlockReady``. Monotonic ns, CPU ns of the worker.

    ``offered`` were sent or due; those that were not answered are not in ``requests``. ``forward_passes`` read the
    weights once each; ``positions`` are those of all sequences whose keys and values were read, summed over passes.
    """

    start_ns: int
    end_ns: int
    cpu_ns: int
    measured: bool
    requests: tuple[Served, ...]
    offered: int
    planned_s: float | None
    rate_per_s: float | None
    saturated: bool
    verdict: str
    longest_wait_ns: int
    forward_passes: int | None
    positions: int | None


class FirstToken(Record, frozen=True, kw_only=True, tag_field="event", tag="first_token"):
    at_ns: int


class LastToken(Record, frozen=True, kw_only=True, tag_field="event", tag="last_token"):
    """A request, or a load, has ended; said at once, so that the meters are read close to its end."""


class Request(Record, frozen=True, kw_only=True, tag_field="event", tag="request"):
    index: int
    measured: bool
    prompt_text_sha256: str
    prompt_ids_sha256: str
    prompt_tokens: int
    observed: Observed
    question: str | None = None
    answer: str | None = None


class Finished(Record, frozen=True, kw_only=True, tag_field="event", tag="finished"):
    steady: bool
    shared_prefix_tokens: int
    memory: tuple[MemoryPeak, ...]
    server: ServerCounts | None = None


class Failed(Record, frozen=True, kw_only=True, tag_field="event", tag="failed"):
    """The worker could not go on, and says so itself (a crash says nothing)."""

    message: str
    hint: str
    exit_code: int
    details: str = ""


class QualityReply(Record, frozen=True, kw_only=True, tag_field="event", tag="quality"):
    quality: Quality


Tell = Callable[[str, float | None], None]
Event = (
    Progress | PreparedReply | QualityReply | Loaded | Ready | BlockReady | PrefillBlock | SpanDone | FirstToken
    | LastToken | Request | Finished | Failed
)  # fmt: skip

_ENCODER = msgspec.json.Encoder()
_JOBS: msgspec.json.Decoder[Job] = msgspec.json.Decoder(Job)
_EVENTS: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode(message: Job | Event) -> bytes:
    return _ENCODER.encode(message) + b"\n"


def decode_job(line: bytes) -> Job:
    return _JOBS.decode(line)


def decode_event(line: bytes) -> Event:
    return _EVENTS.decode(line)
