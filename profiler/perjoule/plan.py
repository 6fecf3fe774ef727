"""What a run measures: the configurations of a matrix, how they are told apart, and what none of them may ask for."""

from __future__ import annotations

import json
from collections import Counter
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from perjoule.errors import HostError, UsageError
from perjoule.messages import QualityWanted
from perjoule.protocols import EngineOptions
from perjoule.race import Race
from perjoule.records import Record
from perjoule.records.facts import Control
from perjoule.scenario import Scenario, sweep_points

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from perjoule.protocols import BackendInfo

_CONTEXT_STEP = 64
_PAIR: tuple[Control, Control] = ("A", "A'")


class Configuration(Record, frozen=True, kw_only=True):
    """One cell of the matrix: it gets processes of its own and one result file. ``control``: half of an A-A pair."""

    backend: str
    model_ref: str
    options: EngineOptions
    scenario: Scenario
    control: Control | None = None

    def loads_as(self, other: Configuration) -> bool:
        """Tell whether both load the same model with the same options."""
        mine, theirs = ((c.backend, c.model_ref, c.options) for c in (self, other))
        return mine == theirs


class RunPlan(Record, frozen=True, kw_only=True):
    """Everything a run depends on, so that it can be taken up again: ``pin`` and ``nice`` place the worker."""

    configurations: tuple[Configuration, ...]
    meters: tuple[str, ...] | None = None
    seed: int = 0
    out_dir: str
    tdp_w: float | None = None
    stall_s: float = 300.0
    reproduce: str = ""
    pin: tuple[int, ...] | None = None
    nice: int | None = None
    server_pid: int | None = None  # of the server that is asked, where it is known
    notes: tuple[str, ...] = ()  # what the user should know before it begins
    quality: QualityWanted = "none"  # what to find out of each configuration beside its cost
    race: Race | None = None  # who goes on is decided after each round, in place of each scenario's own rule


class Matrix(Record, frozen=True, kw_only=True):
    """What is combined with what. ``engines`` are pairs of a backend and a model that it can load."""

    scenarios: tuple[Scenario, ...]
    engines: tuple[tuple[str, str], ...]
    cpus: int | None = None  # that may be used: more threads are left out of a sweep
    threads: tuple[int, ...] | None  # None: ``default_threads``, unless a scenario sweeps them
    default_threads: int
    quants: tuple[str, ...] = ("faithful",)
    device: str = "cpu"
    devices: dict[str, str] = msgspec.field(default_factory=dict)  # of backends that run on another
    extra: dict[str, Any] = msgspec.field(default_factory=dict)
    control: bool = False


