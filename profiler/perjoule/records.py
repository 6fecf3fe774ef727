"""Frozen records of a run: what was observed, and what was derived from it.

Every numeric field carries its SI unit as the suffix of its name. A value that could not be had is
``None`` and a sibling field ``<name>_missing`` says why; the sibling is absent otherwise. The constructors
refuse NaN, infinities, negative physical quantities and a ``None`` without a reason, so a record that
exists can be written as strict JSON.

The JSON contract of these records is ``results/schema/run-1.schema.json``, generated from this module.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec
from msgspec import UNSET as UNSET  # noqa: PLC0414 - re-exported: records and their reasons belong together
from msgspec import UnsetType

# History of the run file format; a number is added here and a migration in perjoule.store per change.
#   1  first release
SCHEMA_VERSION = 1

Reason = str | UnsetType

Label = Literal["measured", "counter-modelled", "utilisation-modelled", "analytic", "imported", "none"]
Convention = Literal["gross", "net", "fair-share"]
Severity = Literal["note", "warning", "invalid"]
Phase = Literal["warmup", "measured"]
WindowPhase = Literal["idle", "load", "prefill", "decode"]

_PHYSICAL_SUFFIXES = (
    "_s", "_bytes", "_j", "_w", "_hz", "_tokens", "_count", "_share", "_weight", "_streamed",
)  # fmt: skip
_SIGNED_FIELDS = frozenset({"skew_s", "clock_offset_s"})


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records: refuses what strict JSON or physics cannot hold."""

    def __post_init__(self) -> None:
        owner = type(self).__name__
        for name in self.__struct_fields__:
            value = getattr(self, name)
            _refuse_nonsense(owner, name, value)
            if name.endswith("_missing"):
                _refuse_unexplained(owner, name, getattr(self, name.removesuffix("_missing")), value)


def _refuse_nonsense(owner: str, name: str, value: object) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        msg = f"{owner}.{name} must be finite, got {value}"
        raise ValueError(msg)
    if (
        isinstance(value, int | float)
        and value < 0
        and name.endswith(_PHYSICAL_SUFFIXES)
        and name not in _SIGNED_FIELDS
    ):
        msg = f"{owner}.{name} must not be negative, got {value}"
        raise ValueError(msg)
    if isinstance(value, tuple):
        for item in value:
            _refuse_nonsense(owner, name, item)


def _refuse_unexplained(owner: str, name: str, value: object, reason: object) -> None:
    if (value is None) != (reason is not UNSET):
        msg = f"{owner}.{name} must be given exactly when the value is null"
        raise ValueError(msg)
    if reason is not UNSET and not reason:
        msg = f"{owner}.{name} must say why"
        raise ValueError(msg)


class _Bounded(Record, frozen=True, kw_only=True):
    value: float
    low: float | None
    high: float | None
    low_missing: Reason = UNSET
    high_missing: Reason = UNSET
    unit: str
    n: int
    statistic: str
    interval: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n < 1:
            msg = f"a quantity needs at least one observation, got n={self.n}"
            raise ValueError(msg)
        if (self.low is not None and self.low > self.value) or (self.high is not None and self.high < self.value):
            msg = f"the value {self.value} lies outside its interval [{self.low}, {self.high}]"
            raise ValueError(msg)


class Quantity(_Bounded, frozen=True, kw_only=True, tag_field="type", tag="quantity"):
    """A number with its interval; ``interval`` names the method of the bounds."""


class Energy(_Bounded, frozen=True, kw_only=True, tag_field="type", tag="energy"):
    """Joules, watts, or a ratio of joules, with how they were obtained and what they cover.

    ``random`` is the part of the interval that repeats reduce, ``systematic`` the part they do not
    (tolerance of a sensor, coefficients of a model); both are (low, high) in the unit of ``value``.
    """

    label: Label
    grade: str
    scope: str
    convention: Convention
    random: tuple[float, float]
    systematic: tuple[float, float]


class Missing(Record, frozen=True, kw_only=True):
    """A metric that applies but could not be had. In JSON: ``null`` and ``<name>_missing``."""

    reason: str


