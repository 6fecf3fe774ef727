"""One fresh process measured: its requests as samples, their two phases as windows with counter readings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from perjoule import host, messages, noise
from perjoule.child import Child
from perjoule.errors import EngineError
from perjoule.meters.readings import readings_between
from perjoule.noise import MAX_FOREIGN_SHARE as MAX_FOREIGN_SHARE  # noqa: PLC0414 - doctor asks for it here
from perjoule.noise import MAX_STEAL_SHARE as MAX_STEAL_SHARE  # noqa: PLC0414
from perjoule.records import (
    UNSET,
    Block,
    MemoryPeak,
    MeterRefusal,
    ProcessRecord,
    Record,
    Sample,
    Span,
    Window,
    WindowPhase,
)
from perjoule.server_process import NOT_NAMED, ServerProcesses, spent_ns
from perjoule.whereabouts import cpu_fields, start_fields, token_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from perjoule.load.serve import Served
    from perjoule.meters import MeterSet
    from perjoule.protocols import Clock

_SERVED = ("multi-stream", "offline", "server", "idle")


class Tell(Protocol):
    def __call__(self, text: str, share: float) -> None: ...


class ProcessRun(Record, frozen=True, kw_only=True):
    """Everything one worker process showed."""

    record: ProcessRecord
    samples: tuple[Sample, ...]
    windows: tuple[Window, ...]
    blocks: tuple[Block, ...] = ()
    spans: tuple[Span, ...] = ()
    memory: tuple[MemoryPeak, ...]
    engine_version: str
    effective_options: dict[str, Any]
    libraries: dict[str, str]
    harness_cpu_s: float
    meter_cpu_s: float = 0.0
    busy: tuple[tuple[float, float], ...] = ()  # at each edge: seconds of the run, busy CPU seconds of the machine
    refusals: tuple[MeterRefusal, ...] = ()


class _Edge:
    """What the parent read at one edge: counters, the machine's CPU times, its own CPU time, what disturbs."""

    def __init__(self, meters: MeterSet, clock: Clock, watch: noise.Watch, server: ServerProcesses | None) -> None:
        readings = meters.read()
        self.server_cpu_ns = NOT_NAMED if server is None else server.cpu_ns()
        self.counts = {r.domain: r for r in readings if not isinstance(r, MeterRefusal)}
        self.refusals = [r for r in readings if isinstance(r, MeterRefusal)]
        self.cpu_times = host.read_cpu_times()
        self.own_cpu_ns = clock.cpu_ns()
        self.at_ns, self.meter_cpu_s = clock.now_ns(), meters.cpu_s
        self.look = watch.look()


def measure_process(
    *,
    job: messages.MeasureJob,
    meters: MeterSet,
    clock: Clock,
    epoch_ns: int,
    stall_s: float,
    tell: Tell,
    when_loaded: Callable[[], None] | None = None,
) -> ProcessRun:
    """Start a worker, follow its events to the end. Raises ``EngineError`` if it fails.

    ``when_loaded`` is called once, while the engine is loaded and waits for its first request.
    """
    begin_ns = clock.now_ns()
    with noise.Watch(clock) as watch, Child(job, stall_s=stall_s) as child:
        tell("loading the model", 0.0)
        loaded = _expect(child, messages.Loaded, "loading the model")
        follow = _Follower(job, loaded, meters, clock, epoch_ns, watch)
        seen = 0
        if when_loaded is not None:
            when_loaded()
        quiet_s = 0.0
        while True:
            event = child.receive("running a request" if seen else "running its first request", quiet_s=quiet_s)
            quiet_s = event.quiet_s if isinstance(event, messages.BlockReady) else 0.0
            if isinstance(event, messages.Ready | messages.BlockReady):
                tell(*_doing(event, job, seen))
                follow.ready()
                child.go()
            elif isinstance(event, messages.Progress):
                tell(event.text, 0.5)
            elif isinstance(event, messages.PrefillBlock):
                follow.block(event)
            elif isinstance(event, messages.SpanDone):
                child.judge(kept=follow.span(event))
            elif isinstance(event, messages.FirstToken | messages.LastToken):
                follow.edge()
            elif isinstance(event, messages.Request):
                seen += 1
                child.judge(kept=follow.request(event))
            elif isinstance(event, messages.Finished):
                child.finish()
                return follow.finish(event, begin_ns)
            else:
                raise EngineError(f"the worker answered {type(event).__name__}", hint="report this as a bug")


