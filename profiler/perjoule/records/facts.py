"""Facts that a run rests on: meters, machine, scenario, model, engine, what the user set."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UnsetType

from perjoule.records.base import UNSET, Label, Reason, Record

# History of how numbers and intervals follow from raw parts; a line is added here whenever the same raw parts would
# give another number, so that no older result is called false for it: `perjoule verify` computes again only its own.
#   1  first release
STATISTICS_VERSION = 1


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
    """What wrote a file. ``statistics`` is the version of the rules by which its numbers follow from its raw parts."""

    name: str
    version: str
    statistics: int = STATISTICS_VERSION


class ScenarioFacts(Record, frozen=True, kw_only=True):
    name: str
    version: int
    sha256: str
    spec: dict[str, Any]


class ModelFacts(Record, frozen=True, kw_only=True):
    """A model as an engine runs it.

    ``body_parameters``: those that every prompt token is multiplied with, all but the embedding table and the head,
    which only the last position needs; left out where the engine does not tell, or picks experts.
    """

    ref: str
    name: str
    family: str
    vendor: str
    country: str
    license: str
    architecture: str
    parameters: int | None
    parameters_missing: Reason = UNSET
    body_parameters: int | UnsetType = UNSET
    weights: Literal["trained", "synthetic", "unknown"]
    source_format: str
    source_quantization: str
    file_sha256: str | None
    file_sha256_missing: Reason = UNSET
    file_bytes: int | None
    file_bytes_missing: Reason = UNSET
    tokenizer_sha256: str
    runtime_quantization: str
    bits_per_weight: float | None
    bits_per_weight_missing: Reason = UNSET
    weights_bytes: int | None
    weights_bytes_missing: Reason = UNSET
    streamed_bytes_per_token: int | None
    streamed_bytes_per_token_missing: Reason = UNSET
    kv_bytes_per_position: int | None
    kv_bytes_per_position_missing: Reason = UNSET
    left_out: tuple[str, ...] | UnsetType = UNSET  # what the published model has and the one that ran has not


class ServerFacts(Record, frozen=True, kw_only=True):
    """Whose work was measured, where a server was asked.

    ``place``: whether it runs on this machine. ``processes_known``: whether its process was named, so that its CPU time
    and memory could be read.
    """

    place: Literal["here", "elsewhere"]
    processes_known: bool


class BackendFacts(Record, frozen=True, kw_only=True):
    name: str
    version: str
    engine_version: str
    device: str
    requested_options: dict[str, Any]
    effective_options: dict[str, Any]
    server: ServerFacts | UnsetType = UNSET


# What a calibration must rest on. LEAST_ERROR: the largest leave-one-model-out error on 18 models of a public data
# set, docs/calibrate.md. A fit that misses by more than MOST_ERROR explains nothing.
LEAST_CONFIGURATIONS, LEAST_MODELS = 3, 2
LEAST_ERROR, MOST_ERROR = 0.18, 0.5


class Calibration(Record, frozen=True, kw_only=True):
    """The fit. ``low`` and ``high`` span what the fitted processes did; errors are relative, one model left out.

    ``tolerance_share`` is the half-width of the sensor it was fitted against. Nothing here names a machine. Raises
    ``ValueError`` for numbers that no fit gives.
    """

    p0_w: float
    e_j_per_byte: float
    error_mean_share: float
    error_max_share: float
    tolerance_share: float
    low_bytes_per_s: float
    high_bytes_per_s: float
    low_cores: float  # kept busy by the engine
    high_cores: float
    scope: str
    grade: str
    points: int
    configurations: int
    models: int
    simulated: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.p0_w > 0 and self.e_j_per_byte > 0):
            msg = f"P0 and e must be above 0, got {self.p0_w} W and {self.e_j_per_byte} J/byte"
            raise ValueError(msg)
        if not (0 < self.low_bytes_per_s <= self.high_bytes_per_s and 0 < self.low_cores <= self.high_cores):
            msg = "a range must be above 0 and in order"
            raise ValueError(msg)
        if not (0 <= self.error_mean_share <= self.error_max_share <= MOST_ERROR and 0 <= self.tolerance_share < 1):
            msg = f"errors must be in order and at most {MOST_ERROR}"
            raise ValueError(msg)
        if not self.points >= self.configurations >= LEAST_CONFIGURATIONS or self.models < LEAST_MODELS:
            msg = f"a fit needs {LEAST_CONFIGURATIONS} configurations of {LEAST_MODELS} models"
            raise ValueError(msg)

    @property
    def half_width(self) -> float:
        """Relative half-width inside the fitted range: never narrower than the sensor the fit leans on."""
        return max(LEAST_ERROR, self.error_max_share, self.tolerance_share)

    def joules(self, seconds: float, streamed_bytes: float) -> float:
        return self.p0_w * seconds + self.e_j_per_byte * streamed_bytes


Control = Literal["A", "A'"]  # one half of a pair of equal configurations


class RunSettings(Record, frozen=True, kw_only=True):
    """What the user set beside the scenario and the engine; derived numbers depend on it.

    ``resumed_at_s`` are the seconds since the run's start at which it was taken up again after it had ended early.
    """

    seed: int
    tdp_w: float | None = None
    meters: tuple[str, ...] | None = None
    calibration: Calibration | None = None  # used where no sensor covers the host
    pin: tuple[int, ...] | None = None  # CPUs that the measured process may use
    nice: int | None = None
    control: Control | None = None
    resumed_at_s: tuple[float, ...] = ()
