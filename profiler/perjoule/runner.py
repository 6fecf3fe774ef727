"""The parent: prepares models, runs fresh worker processes in a seeded random order, saves results.

It sleeps in poll(2) while a worker measures, and wakes at phase edges only, to read counters. What is finished is
in the journal; a run that ended early is taken up again from there.
"""

from __future__ import annotations

import shlex
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from perjoule import __version__, assemble, host, journal, messages, resumption, store
from perjoule.asking import questions_of
from perjoule.clock import MonotonicClock
from perjoule.contest import Contest
from perjoule.errors import EngineError, HostError, InterruptedRunError, PerjouleError
from perjoule.joined import join_logs
from perjoule.judging import quality_of
from perjoule.lock import machine_lock
from perjoule.measure import measure_process
from perjoule.meters import MeterSet, open_meters
from perjoule.meters.alive import characterise
from perjoule.meters.calibration import load_calibration
from perjoule.meters.idle import NOT_REACHED, WHEN, IdleReading, idle_power, measure_idle
from perjoule.noise import Lookout
from perjoule.plan import Configuration, RunPlan, labels
from perjoule.preparation import prepare, refuse_unfit
from perjoule.progress import Listener, Progress, place_of, turns
from perjoule.records import RunResult, RunSettings
from perjoule.roofline import peaks_for
from perjoule.scenario import facts as scenario_facts
from perjoule.tuning import tuned, tuning_bytes
from perjoule.whereabouts import server_facts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.journal import Journal, Story
    from perjoule.measure import ProcessRun
    from perjoule.protocols import Clock, Prepared
    from perjoule.records import Peaks, Quality


def run(plan: RunPlan, listener: Listener, clock: Clock | None = None, *, wait: bool = True) -> list[Path]:
    """Measure every configuration of the plan; return the paths of the results.

    Holds the machine's lock all the while, for preparing a model disturbs others too; without ``wait`` a machine that
    is held is refused. Raises ``EngineError`` (after saving what was finished) if a measured process failed,
    ``InputError`` and ``UsageError`` for what cannot be run, ``InterruptedRunError`` on Ctrl-C, after saving.
    """
    _say_what_is_unfinished(plan.out_dir, listener)
    clock = clock or MonotonicClock()
    with machine_lock(plan.reproduce or "perjoule run", wait=wait, tell=listener.note, clock=clock):
        runner = _Runner(plan, listener, clock)
        try:
            return runner.run()
        finally:
            runner.close()


def resume(folder: Path, listener: Listener, clock: Clock | None = None, *, wait: bool = True) -> list[Path]:
    """Take up the run whose journal is in ``folder``; nothing that is finished is measured again.

    Raises as ``run`` does, and ``InputError`` or ``HostError`` where the journal, the model, the engine, the sensors or
    the machine are not what the run was begun with.
    """
    clock = clock or MonotonicClock()
    kept, story = journal.Journal.open(folder, listener.note)
    try:
        plan = replace(story.begun.plan, out_dir=str(journal.places(folder)[0]))
        for name in story.damaged:
            listener.note(f"{folder / name} is damaged: what it held is measured again")
        with machine_lock(plan.reproduce, wait=wait, tell=listener.note, clock=clock):
            return _Runner(plan, listener, clock, kept, story).run()
    finally:
        kept.close()


