"""From what was observed to a result. ``derive`` computes every number again from a result's raw parts."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import msgspec

from perjoule import __version__, registry
from perjoule.checks import run_checks
from perjoule.measure import ProcessRun
from perjoule.meters.idle import derive_idle
from perjoule.protocols import EngineOptions
from perjoule.records import (
    BackendFacts,
    Check,
    EnergyReport,
    HostFacts,
    IdlePower,
    MeterFact,
    MeterRefusal,
    ModelFacts,
    Overhead,
    Record,
    RunResult,
    RunSettings,
    ToolFacts,
    Window,
    flatten_metrics,
)
from perjoule.scenario import Scenario, facts, from_facts
from perjoule.stats.selection import select, stem, stem_of
from perjoule.stats.summary import summarize
from perjoule.store.canonical import canonical_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perjoule.meters.energy import Assessment
    from perjoule.records import Sample

_NOT_DERIVED = "not derived yet"


class RawRun(Record, frozen=True, kw_only=True):
    """Everything one configuration showed, before any number is computed from it."""

    created: datetime
    reproduce: str
    settings: RunSettings
    scenario: Scenario
    model: ModelFacts
    backend: str
    options: EngineOptions
    host: HostFacts
    meters: tuple[MeterFact, ...]
    meters_refused: tuple[MeterRefusal, ...]
    idle: IdlePower
    idle_windows: tuple[Window, ...] = ()
    runs: tuple[ProcessRun, ...]


def assemble(raw: RawRun) -> RunResult:
    """Return the complete result of one configuration, with its metrics, energy, checks and id."""
    refused = {
        (r.meter, r.domain or r.reason): r
        for r in (*(r for run in raw.runs for r in run.refusals), *raw.meters_refused)
    }
    return derive(
        RunResult(
            created_utc=raw.created.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            tool=ToolFacts(name="perjoule", version=__version__),
            reproduce=raw.reproduce,
            settings=raw.settings,
            scenario=facts(raw.scenario),
            model=raw.model,
            backend=_backend_facts(raw),
            host=raw.host,
            meters=raw.meters,
            meters_refused=tuple(refused.values()),
            idle=raw.idle,
            processes=tuple(run.record for run in raw.runs),
            samples=tuple(s for run in raw.runs for s in run.samples),
            windows=(*raw.idle_windows, *(w for run in raw.runs for w in run.windows)),
            blocks=tuple(b for run in raw.runs for b in run.blocks),
            memory=tuple(m for run in raw.runs for m in run.memory),
            metrics={},
            energy=_no_energy(),
            quality=None,
            quality_missing="the scenario measures cost, not quality",
            roofline=None,
            roofline_missing="not measured",
            overhead=Overhead(
                harness_cpu_s=sum(run.harness_cpu_s for run in raw.runs),
                harness_share=0.0,
                meter_cpu_s=sum(run.meter_cpu_s for run in raw.runs),
            ),
            publishable=False,
        )
    )


def derive(result: RunResult) -> RunResult:
    """Return the result with every derived part computed again from its raw parts.

    Raw are settings, facts, processes, samples, windows, memory and CPU times; derived are idle power, metrics, energy,
    the overhead's share, checks, ``publishable`` and ``id``. Raises ``InputError`` for a wrong scenario spec.
    """
    result = msgspec.structs.replace(
        result, idle=derive_idle(result.windows, result.meters, result.meters_refused, result.idle)
    )
    scenario = from_facts(result.scenario)
    selection = select(result.samples, result.windows, scenario)
    assessment = _assess(result, selection.samples)
    metrics = summarize(result.samples, result.windows, result.processes, result.memory, scenario, result.model)
    bare = msgspec.structs.replace(
        result,
        id="",
        metrics=flatten_metrics({**metrics, **assessment.metrics}),
        energy=assessment.report,
        overhead=_overhead(result),
        checks=(),
        publishable=False,
    )
    checks = _once([*run_checks(bare), *assessment.checks])
    checked = msgspec.structs.replace(bare, checks=checks, publishable=all(c.severity != "invalid" for c in checks))
    return msgspec.structs.replace(checked, id=canonical_id(checked))


def _assess(result: RunResult, samples: Sequence[Sample]) -> Assessment:
    """Assess the energy of the requests that statistics use, so that both speak of the same work."""
    from perjoule.meters.energy import Evidence, assess  # noqa: PLC0415 - with its tables only where needed

    used = {s.window for s in samples} | {stem_of(b.window) for b in result.blocks}
    return assess(
        Evidence(
            host=result.host,
            meters=result.meters,
            windows=tuple(w for w in result.windows if stem(w) in used),
            samples=tuple(samples),
            blocks=result.blocks,
            model=result.model,
            settings=result.settings,
            idle=result.idle,
            meters_refused=result.meters_refused,
        )
    )


def _overhead(result: RunResult) -> Overhead:
    """Share of one core's time that perjoule itself used while requests were measured."""
    span_s = sum(s.end_s - s.start_s for s in result.samples if s.phase == "measured")
    spent_s = result.overhead.harness_cpu_s
    return Overhead(
        harness_cpu_s=spent_s,
        harness_share=spent_s / span_s if span_s else 0.0,
        meter_cpu_s=result.overhead.meter_cpu_s,
    )


def _backend_facts(raw: RawRun) -> BackendFacts:
    first = raw.runs[0]
    return BackendFacts(
        name=raw.backend,
        version=_backend_version(raw.backend),
        engine_version=first.engine_version,
        device=raw.options.device,
        requested_options=msgspec.to_builtins(raw.options),
        effective_options=first.effective_options,
    )


def _backend_version(name: str) -> str:
    """Return the version of the distribution the backend came with."""
    if name in registry.BUILT_IN["perjoule.backends"]:
        return __version__
    for entry in entry_points(group="perjoule.backends", name=name):
        if entry.dist is not None:
            return entry.dist.version
    return "unknown"


def _no_energy() -> EnergyReport:
    return EnergyReport(
        headline=None, headline_missing=_NOT_DERIVED,
        floor_j=None, floor_j_missing=_NOT_DERIVED,
        ceiling_j=None, ceiling_j_missing=_NOT_DERIVED,
        convention=None, convention_missing=_NOT_DERIVED,
        window_s=0.0,
    )  # fmt: skip


def _once(checks: Iterable[Check]) -> tuple[Check, ...]:
    """Keep the first check of each code."""
    found: dict[str, Check] = {}
    for check in checks:
        found.setdefault(check.code, check)
    return tuple(found.values())
