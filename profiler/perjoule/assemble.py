"""From what was observed to a result. ``derive`` computes every number again from a result's raw parts."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UnsetType

from perjoule import __version__, registry, roofline
from perjoule.answers import answer_metrics
from perjoule.asking import judged
from perjoule.checks import run_checks
from perjoule.measure import ProcessRun
from perjoule.meters.idle import derive_idle
from perjoule.protocols import EngineOptions
from perjoule.quality.intervals import derive_fidelity
from perjoule.records import (
    UNSET,
    BackendFacts,
    Check,
    EnergyReport,
    GapHistogram,
    HostFacts,
    IdlePower,
    LanguageCost,
    MeterFact,
    MeterRefusal,
    Missing,
    ModelFacts,
    Overhead,
    Peaks,
    Quality,
    Record,
    RunResult,
    RunSettings,
    ServerFacts,
    ToolFacts,
    Window,
    flatten_metrics,
)
from perjoule.scenario import Scenario, facts, from_facts
from perjoule.stats.gaps import histogram
from perjoule.stats.selection import select, stem, stem_of
from perjoule.stats.service import good_requests
from perjoule.stats.summary import summarize
from perjoule.store.canonical import canonical_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perjoule.meters.energy import Evidence
    from perjoule.records import Sample

MAX_TOKEN_TIMES = 50_000  # in one file
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
    server: ServerFacts | UnsetType = UNSET
    quality: Quality | str = "nobody asked for it"  # a string: why it is not known
    roofline_peaks: Peaks | str | None = None  # a string: why there are none; null: nobody asked for them


def assemble(raw: RawRun) -> RunResult:
    """Return the complete result of one configuration, with its metrics, energy, checks and id."""
    refused = {
        (r.meter, r.domain or r.reason): r
        for r in (*(r for run in raw.runs for r in run.refusals), *raw.meters_refused)
    }
    windows = (*raw.idle_windows, *(w for run in raw.runs for w in run.windows))
    everything = judged((s for run in raw.runs for s in run.samples), raw.scenario)
    samples, histograms = thinned(everything, select(everything, windows, raw.scenario).by_process)
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
            samples=samples,
            windows=windows,
            blocks=tuple(b for run in raw.runs for b in run.blocks),
            spans=tuple(s for run in raw.runs for s in run.spans),
            gap_histograms=histograms,
            memory=tuple(m for run in raw.runs for m in run.memory),
            metrics={},
            energy=_no_energy(),
            quality=None if isinstance(raw.quality, str) else raw.quality,
            quality_missing=raw.quality if isinstance(raw.quality, str) else UNSET,
            **_peaks(raw.roofline_peaks),
            roofline=None,
            roofline_missing=roofline.NOT_MEASURED,
            overhead=Overhead(
                harness_cpu_s=sum(run.harness_cpu_s for run in raw.runs),
                harness_share=0.0,
                meter_cpu_s=sum(run.meter_cpu_s for run in raw.runs),
            ),
            publishable=False,
        )
    )


def thinned(
    samples: tuple[Sample, ...], counted: Sequence[Sequence[Sample]]
) -> tuple[tuple[Sample, ...], tuple[GapHistogram, ...]]:
    """Leave out the times of tokens where a file would hold too many.

    Gaps of the requests that are ``counted``, by process, become histograms.
    """
    if sum(len(s.token_times_s or ()) for s in samples) <= MAX_TOKEN_TIMES:
        return samples, ()
    histograms = tuple(histogram(group[0].process, group) for group in counted)
    reason = f"over {MAX_TOKEN_TIMES} times of tokens: see gap_histograms"
    bare = (msgspec.structs.replace(s, token_times_s=None, token_times_s_missing=reason) for s in samples)
    return tuple(bare), histograms


def derive(result: RunResult) -> RunResult:
    """Return the result with every derived part computed again from its raw parts, and the ``id`` that it then has.

    Raises ``InputError`` for a wrong scenario spec.
    """
    again = derived_parts(result)
    return msgspec.structs.replace(again, id=canonical_id(again))


def derived_parts(result: RunResult) -> RunResult:
    """Return the result, without an ``id``, with every derived part computed again from its raw parts.

    Raw are settings, facts, processes, samples, windows, memory, peaks and CPU times; derived are idle power, metrics,
    energy, shares of the roofline, the overhead's share, checks and ``publishable``. Raises ``InputError`` for a wrong
    scenario spec.
    """
    from perjoule.meters.energy import assess  # noqa: PLC0415 - with its tables only where needed

    result = msgspec.structs.replace(
        result, idle=derive_idle(result.windows, result.meters, result.meters_refused, result.idle)
    )
    scenario = from_facts(result.scenario)
    assessment = assess(evidence_of(result))
    metrics = summarize(
        result.samples, result.windows, result.processes, result.memory, scenario, result.model, result.spans,
        result.gap_histograms,
    )  # fmt: skip
    per_token = assessment.metrics.get("energy_j_per_output_token", Missing(reason="there are no joules"))
    metrics |= answer_metrics(result.samples, per_token)
    told = metrics.get("goodput_requests_per_s")
    if isinstance(told, Missing):  # a rate that means nothing has no joules either
        assessment.metrics["goodput_requests_per_j"] = told
    bare = msgspec.structs.replace(
        result,
        id="",
        metrics=flatten_metrics({**metrics, **assessment.metrics}),
        energy=assessment.report,
        quality=_quality(result),
        languages=_languages(result),
        overhead=_overhead(result),
        **_roofline(result),
        checks=(),
        publishable=False,
    )
    checks = _once([*run_checks(bare), *assessment.checks])
    return msgspec.structs.replace(bare, checks=checks, publishable=all(c.severity != "invalid" for c in checks))


def evidence_of(result: RunResult) -> Evidence:
    """Return what energy is judged from: the requests that statistics use, so that both speak of the same work."""
    from perjoule.meters.energy import Evidence  # noqa: PLC0415 - with its tables only where needed

    scenario = from_facts(result.scenario)
    samples = select(result.samples, result.windows, scenario).samples
    waiting = scenario.shape == "idle"
    used = {s.window for s in samples} | {stem_of(b.window) for b in result.blocks}
    spans = {s.window for s in result.spans} if waiting else {s.span for s in samples}
    return Evidence(
        host=result.host,
        meters=result.meters,
        windows=tuple(w for w in result.windows if stem(w) in used or w.id in spans),
        samples=samples,
        blocks=result.blocks,
        model=result.model,
        settings=result.settings,
        idle=result.idle,
        meters_refused=result.meters_refused,
        good=None if scenario.slo is None else good_requests(samples, scenario.slo),
        elsewhere=result.backend.server is not UNSET and result.backend.server.place == "elsewhere",
        device=result.backend.device,
        waiting=waiting,
    )


def _overhead(result: RunResult) -> Overhead:
    """Share of one core's time that perjoule itself used while requests were measured."""
    alone = [s for s in result.samples if s.phase == "measured" and not isinstance(s.span, str)]
    shared = {s.window for s in result.spans if s.phase == "measured"}
    span_s = sum(s.end_s - s.start_s for s in alone) + sum(w.duration_s for w in result.windows if w.id in shared)
    spent_s = result.overhead.harness_cpu_s
    return Overhead(
        harness_cpu_s=spent_s,
        harness_share=spent_s / span_s if span_s else 0.0,
        meter_cpu_s=result.overhead.meter_cpu_s,
    )


