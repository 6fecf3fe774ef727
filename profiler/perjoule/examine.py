"""What `perjoule doctor` finds, as records: sensors and refusals, power at rest, peaks, noise, what measuring costs."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import replace

from perjoule import __version__, host, registry, roofline
from perjoule.errors import PerjouleError
from perjoule.meters import open_meters
from perjoule.meters.alive import characterise
from perjoule.meters.basis import choose
from perjoule.meters.calibration import load_calibration
from perjoule.meters.counters import CounterSet, tolerance_of
from perjoule.meters.explain import explain
from perjoule.meters.idle import WINDOW_S, IdleReading, measure_idle
from perjoule.meters.model import HostModel, coefficients, host_model
from perjoule.noise import Noise, listen
from perjoule.noise_floor import NoiseFloor, measure_noise_floor
from perjoule.own_cost import HarnessCost, ReadCost, harness_cost, null_read_time, read_time
from perjoule.protocols import BackendInfo
from perjoule.records import (
    UNSET,
    Calibration,
    Energy,
    HostFacts,
    Label,
    MeterFact,
    MeterRefusal,
    Peaks,
    Reason,
    Record,
    RunSettings,
    ToolFacts,
    Window,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perjoule.meters import MeterSet
    from perjoule.protocols import Clock

# History of the record: 1 first release.
SCHEMA_VERSION = 1
IDLE_PATIENCE_S = 120.0  # a plug's window; a management controller's is left to the run
QUIET_WAITING_SHARE = 0.05  # of the last minute in which some task waited for a CPU: more is a busy machine
_QUICK = "left out by --quick"
_RAPL = frozenset({"rapl-perf", "rapl-powercap"})
_GUEST_FIX = "a virtual machine is not shown its host's RAPL: no driver helps; run on bare metal, or give a wall meter"
_TIMED = ("noise", "waiting_verdict", "harness", "peaks", "noise_floor")
_NS = 1_000_000_000


class Sensor(Record, frozen=True, kw_only=True):
    """A domain that can be read. ``resolution_j`` is one count of a counter, ``resolution_w`` one step of a gauge."""

    fact: MeterFact
    resolution_j: float | None
    resolution_j_missing: Reason = UNSET
    resolution_w: float | None
    resolution_w_missing: Reason = UNSET
    tolerance: float
    not_in_total: str | None  # null: it is part of the total


class Answer(Record, frozen=True, kw_only=True):
    """Whether this machine's joules can be measured, and how a run would have them (label, grade, scope)."""

    measured: Literal["yes", "in part", "no"]
    why_not: str | None  # null: yes
    label: Label
    grade: str | None
    grade_missing: Reason = UNSET
    scope: str | None
    scope_missing: Reason = UNSET
    to_allow: tuple[str, ...]  # what would let a sensor that is there be read


class Examination(Record, frozen=True, kw_only=True):
    schema: Literal["perjoule.doctor"] = "perjoule.doctor"
    schema_version: int = SCHEMA_VERSION
    tool: ToolFacts
    host: HostFacts
    threads_default: int
    meters_named: tuple[str, ...]
    answer: Answer
    sensors: tuple[Sensor, ...]
    refused: tuple[MeterRefusal, ...]
    idle_power: dict[str, Energy] | None
    idle_power_missing: Reason = UNSET
    calibration: Calibration | None
    calibration_missing: Reason = UNSET
    model_power: Energy | None  # all default threads busy
    model_power_missing: Reason = UNSET
    model_explained: tuple[str, ...]
    coefficients_source: str
    peaks: Peaks | None
    peaks_missing: Reason = UNSET
    noise: Noise | None
    noise_missing: Reason = UNSET
    waiting_verdict: Literal["quiet", "busy"] | None  # of the last minute
    waiting_verdict_missing: Reason = UNSET
    noise_floor: NoiseFloor | None
    noise_floor_missing: Reason = UNSET
    harness: HarnessCost | None
    harness_missing: Reason = UNSET
    reading: ReadCost | None
    reading_missing: Reason = UNSET
    backends: tuple[BackendInfo, ...]