Metric = Quantity | Energy | Missing


class Reading(Record, frozen=True, kw_only=True):
    """Raw integer counts of one domain at the two edges of a window (strings above 2^53).

    A gauge is integrated as it is polled; its counts are raw unit x ns, and ``sampling_error_count`` is the standard
    uncertainty of their difference that comes from having looked only ``polls`` times.
    """

    domain: str
    start_count: int | str
    end_count: int | str
    skew_s: float = 0.0  # how much later than the worker's stamps the counter was read, end minus start
    polls: int | None = None  # null: a counter, which misses nothing between its edges
    sampling_error_count: float = 0.0


class Window(Record, frozen=True, kw_only=True):
    """One stretch of time that energy and noise are computed from.

    ``cpu_s`` is CPU time of the worker process (all threads) inside the window, ``foreign_cpu_s`` that of
    every process outside our own tree, ``steal_s`` what the hypervisor took, ``bytes_streamed`` the weights
    and KV cache that had to be read from memory at least once per forward pass.
    """

    id: str
    process: int
    phase: WindowPhase
    start_s: float
    end_s: float
    cpu_s: float | None
    cpu_s_missing: Reason = UNSET
    steal_s: float | None
    steal_s_missing: Reason = UNSET
    foreign_cpu_s: float | None
    foreign_cpu_s_missing: Reason = UNSET
    bytes_streamed: int | None
    bytes_streamed_missing: Reason = UNSET
    readings: tuple[Reading, ...] = ()
    rejected: str | None = None

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


class Sample(Record, frozen=True, kw_only=True):
    """One request. Stamps are seconds since the run's start, taken where the token id came into being.

    ``window`` is the id stem of the request: its windows are ``<window>/prefill`` and ``<window>/decode``.
    """

    process: int
    window: str
    index: int
    phase: Phase
    prompt_text_sha256: str
    prompt_ids_sha256: str
    prompt_tokens: int
    output_tokens: int
    finish_reason: Literal["length", "stop", "context"]
    scheduled_s: float | None
    scheduled_s_missing: Reason = UNSET
    start_s: float
    first_token_s: float
    token_times_s: tuple[float, ...] | None
    token_times_s_missing: Reason = UNSET
    end_s: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt_tokens < 1 or self.output_tokens < 1:
            msg = "a sample needs at least one prompt token and one output token"
            raise ValueError(msg)
        if not self.start_s <= self.first_token_s <= self.end_s:
            msg = "a sample's stamps must be in order: start, first token, end"
            raise ValueError(msg)


class ProcessRecord(Record, frozen=True, kw_only=True):
    """One fresh worker process: how it started and whether it reached a steady state."""

    process: int
    start_s: float
    load_s: float
    cold_ttft_s: float
    warmup_requests: int
    steady: bool
    shared_prefix_tokens: int


class MemoryPeak(Record, frozen=True, kw_only=True):
    """High-water marks of the worker: while loading, over all requests, and in one request's two phases."""

    process: int
    phase: Literal["load", "requests", "prefill", "decode"]
    rss_peak_bytes: int | None
    rss_peak_bytes_missing: Reason = UNSET
    pss_bytes: int | None
    pss_bytes_missing: Reason = UNSET
    gpu_bytes: int | None
    gpu_bytes_missing: Reason = UNSET


class MeterFact(Record, frozen=True, kw_only=True):
    """A domain that was metered: what it covers, what one count is worth, and how far it is to be trusted.

    ``tick_s`` is the update period found at probe. ``tolerance`` is the relative half-width (about 90 %) that repeats
    cannot reduce. ``only_simulated`` marks a reader that its authors have never run against real hardware.
    """

    domain: str  # unique in a result: package-0, package-0:dram, gpu-1, wall
    scope: str  # what it covers, a word of perjoule.meters.compose.SCOPES
    kind: Literal["counter", "gauge", "model"]
    label: Label
    grade: str
    tick_s: float | None
    tick_s_missing: Reason = UNSET
    source: str
    unit_j: str | None = None  # joules per count, as an exact fraction "1/1000000"
    wrap_count: int | str | None = None  # counts after which the counter starts again; null: it never wraps
    min_window_s: float = 0.0
    tolerance: float | None = None  # null: that of its grade
    parent: str | None = None  # the domain that physically contains this one
    simulated: bool = False
    only_simulated: bool = False
    note: str | None = None  # what a reader of the result should know of this sensor


