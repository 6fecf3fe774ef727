"""One run result: raw parts, and what was derived from them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from perjoule.records.base import UNSET, Convention, Energy, Metric, Missing, Quantity, Reason, Record
from perjoule.records.facts import (
    BackendFacts,
    HostFacts,
    MeterFact,
    MeterRefusal,
    ModelFacts,
    RunSettings,
    ScenarioFacts,
    ToolFacts,
)
from perjoule.records.observed import (
    Block,
    GapHistogram,
    IdlePower,
    MemoryPeak,
    ProcessRecord,
    Sample,
    Span,
    Window,
)
from perjoule.records.quality import LanguageCost, Quality
from perjoule.records.roofline import Peaks, Roofline

# History of the run file format; a number is added here and a migration in perjoule.store per change.
#   1  first release
SCHEMA_VERSION = 1

Severity = Literal["note", "warning", "invalid"]


class DomainEnergy(Record, frozen=True, kw_only=True):
    domain: str
    energy: Energy | None
    energy_missing: Reason = UNSET
    note: str | None = None


class Flag(Record, frozen=True, kw_only=True):
    code: str
    message: str


class EnergyReport(Record, frozen=True, kw_only=True):
    """Energy of all measured requests together (``window_s`` seconds of them)."""

    headline: Energy | None
    headline_missing: Reason = UNSET
    domains: tuple[DomainEnergy, ...] = ()
    outside_headline: tuple[DomainEnergy, ...] = ()
    floor_j: float | None
    floor_j_missing: Reason = UNSET
    ceiling_j: float | None
    ceiling_j_missing: Reason = UNSET
    convention: Convention | None
    convention_missing: Reason = UNSET
    window_s: float
    flags: tuple[Flag, ...] = ()


class Overhead(Record, frozen=True, kw_only=True):
    """CPU time of perjoule itself (parent and meters) during the measured windows."""

    harness_cpu_s: float
    harness_share: float
    meter_cpu_s: float


class Check(Record, frozen=True, kw_only=True):
    code: str
    severity: Severity
    message: str
    hint: str
    data: dict[str, Any] = msgspec.field(default_factory=dict)


class RunResult(Record, frozen=True, kw_only=True):
    """One scenario x model x backend x options on one machine. See docs/results-format.md."""

    schema: Literal["perjoule.run"] = "perjoule.run"
    schema_version: int = SCHEMA_VERSION
    id: str = ""
    created_utc: str
    tool: ToolFacts
    reproduce: str
    settings: RunSettings
    scenario: ScenarioFacts
    model: ModelFacts
    backend: BackendFacts
    host: HostFacts
    meters: tuple[MeterFact, ...]
    meters_refused: tuple[MeterRefusal, ...]
    idle: IdlePower
    processes: tuple[ProcessRecord, ...]
    samples: tuple[Sample, ...]
    windows: tuple[Window, ...]
    blocks: tuple[Block, ...] = ()
    spans: tuple[Span, ...] = ()
    gap_histograms: tuple[GapHistogram, ...] = ()
    peaks: Peaks | msgspec.UnsetType | None = UNSET  # absent: nobody asked for them
    peaks_missing: Reason = UNSET
    memory: tuple[MemoryPeak, ...]
    metrics: dict[str, Quantity | Energy | str | None]
    energy: EnergyReport
    quality: Quality | None
    quality_missing: Reason = UNSET
    languages: tuple[LanguageCost, ...] = ()
    roofline: Roofline | None
    roofline_missing: Reason = UNSET
    overhead: Overhead
    checks: tuple[Check, ...] = ()
    publishable: bool

    def metric(self, name: str) -> Metric:
        """Return the metric, or ``Missing`` with its reason. ``KeyError`` where it does not apply."""
        value = self.metrics[name]
        if isinstance(value, Quantity | Energy):
            return value
        reason = self.metrics.get(f"{name}_missing")
        return Missing(reason=reason if isinstance(reason, str) else "no reason recorded")

    def metric_names(self) -> list[str]:
        return [name for name in self.metrics if not name.endswith("_missing")]


def flatten_metrics(metrics: dict[str, Metric]) -> dict[str, Quantity | Energy | str | None]:
    """Turn ``Missing`` into ``null`` and ``<name>_missing``, the form of the result file."""
    flat: dict[str, Quantity | Energy | str | None] = {}
    for name, metric in metrics.items():
        if isinstance(metric, Missing):
            flat[name] = None
            flat[f"{name}_missing"] = metric.reason
        else:
            flat[name] = metric
    return flat