def examine(
    names: Sequence[str] | None, clock: Clock, *, quick: bool = False, tell: Callable[[str], None] = lambda _text: None
) -> Examination:
    """Return what this host can measure with the named meters, or with those of a run.

    About twenty seconds, more where a sensor needs a longer window for idle power; ``quick`` leaves out all that takes
    time. ``tell`` hears what is going on. Raises ``UsageError`` for a meter that is not known.
    """
    facts, threads = host.read_host({}), host.default_threads()
    tell("looking for sensors")
    with open_meters(names) as meters:
        if not quick:
            if any(fact.kind == "counter" for fact in meters.facts):
                tell("putting load on one core to see the counters move")
            characterise(meters, clock)
        meters.limit_windows(named=names is not None)
        idle, reading = _rest(meters, clock, tell, quick=quick)
        found, refused, logged = meters.noted_facts(), _possible(meters.refusals, facts), _logged(meters)
    model, stored = host_model(facts, 0, None), _calibration(facts)
    if quick:
        timed = {field: value for name in _TIMED for field, value in _noted(name, _QUICK).items()}
    else:
        timed = _timed(facts, threads, clock, tell)
    return Examination(
        tool=ToolFacts(name="perjoule", version=__version__), host=facts, threads_default=threads,
        meters_named=tuple(names or ()), answer=_answer(found, refused, facts, stored),
        sensors=_sensors(found, refused, logged), refused=tuple(refused),
        idle_power=idle.power, idle_power_missing=idle.reason,
        **_noted("calibration", stored), **_noted("model_power", _model_power(model, threads)),
        model_explained=tuple(explain(facts, model, threads)),
        coefficients_source=coefficients().spec_power, **timed, **_noted("reading", reading), backends=_backends(),
    )  # fmt: skip


def _timed(machine: HostFacts, threads: int, clock: Clock, tell: Callable[[str], None]) -> dict[str, Any]:
    """Return what takes time, the quiet second first: nothing of perjoule's own is heard in it."""
    tell("listening for other processes")
    heard = listen(clock)
    tell("running the null engine for two seconds")
    harness = harness_cost(clock)
    peaks = roofline.measure(machine, threads, refresh=True, tell=tell)
    floor = measure_noise_floor(threads, tell)
    fields = {"noise": heard, "harness": harness, "peaks": peaks, "noise_floor": floor}
    noted = {key: value for name, found in fields.items() for key, value in _noted(name, found).items()}
    return noted | _waiting_verdict(heard)


def _waiting_verdict(heard: Noise | str) -> dict[str, Any]:
    share = None if isinstance(heard, str) else heard.waiting_minute_share
    if share is None:
        why = heard if isinstance(heard, str) else heard.waiting_minute_share_missing
        return {"waiting_verdict": None, "waiting_verdict_missing": why}
    return {"waiting_verdict": "quiet" if share <= QUIET_WAITING_SHARE else "busy"}


def _possible(refusals: Sequence[MeterRefusal], machine: HostFacts) -> list[MeterRefusal]:
    """Return the refusals; on a guest without RAPL the fix is none that only its host could make."""
    guest = machine.virtualization is not None
    return [
        replace(r, fix=_GUEST_FIX) if guest and r.meter in _RAPL and r.domain is None and "modprobe" in r.fix else r
        for r in refusals
    ]


def _noted(name: str, found: Record | float | str) -> dict[str, Any]:
    """Return a field and its reason: what was found, or why nothing was."""
    return {name: None, f"{name}_missing": found} if isinstance(found, str) else {name: found}


def _calibration(machine: HostFacts) -> Calibration | str:
    try:
        return load_calibration(machine) or "`perjoule calibrate` has not been run on this machine"
    except PerjouleError as error:
        return f"{error.message}; {error.hint}"  # a run refuses it; here it is one finding among others


def _answer(
    found: Sequence[MeterFact], refused: Sequence[MeterRefusal], machine: HostFacts, stored: Calibration | str
) -> Answer:
    read = {fact.domain for fact in found}
    to_allow = tuple(dict.fromkeys(r.fix for r in refused if r.domain is not None and r.domain not in read))
    calibration = None if isinstance(stored, str) else stored
    basis = choose(found, refused, (), machine, 0, RunSettings(seed=0, calibration=calibration))
    nothing = basis if isinstance(basis, str) else UNSET
    why_not, counters = None, CounterSet(found, refused)
    if isinstance(basis, str) or basis.label != "measured":
        why_not = _nothing_read(machine, to_allow)
        if counters.counted:
            why_not = counters.incomplete() or "what can be read is not the whole machine"
    return Answer(
        measured="yes" if why_not is None else "in part" if counters.counted else "no", why_not=why_not,
        label="none" if isinstance(basis, str) else basis.label, to_allow=to_allow,
        grade=None if isinstance(basis, str) else basis.grade, grade_missing=nothing,
        scope=None if isinstance(basis, str) else basis.scope, scope_missing=nothing,
    )  # fmt: skip


def _nothing_read(machine: HostFacts, to_allow: Sequence[str]) -> str:
    if to_allow:
        return "it has sensors, and none of them can be read"
    return "no sensor: a virtual machine is not shown its host's" if machine.virtualization else "no sensor was found"