def context_for(scenario: Scenario) -> int:
    """Return the context that holds one request of the scenario, in tokens, the same for every engine."""
    need = scenario.prompt_tokens + scenario.new_tokens
    return -(-need // _CONTEXT_STEP) * _CONTEXT_STEP


def combine(matrix: Matrix) -> tuple[Configuration, ...]:
    """Return every configuration of the matrix, scenarios' sweeps included; the control doubles each.

    Raises ``UsageError`` for threads that are given twice over, and for a configuration that comes twice.
    """
    found = [
        Configuration(backend=backend, model_ref=model, options=options, scenario=scenario, control=control)
        for wanted in matrix.scenarios
        for backend, model in matrix.engines
        for quant in matrix.quants
        for threads, scenario in _points(wanted, matrix)
        for options in [_options(matrix, scenario, threads, quant, backend)]
        for control in (_PAIR if matrix.control else (None,))
    ]
    for index, configuration in enumerate(found):
        if configuration in found[:index]:
            raise UsageError(
                f"the same configuration twice: {labels([configuration])[0]}",
                hint="give every value once; --control measures each configuration twice",
            )
    return tuple(found)


def left_out(matrix: Matrix) -> tuple[str, ...]:
    """Say which points of a sweep over threads this machine has no processors for."""
    return tuple(
        f"{scenario.name}: {', '.join(f'{v:g}' for v in more)} threads are left out, {matrix.cpus} CPUs may be used"
        for scenario in matrix.scenarios
        if scenario.sweep is not None and scenario.sweep.key == "threads" and matrix.cpus is not None
        if (more := [v for v in scenario.sweep.values if v > matrix.cpus])
    )


def _points(scenario: Scenario, matrix: Matrix) -> Iterator[tuple[int, Scenario]]:
    sweeps_threads = scenario.sweep is not None and scenario.sweep.key == "threads"
    if sweeps_threads and matrix.threads is not None:
        raise UsageError(f"--threads: scenario {scenario.name} sweeps threads itself", hint="leave --threads out")
    for (value, point), threads in product(sweep_points(scenario), matrix.threads or (matrix.default_threads,)):
        swept = int(value) if sweeps_threads and value is not None else None
        if swept is None or matrix.cpus is None or swept <= matrix.cpus:
            yield threads if swept is None else swept, point


def _options(matrix: Matrix, scenario: Scenario, threads: int, quant: str, backend: str) -> EngineOptions:
    return EngineOptions(
        device=matrix.devices.get(backend, matrix.device),
        threads=threads,
        quant=quant,
        context_tokens=context_for(scenario),
        batch=scenario.batch,
        extra=matrix.extra,
    )


def labels(configurations: Sequence[Configuration]) -> list[str]:
    """Return a name for each: model, backend, precision, and whatever else differs between them. No two are equal."""
    aspects = [_aspects(c) for c in configurations]
    shown = ["quant"] + [k for k in aspects[0] if k != "quant" and len({a[k] for a in aspects}) > 1]
    stems = [
        f"{Path(c.model_ref).name} on {c.backend} ({', '.join(filter(None, (a[k] for k in shown)))})"
        for c, a in zip(configurations, aspects, strict=True)
    ]
    total, seen, found = Counter(stems), Counter[str](), []
    for stem in stems:
        seen[stem] += 1
        found.append(stem if total[stem] == 1 else f"{stem} #{seen[stem]}")
    return found


def _aspects(configuration: Configuration) -> dict[str, str]:
    scenario, options = configuration.scenario, configuration.options
    sweep = scenario.sweep
    swept = "" if sweep is None or sweep.key in ("threads", "batch") else sweep.key
    return {
        "quant": options.quant,
        "scenario": scenario.name,
        "threads": f"{options.threads} thread{'s' * (options.threads != 1)}",
        "batch": f"batch {options.batch}",
        "point": f"{swept} {getattr(scenario, swept):g}" if swept else "",
        "extra": ", ".join(f"{key} {json.dumps(value)}" for key, value in sorted(options.extra.items())),
        "control": configuration.control or "",
    }


def refuse_impossible(configuration: Configuration, info: BackendInfo, cpus: int) -> None:
    """Refuse what this backend, these CPUs or the time budget cannot give, before anything is loaded.

    Raises ``HostError`` for an engine that is not installed, ``UsageError`` for the rest, naming the option or key.
    """
    name, scenario, options = configuration.backend, configuration.scenario, configuration.options
    if not info.available:
        raise HostError(f"backend {name} is not installed", hint=info.install)
    if options.device not in info.devices:
        more = f"; {info.more_devices}" if info.more_devices else ""
        raise UsageError(
            f"backend {name} has no device {options.device!r}", hint=f"it has: {', '.join(info.devices)}{more}"
        )
    if options.quant not in info.quants:
        raise UsageError(f"backend {name} has no --quant {options.quant!r}", hint=f"it has: {', '.join(info.quants)}")
    if not 1 <= options.threads <= cpus:
        raise UsageError(
            f"--threads {options.threads}: this process may use 1 to {cpus}", hint=f"e.g. --threads {cpus}"
        )
    if scenario.spans and not info.queues:
        raise UsageError(
            f"backend {name} answers one caller at a time; scenario {scenario.name} is {scenario.shape}",
            hint="use a single-stream scenario, or another backend",
        )
    if options.batch > 1 and not info.batching:
        raise UsageError(
            f"backend {name} works on one request at a time; scenario {scenario.name} asks for batch {options.batch}",
            hint="--set batch=1, or another backend",
        )
    if scenario.duration_s is not None and scenario.duration_s > scenario.time_budget_s:
        raise UsageError(
            f"time_budget_s {scenario.time_budget_s:g} is smaller than one repeat of {scenario.duration_s:g} s",
            hint=f"--time-budget {scenario.min_processes * scenario.duration_s:g} holds {scenario.min_processes} "
            "repeats; or shorten duration_s",
        )