class _Runner:
    def __init__(
        self,
        plan: RunPlan,
        listener: Listener,
        clock: Clock,
        kept: Journal | None = None,
        story: Story | None = None,
    ) -> None:
        self._plan = plan
        self._listener = listener
        self._clock = clock
        self._journal, self._story = kept or journal.Journal(None, None, listener.note), story
        self._paths: list[Path] = []
        self._at_rest: dict[str, IdleReading] = {}
        self._busy: list[tuple[float, float]] = []  # seconds of the run, CPU seconds of the whole machine so far
        self._resumed_at_s: tuple[float, ...] = ()
        self._lookout = Lookout(clock, listener.note)
        self._files: dict[int, str] = {}  # names of results by configuration
        self.contest = None if plan.race is None else Contest(plan.race, plan.seed)

    def run(self) -> list[Path]:
        self._host = host.read_host({})
        if self._story is not None:
            resumption.refuse_another_machine(self._story, self._host)
        self._calibration = load_calibration(self._host)
        with open_meters(list(self._plan.meters) if self._plan.meters is not None else None) as meters:
            meters.demand(self._plan.meters or ())
            for note in self._plan.notes:
                self._listener.note(note)
            states = self._prepare_all()
            self._quality = [self._quality_of(s) for s in states]
            self._peaks = [self._peaks_of(s) for s in states]
            characterise(meters, self._clock, self._plan.tdp_w)
            meters.demand(self._plan.meters or ())
            meters.limit_windows(named=self._plan.meters is not None)
            if self._story is None:
                self._begin(states, meters)
            else:
                self._take_up(self._story, states, meters)
            try:
                self._measure(states, meters)
            except KeyboardInterrupt:
                hint = self._end(states, meters)
                saved = ", ".join(str(p) for p in self._paths) or "nothing was finished"
                raise InterruptedRunError(f"interrupted; saved: {saved}", hint=hint) from None
            except Exception:
                self._end(states, meters)  # what was finished is kept, whatever ended the run
                raise
            self._end(states, meters)
        errors = [e for s in states for e in (s.failed, s.misplaced) if e is not None]
        if errors:
            raise errors[0]
        return self._paths

    def close(self) -> None:
        """Let go of the journal, whatever ended the run: another process may then take it up."""
        self._journal.close()

    def _prepare_all(self) -> list[Progress]:
        """Prepare each model once for equal options, and hold it against every configuration that wants it.

        Points of a sweep that the model or this machine cannot hold are left out, and said.
        """
        configurations, racing = self._plan.configurations, self._plan.race is not None
        states, unfit = list[Progress](), list[PerjouleError]()
        for configuration, label in zip(configurations, labels(configurations), strict=True):
            alike = (s.prepared for s in states if s.configuration.loads_as(configuration))
            prepared = next(alike, None) or self._prepare(configuration, label)
            try:
                refuse_unfit(configuration, prepared)
            except PerjouleError as error:
                if configuration.scenario.sweep is None:
                    raise
                self._listener.note(f"{label} is left out: {error.message}")
                unfit.append(error)
                continue
            if self._story is not None:
                before = self._story.begun.prepared[len(states)]
                resumption.refuse_another_model(before, prepared, configuration.model_ref)
            states.append(Progress(len(states), configuration, label, prepared, racing=racing))
        if not states:
            raise unfit[0]
        self._plan = replace(self._plan, configurations=tuple(s.configuration for s in states))
        return states

    def _prepare(self, configuration: Configuration, label: str) -> Prepared:
        self._listener.configuration(label)
        return prepare(
            configuration, self._plan.stall_s, lambda text, share: self._listener.phase(label, text, share, None)
        )

    def _quality_of(self, state: Progress) -> Quality | str:
        """Return how good the predictions are, or why that is not known; equal configurations find it kept."""
        return quality_of(
            state.configuration, state.prepared, self._plan.quality, self._host.machine_id, self._plan.stall_s,
            lambda text, share: self._listener.phase(state.label, text, share, None),
        )  # fmt: skip

    def _peaks_of(self, state: Progress) -> Peaks | str:
        """Return what memory and processor can do at most; measured once a machine and number of threads."""
        options = state.configuration.options
        model = state.prepared.model
        return peaks_for(model, options.device, self._host, options.threads, tell=self._listener.note)

    def _begin(self, states: Sequence[Progress], meters: MeterSet) -> None:
        self._epoch_ns, self._created = self._clock.now_ns(), self._clock.utc_now()
        begun = journal.Begun(
            tool_version=__version__,
            machine_id=self._host.machine_id,
            created=self._created,
            epoch_ns=self._epoch_ns,
            boot=resumption.boot_id(),
            working_folder=str(Path.cwd()),
            plan=self._plan,
            prepared=tuple(s.prepared for s in states),
            meters=tuple(meters.facts),
        )
        self._journal = journal.Journal.create(self._plan.out_dir, begun, self._listener.note)

    def _take_up(self, story: Story, states: Sequence[Progress], meters: MeterSet) -> None:
        """Go on where the journal ends. Power after the last process counts only if nothing is measured after it."""
        resumption.refuse_other_sensors(story.begun.meters, meters.facts)
        zero = resumption.zero_again(story, self._clock, resumption.boot_id())
        if zero.note is not None:
            self._listener.note(zero.note)
        self._epoch_ns, self._created = zero.epoch_ns, story.begun.created
        self._resumed_at_s = (*story.resumed_at_s, zero.at_s)
        for state in states:
            for measured in story.measured[state.index]:
                state.add(measured.run, measured.measuring_s)
                self._busy += measured.run.busy
        self._at_rest = dict(story.idle)
        if not all(s.done for s in states):
            self._at_rest.pop("after", None)
        self._journal.resumed(len(self._resumed_at_s), zero.at_s)

    def _measure(self, states: Sequence[Progress], meters: MeterSet) -> None:
        self._note_busy()
        self._idle("before", meters)
        seed, contest = self._plan.seed, self.contest
        order = (
            turns(states, seed)
            if contest is None
            else contest.turns(states, lambda state, rounds: self._so_far(state, rounds, meters), self._listener.note)
        )
        for state, number in order:
            self._measure_one(state, number, meters)
        self._note_busy()
        self._idle("after", meters)

    def _so_far(self, state: Progress, rounds: int, meters: MeterSet) -> RunResult:
        """Return the result of a configuration's first processes: what a race that is taken up again saw then."""
        known = [r for r in state.runs if r.record.process < rounds]
        return self._assembled(state, known, [self._at_rest.get(when, NOT_REACHED) for when in WHEN], meters)

    def _measure_one(self, state: Progress, number: int, meters: MeterSet) -> None:
        measured = len(state.runs)
        least = state.configuration.scenario.min_processes

        def tell(text: str, share: float) -> None:
            overall = min(1.0, (measured + share) / max(least, measured + 1))
            self._listener.phase(state.label, f"{place_of(measured, least)}: {text}", overall, state.left_s)

        begin_ns = self._clock.now_ns()
        try:
            run_ = measure_process(
                job=self._job(state, number, meters),
                meters=meters,
                clock=self._clock,
                epoch_ns=self._epoch_ns,
                stall_s=self._plan.stall_s,
                tell=tell,
                when_loaded=lambda: self._idle("loaded", meters),
            )
        except EngineError as error:
            state.failed, state.done = error, True
            self._listener.note(f"{state.label}: {error.message}")
            return
        if state.runs:
            resumption.refuse_another_engine(state.runs[0], run_)
        measuring_s = (self._clock.now_ns() - begin_ns) / 1e9
        run_ = replace(run_, record=self._lookout.after(run_.record, run_.windows))
        self._busy += run_.busy
        state.add(run_, measuring_s)
        self._journal.measured(state.index, journal.Measured(run=run_, measuring_s=measuring_s))

    def _job(self, state: Progress, number: int, meters: MeterSet) -> messages.MeasureJob:
        configuration, scenario = state.configuration, state.configuration.scenario
        searched = [s for run in state.runs for s in run.spans if scenario.find_rate and s.phase == "measured"]
        job = messages.measure_job(
            scenario,
            backend=configuration.backend,
            prepared=state.prepared,
            options=configuration.options,
            process=number,
            seed=self._plan.seed,
            window_s=meters.min_window_s,
            found_rate_per_s=searched[0].rate_per_s if searched else None,
            questions=questions_of(scenario, number),
        )
        return replace(job, pin=self._plan.pin, nice=self._plan.nice, server_pid=self._plan.server_pid)

    def _idle(self, when: str, meters: MeterSet) -> None:
        """Read power at rest, once a run."""
        if when not in self._at_rest:
            self._at_rest[when] = measure_idle(meters, self._clock, when, self._epoch_ns)
            self._journal.idle(when, self._at_rest[when])

    def _note_busy(self) -> None:
        self._busy.append(((self._clock.now_ns() - self._epoch_ns) / 1e9, host.read_cpu_times().busy_s))

    def _end(self, states: Sequence[Progress], meters: MeterSet) -> str:
        """Save what was measured; keep the journal if there is more to do. Return what to do next."""
        self._note_busy()
        self._save_all(states, meters)
        if self.contest is not None and self.contest.rounds:
            self._save_tuning(self.contest, states)
        if all(s.complete for s in states) or not any(s.runs for s in states):
            self._journal.remove()
            return "run the same command again"
        folder = self._journal.folder
        if folder is None:
            return "run the same command again"
        command = f"`perjoule run --resume {shlex.quote(str(folder))}`"
        self._listener.note(f"not finished: {command} measures what is missing")
        return f"{command} measures what is missing"

    def _save_all(self, states: Sequence[Progress], meters: MeterSet) -> None:
        readings = [self._at_rest.get(when, NOT_REACHED) for when in WHEN]
        for state in states:
            if state.runs and not (state.complete and self._was_saved(state)):
                self._save(state, self._assembled(state, state.runs, readings, meters), whole=state.complete)

    def _assembled(
        self, state: Progress, measured: Sequence[ProcessRun], readings: Sequence[IdleReading], meters: MeterSet
    ) -> RunResult:
        configuration = state.configuration
        at_rest = [r.window for r in readings if r.window is not None]
        runs, rest = join_logs(measured, at_rest, meters, self._created, self._busy)
        return assemble.assemble(
            assemble.RawRun(
                created=self._created,
                reproduce=self._plan.reproduce,
                settings=self._settings(configuration),
                scenario=configuration.scenario,
                model=state.prepared.model,
                backend=configuration.backend,
                options=configuration.options,
                host=replace(self._host, libraries=runs[0].libraries),
                meters=tuple(meters.noted_facts()),
                meters_refused=tuple(meters.refusals),
                idle=idle_power(*readings),
                idle_windows=tuple(rest),
                runs=tuple(runs),
                server=server_facts(state.prepared.server, self._plan.server_pid),
                quality=self._quality[state.index],
                roofline_peaks=self._peaks[state.index],
            )
        )

    def _settings(self, configuration: Configuration) -> RunSettings:
        plan = self._plan
        return RunSettings(
            seed=plan.seed,
            tdp_w=plan.tdp_w,
            # without their arguments: files, programs and addresses are this machine's
            meters=None if plan.meters is None else tuple(name.partition(":")[0] for name in plan.meters),
            calibration=self._calibration,
            pin=plan.pin,
            nice=plan.nice,
            control=configuration.control,
            resumed_at_s=self._resumed_at_s,
        )

    def _was_saved(self, state: Progress) -> bool:
        """Tell whether an earlier part of this run has written the configuration's result, and count it as ours."""
        name = self._story.saving.get(state.index) if self._story is not None else None
        path = Path(self._plan.out_dir) / (name or "")
        if name is None or not path.is_file():
            return False  # its name was noted, but it was not written any more
        with suppress(PerjouleError):  # a file of that name which is no result was never ours
            result = store.load(path)
            self._told(path, result)
            return True
        return False

    def _save(self, state: Progress, result: RunResult, *, whole: bool) -> None:
        """Write a result; where the folder has become unwritable, beside it in a temporary one, and say so."""
        if whole:
            self._journal.saving(state.index, store.file_name(result))
        try:
            path = store.save(result, self._plan.out_dir)
        except HostError as error:
            path = store.save(result, tempfile.mkdtemp(prefix="perjoule-"))
            state.misplaced = HostError(f"{error.message}; saved instead: {path}", hint=error.hint)
        self._files[state.index] = path.name
        self._told(path, result)

    def _save_tuning(self, contest: Contest, states: Sequence[Progress]) -> None:
        """Write what the race came to, beside the results it rests on."""
        scenario = self._plan.configurations[0].scenario
        found = tuned(contest, states, self._files, scenario_facts(scenario), self._created)
        path = Path(self._plan.out_dir) / f"{found.created_utc[:19].replace(':', '')}-{scenario.name}.tune.json"
        self._paths.append(store.write_whole(path, tuning_bytes(found)))

    def _told(self, path: Path, result: RunResult) -> None:
        self._paths.append(path)
        self._listener.finished(path, result)


def _say_what_is_unfinished(out_dir: str, listener: Listener) -> None:
    left = journal.unfinished(out_dir)
    if left:
        what = "an unfinished run is" if len(left) == 1 else f"{len(left)} unfinished runs are"
        newest = shlex.quote(str(left[-1]))
        listener.note(f"{what} in {left[-1].parent}: `perjoule run --resume {newest}` measures what is missing")