class MeterRefusal(Record, frozen=True, kw_only=True):
    """What could not be metered, why, and what would allow it."""

    meter: str
    reason: str
    fix: str
    domain: str | None = None  # the domain that is there but cannot be read; null: the reader as a whole


class CpuCache(Record, frozen=True, kw_only=True):
    level: int
    kind: str
    size_bytes: int


class CpuFacts(Record, frozen=True, kw_only=True):
    vendor: str
    family: int | None
    model: int | None
    stepping: int | None
    name: str
    isa: tuple[str, ...]
    cores_visible: int
    threads: int
    quota_cores: float | None = None  # cgroup CPU limit; null: none
    governor: str | None
    governor_missing: Reason = UNSET
    freq_max_hz: float | None
    freq_max_hz_missing: Reason = UNSET
    caches: tuple[CpuCache, ...] = ()


class GpuFacts(Record, frozen=True, kw_only=True):
    name: str
    memory_bytes: int
    driver: str


class HostFacts(Record, frozen=True, kw_only=True):
    """Privacy-safe facts of the machine: nothing here names a person, a host, a path or an address."""

    os: str
    kernel: str
    cpu: CpuFacts
    memory_bytes: int
    gpus: tuple[GpuFacts, ...] = ()
    virtualization: str | None
    virtualization_missing: Reason = UNSET
    container: str | None = None
    libraries: dict[str, str]
    machine_id: str
    simulated: bool = False  # PERJOULE_SYSFS or PERJOULE_PROCFS is not the kernel's own tree


class ToolFacts(Record, frozen=True, kw_only=True):
    name: str
    version: str


class ScenarioFacts(Record, frozen=True, kw_only=True):
    name: str
    version: int
    sha256: str
    spec: dict[str, Any]


class ModelFacts(Record, frozen=True, kw_only=True):
    ref: str
    name: str
    family: str
    vendor: str
    country: str
    license: str
    architecture: str
    parameters: int
    weights: Literal["trained", "synthetic"]
    source_format: str
    source_quantization: str
    file_sha256: str
    file_bytes: int
    tokenizer_sha256: str
    runtime_quantization: str
    bits_per_weight: float
    weights_bytes: int
    streamed_bytes_per_token: int | None
    streamed_bytes_per_token_missing: Reason = UNSET
    kv_bytes_per_position: int | None
    kv_bytes_per_position_missing: Reason = UNSET


class BackendFacts(Record, frozen=True, kw_only=True):
    name: str
    version: str
    engine_version: str
    device: str
    requested_options: dict[str, Any]
    effective_options: dict[str, Any]


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


class IdlePower(Record, frozen=True, kw_only=True):
    """Power per domain at rest: ``before`` the first process, ``after`` the last, ``loaded`` with an engine waiting."""

    before: dict[str, Energy] | None
    before_missing: Reason = UNSET
    loaded: dict[str, Energy] | None
    loaded_missing: Reason = UNSET
    after: dict[str, Energy] | None
    after_missing: Reason = UNSET


class Block(Record, frozen=True, kw_only=True):
    """Requests of one phase back to back in one window, so that a slow sensor's shortest window is filled."""

    process: int
    window: str  # the id of its window
    requests: int
    prompt_tokens: int


class RunSettings(Record, frozen=True, kw_only=True):
    """What the user set beside the scenario and the engine; derived numbers depend on it."""

    seed: int
    tdp_w: float | None = None
    meters: tuple[str, ...] | None = None


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
    memory: tuple[MemoryPeak, ...]
    metrics: dict[str, Quantity | Energy | str | None]
    energy: EnergyReport
    quality: dict[str, Any] | None
    quality_missing: Reason = UNSET
    roofline: dict[str, Any] | None
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