def _languages(result: RunResult) -> tuple[LanguageCost, ...]:
    if not result.scenario.spec.get("passages"):
        return ()
    from perjoule.quality.questions import characters_of  # noqa: PLC0415 - only where passages were read
    from perjoule.reading import language_costs  # noqa: PLC0415

    return language_costs(evidence_of(result), characters_of(result.scenario.spec["languages"]))


def _quality(result: RunResult) -> Quality | None:
    if result.quality is None or result.quality.fidelity is None:
        return result.quality
    return msgspec.structs.replace(result.quality, fidelity=derive_fidelity(result.quality.fidelity))


def _peaks(found: Peaks | str | None) -> dict[str, Any]:
    if found is None:
        return {}
    return {"peaks": None, "peaks_missing": found} if isinstance(found, str) else {"peaks": found}


def _roofline(result: RunResult) -> dict[str, Any]:
    found = roofline.roofline(result)
    why_not = isinstance(found, str)
    return {"roofline": None if why_not else found, "roofline_missing": found if why_not else UNSET}


def _backend_facts(raw: RawRun) -> BackendFacts:
    first = raw.runs[0]
    return BackendFacts(
        name=raw.backend,
        version=_backend_version(raw.backend),
        engine_version=first.engine_version,
        device=raw.options.device,
        requested_options=msgspec.to_builtins(msgspec.structs.replace(raw.options, extra=_shown(raw.options.extra))),
        effective_options=first.effective_options,
        server=raw.server,
    )


def _shown(extra: dict[str, Any]) -> dict[str, Any]:
    """Return an engine's options without addresses and folders, which are of this machine or its network."""
    return {key: value.rpartition("/")[2] if isinstance(value, str) else value for key, value in extra.items()}


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