def _logged(meters: MeterSet) -> frozenset[str]:
    """Return the domains whose readings come from a log after a run; while it runs they give nothing."""
    silent = {fact.domain for fact in meters.facts} if meters.has_logs else set()
    return frozenset(silent - {reading.domain for reading in meters.read()})


def _sensors(facts: Sequence[MeterFact], refused: Sequence[MeterRefusal], logged: frozenset[str]) -> tuple[Sensor, ...]:
    left_out = CounterSet(facts, refused).left_out
    return tuple(_sensor(fact, left_out.get(fact.domain), log=fact.domain in logged) for fact in facts)


def _sensor(fact: MeterFact, not_in_total: str | None, *, log: bool) -> Sensor:
    unit_j = float(Fraction(fact.unit_j or "0"))
    gauge = fact.kind == "gauge"  # its counts are steps of the gauge x ns
    joules: float | str = "a gauge shows watts" if gauge else unit_j
    watts: float | str = "a counter counts joules" if not gauge else "as fine as its log" if log else unit_j * _NS
    return Sensor(
        fact=fact, tolerance=tolerance_of(fact), not_in_total=not_in_total,
        **_noted("resolution_j", joules), **_noted("resolution_w", watts),
    )  # fmt: skip


def _rest(
    meters: MeterSet, clock: Clock, tell: Callable[[str], None], *, quick: bool
) -> tuple[IdleReading, ReadCost | str]:
    """Return power at rest, and what reading the meters costs, or why there is neither."""
    counters = CounterSet(meters.facts, meters.refusals)
    if not meters.facts or quick:
        why = _QUICK if quick else "no sensor"
        return IdleReading(power=None, reason=why), why
    read_s, reads = read_time(meters.read, clock)
    watching: float | str = "idle power was not read"
    needs_s = max(WINDOW_S, counters.min_window_s)
    if meters.has_logs:
        idle = IdleReading(power=None, reason="a log is joined after the run: it does not show power now")
    elif needs_s > IDLE_PATIENCE_S:
        idle = IdleReading(power=None, reason=f"it takes a window of {needs_s:g} s; a run waits that long")
    else:
        tell(f"reading idle power for {needs_s:g} s")
        cpu_ns, start_ns = clock.cpu_ns(), clock.now_ns()
        idle = measure_idle(meters, clock)
        watching = (clock.cpu_ns() - cpu_ns) / max(1, clock.now_ns() - start_ns)
        idle = idle if idle.power is not None else _why_not(idle, meters)
    cost = ReadCost(
        reads=reads, domains=len(meters.facts), read_s=read_s, null_read_s=null_read_time(clock),
        **_noted("watching_share", watching),
    )  # fmt: skip
    return idle, cost


def _why_not(idle: IdleReading, meters: MeterSet) -> IdleReading:
    """Add what a sensor says of itself now to the reason why it gave no idle power."""
    said = [r.reason for r in meters.read() if isinstance(r, MeterRefusal)]
    return IdleReading(power=None, reason="; ".join((str(idle.reason), *said[:1])))


def _model_power(model: HostModel | str, threads: int) -> Energy | str:
    """Return the watts of a host without a sensor while all default threads are busy and nothing is streamed."""
    if isinstance(model, str):
        return model
    window = Window(
        id="full", process=0, phase="load", start_s=0.0, end_s=1.0, cpu_s=float(threads), steal_s=0.0,
        foreign_cpu_s=0.0, bytes_streamed=0,
    )  # fmt: skip
    parts = model.parts([window])
    if isinstance(parts, str):
        return parts
    cpu_w = parts[0].joules  # of one second; the other part is memory
    return Energy(
        value=cpu_w.value, low=cpu_w.low, high=cpu_w.high, unit="W", n=1, label=model.label, grade=model.grade,
        statistic=f"{threads} threads busy, nothing streamed", interval="range of the model's coefficients",
        scope=model.scope.replace("CPU + DRAM", "CPU"), convention=model.convention,
        random=(cpu_w.value, cpu_w.value), systematic=(cpu_w.low, cpu_w.high),
    )  # fmt: skip


def _backends() -> tuple[BackendInfo, ...]:
    return tuple(_backend(name) for name in registry.names("perjoule.backends"))


def _backend(name: str) -> BackendInfo:
    try:
        return registry.backend(name).info()
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything; it is shown
        return BackendInfo(
            name=name, summary=f"cannot be asked: {type(error).__name__}: {error}", devices=(), formats=(), quants=(),
            available=False, install="report it to its authors",
        )  # fmt: skip
