"""One fresh process measured: its requests as samples, their two phases as windows with counter readings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from perjoule import host, messages
from perjoule.child import Child
from perjoule.errors import EngineError
from perjoule.meters.readings import readings_between
from perjoule.records import (
    UNSET,
    Block,
    MemoryPeak,
    MeterRefusal,
    ProcessRecord,
    Record,
    Sample,
    Window,
    WindowPhase,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perjoule.meters import MeterSet
    from perjoule.protocols import Clock

# Rejection limits of docs/method.md: shares of all visible cores' time.
MAX_FOREIGN_SHARE = 0.02
MAX_STEAL_SHARE = 0.01
_BLOCK_SLACK = 2.0  # a block is over in little more than its window, unless the machine is disturbed


class Tell(Protocol):
    def __call__(self, text: str, share: float) -> None: ...


class ProcessRun(Record, frozen=True, kw_only=True):
    """Everything one worker process showed."""

    record: ProcessRecord
    samples: tuple[Sample, ...]
    windows: tuple[Window, ...]
    blocks: tuple[Block, ...] = ()
    memory: tuple[MemoryPeak, ...]
    engine_version: str
    effective_options: dict[str, Any]
    libraries: dict[str, str]
    harness_cpu_s: float
    meter_cpu_s: float = 0.0
    busy: tuple[tuple[float, float], ...] = ()  # at each edge: seconds of the run, busy CPU seconds of the machine
    refusals: tuple[MeterRefusal, ...] = ()


class _Edge:
    """What the parent read at one edge: counters, the machine's CPU times, its own CPU time."""

    def __init__(self, meters: MeterSet, clock: Clock) -> None:
        readings = meters.read()
        self.counts = {r.domain: r for r in readings if not isinstance(r, MeterRefusal)}
        self.refusals = [r for r in readings if isinstance(r, MeterRefusal)]
        self.cpu_times = host.read_cpu_times()
        self.own_cpu_ns = clock.cpu_ns()
        self.at_ns, self.meter_cpu_s = clock.now_ns(), meters.cpu_s


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
    with Child(job, stall_s=stall_s) as child:
        tell("loading the model", 0.0)
        loaded = _expect(child, messages.Loaded, "loading the model")
        follow = _Follower(job, loaded, meters, clock, epoch_ns)
        total = job.max_warmup_requests + job.requests
        seen = 0
        if when_loaded is not None:
            when_loaded()
        quiet_s = 0.0
        while True:
            event = child.receive("running a request" if seen else "running its first request", quiet_s=quiet_s)
            quiet_s = _BLOCK_SLACK * job.prefill_block_s if isinstance(event, messages.BlockReady) else 0.0
            if isinstance(event, messages.Ready):
                tell("measuring" if event.measured else "warming up", min(0.95, seen / total))
                follow.ready()
                child.go()
            elif isinstance(event, messages.BlockReady):
                tell("measuring prefill alone", 0.95)
                follow.ready()
                child.go()
            elif isinstance(event, messages.PrefillBlock):
                follow.block(event)
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


def _expect(child: Child, kind: type[messages.Loaded], doing: str) -> messages.Loaded:
    event = child.receive(doing)
    if not isinstance(event, kind):
        raise EngineError(f"the worker answered {type(event).__name__} while {doing}", hint="report this as a bug")
    return event


