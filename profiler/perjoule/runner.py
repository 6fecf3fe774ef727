"""The parent: prepares models, runs fresh worker processes in a seeded random order, saves results.

It sleeps in poll(2) while a worker measures, and wakes at phase edges only, to read counters.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from perjoule import assemble, host, messages, store
from perjoule.child import Child
from perjoule.clock import MonotonicClock
from perjoule.errors import EngineError, HostError, InputError, InterruptedRunError, PerjouleError, UsageError
from perjoule.joined import join_logs
from perjoule.measure import ProcessRun, measure_process
from perjoule.meters import MeterSet, open_meters
from perjoule.meters.alive import characterise
from perjoule.meters.calibration import load_calibration
from perjoule.meters.idle import NOT_REACHED, WHEN, IdleReading, idle_power, measure_idle
from perjoule.protocols import EngineOptions, Prepared
from perjoule.records import Record, RunResult, RunSettings
from perjoule.scenario import Scenario
from perjoule.stats.steering import decide

if TYPE_CHECKING:
    from perjoule.protocols import Clock

_CONTEXT_STEP = 64


class Configuration(Record, frozen=True, kw_only=True):
    backend: str
    model_ref: str
    options: EngineOptions
    scenario: Scenario

    @property
    def label(self) -> str:
        return f"{Path(self.model_ref).name} on {self.backend} ({self.options.quant})"


class RunPlan(Record, frozen=True, kw_only=True):
    configurations: tuple[Configuration, ...]
    meters: tuple[str, ...] | None = None
    seed: int = 0
    out_dir: str
    tdp_w: float | None = None
    stall_s: float = 300.0
    reproduce: str = ""


class Listener(Protocol):
    """Who wants to know how far the run is; every call returns at once."""

    def configuration(self, label: str) -> None: ...
    def phase(self, label: str, text: str, share: float | None, left_s: float | None) -> None: ...
    def finished(self, path: Path, result: RunResult) -> None: ...
    def note(self, text: str) -> None: ...


def context_for(scenario: Scenario) -> int:
    """Return the context that holds one request of the scenario, in tokens, the same for every engine."""
    need = scenario.prompt_tokens + scenario.new_tokens
    return -(-need // _CONTEXT_STEP) * _CONTEXT_STEP


class _Progress:
    """Where one configuration stands: what is measured so far, and what it has cost."""

    def __init__(self, configuration: Configuration, prepared: Prepared) -> None:
        self.configuration = configuration
        self.prepared = prepared
        self.runs: list[ProcessRun] = []
        self.measuring_s = 0.0
        self.done = False
        self.error: PerjouleError | None = None

    def decide(self) -> None:
        samples = tuple(s for run in self.runs for s in run.samples)
        windows = tuple(w for run in self.runs for w in run.windows)
        processes = tuple(run.record for run in self.runs)
        self.done = decide(samples, windows, processes, self.configuration.scenario, self.measuring_s).stop

    @property
    def left_s(self) -> float | None:
        if not self.runs:
            return None
        missing = max(1, self.configuration.scenario.min_processes - len(self.runs))
        return 0.0 if self.done else missing * self.measuring_s / len(self.runs)


def run(plan: RunPlan, listener: Listener, clock: Clock | None = None) -> list[Path]:
    """Measure every configuration of the plan; return the paths of the results.

    Raises ``EngineError`` (after saving what was finished) if a measured process failed, ``InputError``
    and ``UsageError`` for what cannot be run, ``InterruptedRunError`` on Ctrl-C, after saving.
    """
    return _Runner(plan, listener, clock or MonotonicClock()).run()


class _Runner:
    def __init__(self, plan: RunPlan, listener: Listener, clock: Clock) -> None:
        self._plan = plan
        self._listener = listener
        self._clock = clock
        self._random = random.Random(plan.seed)  # noqa: S311 - the order of runs, not a secret
        self._paths: list[Path] = []
        self._at_rest: dict[str, IdleReading] = {}
        self._busy: list[tuple[float, float]] = []  # seconds of the run, CPU seconds of the whole machine so far

    def run(self) -> list[Path]:
        self._host = host.read_host({})
        self._calibration = load_calibration(self._host)
        with open_meters(list(self._plan.meters) if self._plan.meters is not None else None) as meters:
            meters.demand(self._plan.meters or ())
            states = [self._prepare(c) for c in self._plan.configurations]
            characterise(meters, self._clock, self._plan.tdp_w)
            meters.demand(self._plan.meters or ())
            meters.limit_windows(named=self._plan.meters is not None)
            self._epoch_ns = self._clock.now_ns()
            self._created = self._clock.utc_now()
            self._note_busy()
            try:
                self._idle("before", meters)
                self._measure_all(states, meters)
                self._note_busy()
                self._idle("after", meters)
            except KeyboardInterrupt:
                self._save_all(states, meters)
                saved = ", ".join(str(p) for p in self._paths) or "nothing was finished"
                raise InterruptedRunError(f"interrupted; saved: {saved}", hint="run the same command again") from None
            except Exception:
                self._save_all(states, meters)  # what was finished is kept, whatever ended the run
                raise
            self._note_busy()
            self._save_all(states, meters)
        errors = [s.error for s in states if s.error is not None]
        if errors:
            raise errors[0]
        return self._paths

    def _settings(self) -> RunSettings:
        meters = self._plan.meters
        return RunSettings(
            seed=self._plan.seed,
            tdp_w=self._plan.tdp_w,
            # without their arguments: files, programs and addresses are this machine's
            meters=None if meters is None else tuple(name.partition(":")[0] for name in meters),
            calibration=self._calibration,
        )

    def _prepare(self, configuration: Configuration) -> _Progress:
        scenario, options = configuration.scenario, configuration.options
        need = scenario.prompt_tokens + scenario.new_tokens
        if need > options.context_tokens:
            raise UsageError(
                f"the scenario needs a context of {need} tokens; {options.context_tokens} are set",
                hint="use a shorter prompt_tokens or new_tokens, or a larger context",
            )
        self._listener.configuration(configuration.label)
        job = messages.PrepareJob(
            backend=configuration.backend, ref=configuration.model_ref, options=configuration.options
        )
        prepared = prepare(job, self._plan.stall_s, lambda t, s: self._listener.phase(configuration.label, t, s, None))
        if need > prepared.context_tokens:
            raise InputError(
                f"{configuration.model_ref} holds {prepared.context_tokens} tokens; the scenario needs {need}",
                hint="use a shorter prompt_tokens or new_tokens",
            )
        return _Progress(configuration, prepared)

    def _measure_all(self, states: list[_Progress], meters: MeterSet) -> None:
        """Run one process of each unfinished configuration a round, each round in a new random order."""
        while open_states := [s for s in states if not s.done]:
            self._random.shuffle(open_states)
            for state in open_states:
                self._measure_one(state, meters)

    def _measure_one(self, state: _Progress, meters: MeterSet) -> None:
        configuration = state.configuration
        number = len(state.runs)
        label = configuration.label
        least = configuration.scenario.min_processes

        def tell(text: str, share: float) -> None:
            overall = min(1.0, (number + share) / max(least, number + 1))
            self._listener.phase(label, f"{_turn(number, least)}: {text}", overall, state.left_s)

        def when_loaded() -> None:
            if "loaded" not in self._at_rest:
                self._idle("loaded", meters)

        begin_ns = self._clock.now_ns()
        try:
            run_ = measure_process(
                job=self._job(state, number, meters),
                meters=meters,
                clock=self._clock,
                epoch_ns=self._epoch_ns,
                stall_s=self._plan.stall_s,
                tell=tell,
                when_loaded=when_loaded,
            )
        except EngineError as error:
            state.error, state.done = error, True
            self._listener.note(f"{label}: {error.message}")
            return
        self._busy += run_.busy
        state.runs.append(run_)
        state.measuring_s += (self._clock.now_ns() - begin_ns) / 1e9
        state.decide()

    def _save(self, state: _Progress, result: RunResult) -> Path:
        """Write a result; where the folder has become unwritable, beside it in a temporary one, and say so."""
        try:
            return store.save(result, self._plan.out_dir)
        except HostError as error:
            path = store.save(result, tempfile.mkdtemp(prefix="perjoule-"))
            state.error = state.error or HostError(f"{error.message}; saved instead: {path}", hint=error.hint)
            return path

    def _idle(self, when: str, meters: MeterSet) -> None:
        self._at_rest[when] = measure_idle(meters, self._clock, when, self._epoch_ns)

    def _note_busy(self) -> None:
        self._busy.append(((self._clock.now_ns() - self._epoch_ns) / 1e9, host.read_cpu_times().busy_s))

    def _job(self, state: _Progress, number: int, meters: MeterSet) -> messages.MeasureJob:
        configuration, scenario = state.configuration, state.configuration.scenario
        return messages.MeasureJob(
            backend=configuration.backend,
            prepared=state.prepared,
            options=configuration.options,
            process=number,
            corpus=scenario.corpus,
            seed=self._plan.seed,
            prompt_tokens=scenario.prompt_tokens,
            new_tokens=scenario.new_tokens,
            requests=scenario.requests_per_process,
            max_warmup_requests=scenario.max_warmup_requests,
            min_span_s=meters.min_window_s,
            prefill_block_s=meters.min_window_s,
        )

    def _save_all(self, states: list[_Progress], meters: MeterSet) -> None:
        readings = [self._at_rest.get(when, NOT_REACHED) for when in WHEN]
        idle, at_rest = idle_power(*readings), [r.window for r in readings if r.window is not None]
        for state in states:
            if not state.runs:
                continue
            configuration = state.configuration
            runs, rest = join_logs(state.runs, at_rest, meters, self._created, self._busy)
            raw = assemble.RawRun(
                created=self._created,
                reproduce=self._plan.reproduce,
                settings=self._settings(),
                scenario=configuration.scenario,
                model=state.prepared.model,
                backend=configuration.backend,
                options=configuration.options,
                host=replace(self._host, libraries=runs[0].libraries),
                meters=tuple(meters.noted_facts()),
                meters_refused=tuple(meters.refusals),
                idle=idle,
                idle_windows=tuple(rest),
                runs=tuple(runs),
            )
            result = assemble.assemble(raw)
            path = self._save(state, result)
            self._paths.append(path)
            self._listener.finished(path, result)


def _turn(number: int, least: int) -> str:
    """Name a process by its place; beyond the least, more are added for the interval's sake."""
    if number < least:
        return f"process {number + 1} of at least {least}"
    return f"process {number + 1}, to narrow the interval"


def prepare(job: messages.PrepareJob, stall_s: float, tell: messages.Tell) -> Prepared:
    """Resolve and convert a model in a child process, so that its memory and imports end with it."""
    with Child(job, stall_s=stall_s) as child:
        while True:
            event = child.receive("preparing the model")
            if isinstance(event, messages.Progress):
                tell(event.text, event.done_share)
            elif isinstance(event, messages.PreparedReply):
                child.finish()
                return event.prepared
            else:
                raise EngineError(f"the worker answered {type(event).__name__}", hint="report this as a bug")
