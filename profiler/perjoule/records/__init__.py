"""Frozen records of a run: what was observed, and what was derived from it.

Every numeric field carries its SI unit as the suffix of its name. A value that could not be had is
``None`` and a sibling field ``<name>_missing`` says why; the sibling is absent otherwise. The constructors
refuse NaN, infinities, negative physical quantities and a ``None`` without a reason, so a record that
exists can be written as strict JSON.

The JSON contract of these records is ``results/schema/run-1.schema.json``, generated from this module.
"""

from __future__ import annotations

from perjoule.records.base import UNSET, Convention, Energy, Label, Metric, Missing, Quantity, Reason, Record
from perjoule.records.facts import (
    LEAST_CONFIGURATIONS,
    LEAST_ERROR,
    LEAST_MODELS,
    MOST_ERROR,
    BackendFacts,
    Calibration,
    CpuCache,
    CpuFacts,
    GpuFacts,
    HostFacts,
    MeterFact,
    MeterRefusal,
    ModelFacts,
    RunSettings,
    ScenarioFacts,
    ServerFacts,
    ToolFacts,
)
from perjoule.records.observed import (
    Block,
    GapHistogram,
    IdlePower,
    MemoryPeak,
    Phase,
    ProcessRecord,
    Reading,
    Sample,
    ServerCounts,
    Span,
    Window,
    WindowPhase,
)
from perjoule.records.quality import Fidelity, FidelityBlock, KlDivergence, LanguageCost, Quality, TextBits
from perjoule.records.result import (
    SCHEMA_VERSION,
    Check,
    DomainEnergy,
    EnergyReport,
    Flag,
    Overhead,
    RunResult,
    Severity,
    flatten_metrics,
)
from perjoule.records.roofline import Peak, Peaks, Precision, Roofline

__all__ = [
    "LEAST_CONFIGURATIONS", "LEAST_ERROR", "LEAST_MODELS", "MOST_ERROR", "SCHEMA_VERSION", "UNSET", "BackendFacts",
    "Block", "Calibration", "Check", "Convention", "CpuCache", "CpuFacts", "DomainEnergy", "Energy", "EnergyReport",
    "Fidelity", "FidelityBlock", "Flag", "GapHistogram", "GpuFacts", "HostFacts", "IdlePower", "KlDivergence",
    "Label", "LanguageCost", "MemoryPeak", "MeterFact", "MeterRefusal", "Metric", "Missing", "ModelFacts",
    "Overhead", "Peak", "Peaks", "Phase", "Precision", "ProcessRecord", "Quality", "Quantity", "Reading", "Reason",
    "Record", "Roofline", "RunResult", "RunSettings", "Sample", "ScenarioFacts", "ServerCounts", "ServerFacts",
    "Severity", "Span", "TextBits", "ToolFacts", "Window", "WindowPhase", "flatten_metrics",
]  # fmt: skip