class _Follower:
    """Turns the events of one worker into samples and windows."""

    def __init__(
        self, job: messages.MeasureJob, loaded: messages.Loaded, meters: MeterSet, clock: Clock, epoch_ns: int
    ) -> None:
        self._job, self._loaded = job, loaded
        self._meters, self._clock, self._epoch_ns = meters, clock, epoch_ns
        self._samples: list[Sample] = []
        self._windows: list[Window] = []
        self._blocks: list[Block] = []
        self._edges: list[_Edge] = []
        self._own_cpu_ns, self._meter_cpu_s = 0, 0.0
        self._busy: list[tuple[float, float]] = []
        self._refusals: dict[str, MeterRefusal] = {}

    def ready(self) -> None:
        self._edges = [_Edge(self._meters, self._clock)]

    def edge(self) -> None:
        self._edges.append(_Edge(self._meters, self._clock))

    def request(self, event: messages.Request) -> bool:
        """Keep a request as a sample and two windows; return whether it was undisturbed."""
        start, first, end = self._edges
        self._note_edges()
        seen = event.observed
        stem = f"{self._job.process}.{event.index}"
        if event.measured:
            self._own_cpu_ns += end.own_cpu_ns - start.own_cpu_ns
            self._meter_cpu_s += end.meter_cpu_s - start.meter_cpu_s
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
        reason = rejection(windows, start.cpu_times.cores)
        self._windows += [_marked(w, reason) for w in windows]
        return reason is None

    def block(self, event: messages.PrefillBlock) -> None:
        self._edges.append(_Edge(self._meters, self._clock))
        start, end = self._edges
        self._note_edges()
        name = f"{self._job.process}.block/prefill"
        model = self._job.prepared.model
        weights, kv = model.streamed_bytes_per_token, model.kv_bytes_per_position
        known = weights is not None and kv is not None
        streamed = event.requests * (weights or 0) + (kv or 0) * event.prompt_tokens if known else None
        window = self._window(name, "prefill", start, end, event.start_ns, event.end_ns, event.cpu_ns, streamed)
        self._windows.append(_marked(window, rejection([window], start.cpu_times.cores)))
        self._blocks.append(Block(
            process=self._job.process, window=name, requests=event.requests, prompt_tokens=event.prompt_tokens
        ))  # fmt: skip

    def _note_edges(self) -> None:
        """Keep what was refused at the edges, and how busy the machine was."""
        self._busy += [(self._seconds(edge.at_ns), edge.cpu_times.busy_s) for edge in self._edges]
        for refusal in (r for edge in self._edges for r in edge.refusals):
            self._refusals.setdefault(f"{refusal.meter} {refusal.domain or refusal.reason}", refusal)

    def finish(self, event: messages.Finished, begin_ns: int) -> ProcessRun:
        cold = self._samples[0]
        record = ProcessRecord(
            process=self._job.process,
            start_s=self._seconds(begin_ns),
            load_s=(self._loaded.end_ns - self._loaded.start_ns) / 1e9,
            cold_ttft_s=cold.first_token_s - cold.start_s,
            warmup_requests=sum(s.phase == "warmup" for s in self._samples),
            steady=event.steady,
            shared_prefix_tokens=event.shared_prefix_tokens,
        )
        return ProcessRun(
            record=record,
            samples=tuple(self._samples),
            windows=tuple(self._windows),
            blocks=tuple(self._blocks),
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
            output_tokens=len(seen.token_ns),
            finish_reason=seen.finish_reason,  # type: ignore[arg-type]  # the engine contract's literal
            scheduled_s=None,
            scheduled_s_missing="closed loop: nothing is scheduled",
            start_s=self._seconds(seen.start_ns),
            first_token_s=self._seconds(seen.first_token_ns),
            token_times_s=tuple(self._seconds(t) for t in seen.token_ns),
            end_s=self._seconds(seen.end_ns),
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
        passes = len(event.observed.token_ns) - 1
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
        busy_s = after.cpu_times.busy_s - before.cpu_times.busy_s
        own_s = (cpu_ns + after.own_cpu_ns - before.own_cpu_ns) / 1e9
        return Window(
            id=window_id,
            process=self._job.process,
            phase=phase,
            start_s=self._seconds(begin_ns),
            end_s=self._seconds(stop_ns),
            cpu_s=max(0, cpu_ns) / 1e9,
            steal_s=max(0.0, after.cpu_times.steal_s - before.cpu_times.steal_s),
            foreign_cpu_s=max(0.0, busy_s - own_s),
            bytes_streamed=streamed,
            bytes_streamed_missing=UNSET if streamed is not None else "the engine does not say what it streams",
            readings=readings_between(before.counts, after.counts, begin_ns, stop_ns),
        )


def rejection(windows: Sequence[Window], cores: int) -> str | None:
    """Return by what a request was disturbed; judged as a whole, since one window is a few ticks of the kernel's clock.

    ``cores`` are those of the whole machine (``host.cpu.threads`` of a result).
    """
    capacity_s = cores * sum(w.duration_s for w in windows)
    foreign_s = sum(w.foreign_cpu_s or 0.0 for w in windows)
    steal_s = sum(w.steal_s or 0.0 for w in windows)
    if capacity_s and foreign_s > MAX_FOREIGN_SHARE * capacity_s:
        return f"other processes used {foreign_s / capacity_s:.1%} of all cores (limit {MAX_FOREIGN_SHARE:.0%})"
    if capacity_s and steal_s > MAX_STEAL_SHARE * capacity_s:
        return f"the hypervisor took {steal_s / capacity_s:.1%} of all cores (limit {MAX_STEAL_SHARE:.0%})"
    return None


def _marked(window: Window, reason: str | None) -> Window:
    return msgspec.structs.replace(window, rejected=reason)