def _doing(event: messages.Ready | messages.BlockReady, job: messages.MeasureJob, seen: int) -> tuple[str, float]:
    """Return what is about to happen, and the share that is done."""
    if isinstance(event, messages.BlockReady):
        return ("serving", 0.5) if job.shape in _SERVED else ("measuring prefill alone", 0.95)
    total = job.max_warmup_requests + (len(job.questions) or job.requests)
    return "measuring" if event.measured else "warming up", min(0.95, seen / total)


def _expect(child: Child, kind: type[messages.Loaded], doing: str) -> messages.Loaded:
    event = child.receive(doing)
    if not isinstance(event, kind):
        raise EngineError(f"the worker answered {type(event).__name__} while {doing}", hint="report this as a bug")
    return event


class _Follower:
    """Turns the events of one worker into samples and windows."""

    def __init__(
        self,
        job: messages.MeasureJob,
        loaded: messages.Loaded,
        meters: MeterSet,
        clock: Clock,
        epoch_ns: int,
        watch: noise.Watch,
    ) -> None:
        self._job, self._loaded, self._watch = job, loaded, watch
        self._place, pid = job.prepared.server, job.server_pid
        self._server = ServerProcesses(pid) if self._place == "here" and pid is not None else None
        self._meters, self._clock, self._epoch_ns = meters, clock, epoch_ns
        self._samples: list[Sample] = []
        self._windows: list[Window] = []
        self._blocks: list[Block] = []
        self._spans: list[Span] = []
        self._edges: list[_Edge] = []
        self._own_cpu_ns, self._meter_cpu_s = 0, 0.0
        self._busy: list[tuple[float, float]] = []
        self._refusals: dict[str, MeterRefusal] = {}

    def ready(self) -> None:
        if self._server is not None:
            self._server.look()
        self._edges = []
        self.edge()

    def edge(self) -> None:
        self._edges.append(_Edge(self._meters, self._clock, self._watch, self._server))

    def request(self, event: messages.Request) -> bool:
        """Keep a request as a sample and two windows; return whether it was undisturbed."""
        start, first, end = self._edges
        self._note_edges()
        seen = event.observed
        stem = f"{self._job.process}.{event.index}"
        if event.measured:
            self._note_own_cost(start, end, seen.end_cpu_ns - seen.start_cpu_ns)
        self._samples.append(self._sample(event, stem))
        spans = (
            (
                "prefill",
                start,
                first,
                seen.start_ns,
                seen.first_token_ns,
                seen.first_token_cpu_ns - seen.start_cpu_ns,
            ),
            ("decode", first, end, seen.first_token_ns, seen.end_ns, seen.end_cpu_ns - seen.first_token_cpu_ns),
        )
        streamed = self._streamed(event)
        windows = [
            self._window(f"{stem}/{phase}", phase, before, after, begin, stop, cpu, streamed[phase])  # type: ignore[arg-type]
            for phase, before, after, begin, stop, cpu in spans
        ]
        reason = noise.rejection(windows, start.cpu_times.cores)
        self._windows += [_marked(w, reason) for w in windows]
        return reason is None

    def block(self, event: messages.PrefillBlock) -> None:
        self.edge()
        start, end = self._edges
        self._note_edges()
        name = f"{self._job.process}.block/prefill"
        model = self._job.prepared.model
        weights, kv = model.streamed_bytes_per_token, model.kv_bytes_per_position
        known = weights is not None and kv is not None
        streamed = event.requests * (weights or 0) + (kv or 0) * event.prompt_tokens if known else None
        window = self._window(name, "prefill", start, end, event.start_ns, event.end_ns, event.cpu_ns, streamed)
        self._windows.append(_marked(window, noise.rejection([window], start.cpu_times.cores)))
        self._blocks.append(Block(
            process=self._job.process, window=name, requests=event.requests, prompt_tokens=event.prompt_tokens
        ))  # fmt: skip

    def span(self, event: messages.SpanDone) -> bool:
        """Keep a load that was served in one window; return whether it was undisturbed."""
        start, end = self._edges
        self._note_edges()
        if event.measured:
            self._note_own_cost(start, end, event.cpu_ns)
        idle = self._job.shape == "idle"
        name = f"{self._job.process}.s{len(self._spans)}/{'idle' if idle else 'serve'}"
        model, passes, positions = self._job.prepared.model, event.forward_passes, event.positions
        weights, kv = model.streamed_bytes_per_token, model.kv_bytes_per_position
        known = weights is not None and kv is not None and passes is not None and positions is not None
        streamed = (passes or 0) * (weights or 0) + (positions or 0) * (kv or 0) if known else None
        phase: WindowPhase = "idle" if idle else "serve"
        window = self._window(name, phase, start, end, event.start_ns, event.end_ns, event.cpu_ns, streamed)
        reason = noise.rejection([window], start.cpu_times.cores)
        self._windows.append(_marked(window, reason))
        self._samples += [self._served(s, name, measured=event.measured) for s in event.requests]
        self._spans.append(Span(
            process=self._job.process, window=name, phase="measured" if event.measured else "warmup",
            planned_s=event.planned_s,
            planned_s_missing=UNSET if event.planned_s is not None else "the load ends with its last request",
            rate_per_s=event.rate_per_s,
            rate_per_s_missing=UNSET if event.rate_per_s is not None else "no rate is offered",
            offered=event.offered, finished=len(event.requests), saturated=event.saturated, verdict=event.verdict,
            longest_wait_s=event.longest_wait_ns / 1e9,
        ))  # fmt: skip
        return reason is None

    def _served(self, request: Served, span: str, *, measured: bool) -> Sample:
        times = tuple(self._seconds(t) for t in request.token_ns)
        return Sample(
            process=self._job.process,
            window=f"{self._job.process}.{request.index}",
            index=request.index,
            phase="measured" if measured else "warmup",
            prompt_text_sha256=request.prompt_text_sha256,
            prompt_ids_sha256=request.prompt_ids_sha256,
            prompt_tokens=request.prompt_tokens,
            output_tokens=request.output_tokens,
            finish_reason=request.finish_reason,  # type: ignore[arg-type]  # the engine contract's literal
            scheduled_s=self._seconds(request.due_ns),
            start_s=self._seconds(request.start_ns),
            first_token_s=times[0],
            **token_fields(times, request.untimed),
            end_s=times[-1],
            span=span,
        )

    def _note_own_cost(self, start: _Edge, end: _Edge, worker_cpu_ns: int) -> None:
        """Count what measuring cost: the parent, its meters, and a worker that is only the client of a server."""
        client_ns = 0 if self._place is None else worker_cpu_ns
        self._own_cpu_ns += end.own_cpu_ns - start.own_cpu_ns + client_ns
        self._meter_cpu_s += end.meter_cpu_s - start.meter_cpu_s

    def _note_edges(self) -> None:
        """Keep what was refused at the edges, and how busy the machine was."""
        self._busy += [(self._seconds(edge.at_ns), edge.cpu_times.busy_s) for edge in self._edges]
        for refusal in (r for edge in self._edges for r in edge.refusals):
            self._refusals.setdefault(f"{refusal.meter} {refusal.domain or refusal.reason}", refusal)

    def finish(self, event: messages.Finished, begin_ns: int) -> ProcessRun:
        cold = min(self._samples, key=lambda s: s.start_s, default=None)
        read = self._loaded.read_bytes
        record = ProcessRecord(
            process=self._job.process,
            start_s=self._seconds(begin_ns),
            **start_fields(self._loaded, cold, served=self._place is not None),
            load_read_bytes=read if isinstance(read, int) else None,
            load_read_bytes_missing=UNSET if isinstance(read, int) else read,
            warmup_requests=sum(s.phase == "warmup" for s in self._samples),
            steady=event.steady,
            shared_prefix_tokens=event.shared_prefix_tokens,
            server=UNSET if event.server is None else event.server,
            unwatched=dict(self._watch.missing) or UNSET,
        )
        return ProcessRun(
            record=record,
            samples=tuple(self._samples),
            windows=tuple(self._windows),
            blocks=tuple(self._blocks),
            spans=tuple(self._spans),
            memory=(self._loaded.memory, *event.memory),
            engine_version=self._loaded.engine_version,
            effective_options=self._loaded.effective_options,
            libraries=self._loaded.libraries,
            harness_cpu_s=self._own_cpu_ns / 1e9,
            meter_cpu_s=self._meter_cpu_s,
            busy=tuple(self._busy),
            refusals=tuple(self._refusals.values()),
        )

    def _seconds(self, at_ns: int) -> float:
        return max(0, at_ns - self._epoch_ns) / 1e9

    def _sample(self, event: messages.Request, stem: str) -> Sample:
        seen = event.observed
        return Sample(
            process=self._job.process,
            window=stem,
            index=event.index,
            phase="measured" if event.measured else "warmup",
            prompt_text_sha256=event.prompt_text_sha256,
            prompt_ids_sha256=event.prompt_ids_sha256,
            prompt_tokens=event.prompt_tokens,
            output_tokens=seen.output_tokens,
            finish_reason=seen.finish_reason,  # type: ignore[arg-type]  # the engine contract's literal
            scheduled_s=None,
            scheduled_s_missing="closed loop: nothing is scheduled",
            start_s=self._seconds(seen.start_ns),
            first_token_s=self._seconds(seen.first_token_ns),
            **token_fields(tuple(self._seconds(t) for t in seen.token_ns), seen.untimed),
            end_s=self._seconds(seen.end_ns),
            question=UNSET if event.question is None else event.question,
            answer=UNSET if event.answer is None else event.answer,
        )

    def _streamed(self, event: messages.Request) -> dict[str, int | None]:
        """Bytes that each phase must read at least: the weights once a forward pass, and the KV cache.

        Prefill is counted as one pass that reads the weights once and writes its KV entries; decoding token i
        reads the weights and the KV cache of all positions before it.
        """
        model = self._job.prepared.model
        weights, kv = model.streamed_bytes_per_token, model.kv_bytes_per_position
        if weights is None or kv is None:
            return {"prefill": None, "decode": None}
        passes = event.observed.output_tokens - 1
        positions = passes * event.prompt_tokens + passes * (passes + 1) // 2
        return {
            "prefill": weights + kv * event.prompt_tokens,
            "decode": passes * weights + kv * positions,
        }

    def _window(
        self,
        window_id: str,
        phase: WindowPhase,
        before: _Edge,
        after: _Edge,
        begin_ns: int,
        stop_ns: int,
        cpu_ns: int,
        streamed: int | None,
    ) -> Window:
        spent = cpu_fields(
            server=self._place,
            server_ns=spent_ns(before.server_cpu_ns, after.server_cpu_ns),
            worker_ns=cpu_ns,
            parent_ns=after.own_cpu_ns - before.own_cpu_ns,
            busy_s=after.cpu_times.busy_s - before.cpu_times.busy_s,
        )
        return Window(
            id=window_id,
            process=self._job.process,
            phase=phase,
            start_s=self._seconds(begin_ns),
            end_s=self._seconds(stop_ns),
            steal_s=max(0.0, after.cpu_times.steal_s - before.cpu_times.steal_s),
            bytes_streamed=streamed,
            bytes_streamed_missing=UNSET if streamed is not None else "the engine does not say what it streams",
            readings=readings_between(before.counts, after.counts, begin_ns, stop_ns),
            **spent,
            **noise.changes(before.look, after.look),
        )


def _marked(window: Window, reason: str | None) -> Window:
    return msgspec.structs.replace(window, rejected=reason)
