"""From windows to joules with intervals: sensors where there are any, else the model, else nothing.

The random part of an interval is the spread over fresh processes; the systematic part is what repeats cannot
reduce: a sensor's tolerance or the ranges of a model's coefficients. Bounds combine both corner by corner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from perjoule.meters.counters import CounterSet
from perjoule.meters.model import HostModel, Part, Range, host_model
from perjoule.records import (
    UNSET,
    Check,
    Convention,
    DomainEnergy,
    Energy,
    EnergyReport,
    Flag,
    HostFacts,
    IdlePower,
    Label,
    MeterFact,
    MeterRefusal,
    Metric,
    Missing,
    ModelFacts,
    Quantity,
    Record,
    Sample,
    Window,
)

if TYPE_CHECKING:
    from perjoule.records import WindowPhase

ENERGY_METRICS = (
    "energy_j_per_output_token", "energy_j_per_decode_token", "energy_j_per_prompt_token", "energy_j_per_request",
    "output_tokens_per_j", "power_w", "idle_power_w", "energy_delay_j_s",
)  # fmt: skip
_INTERVAL = "95 % t over processes, times the systematic range"


class Evidence(Record, frozen=True, kw_only=True):
    """What energy is judged from: the windows and samples that count, the host, its meters."""

    host: HostFacts
    meters: tuple[MeterFact, ...]
    windows: tuple[Window, ...]
    samples: tuple[Sample, ...]
    model: ModelFacts
    threads: int
    tdp_w: float | None
    idle: IdlePower
    meters_refused: tuple[MeterRefusal, ...]


class Assessment(Record, frozen=True, kw_only=True):
    report: EnergyReport
    metrics: dict[str, Metric]
    checks: tuple[Check, ...] = ()


Price = Callable[[Sequence[Window]], "list[Part] | str"]


class _Basis:
    """How joules are had on this host: from counters or from the model."""

    def __init__(self, price: Price, label: Label, grade: str, scope: str, convention: Convention) -> None:
        self.price, self.label, self.grade, self.scope, self.convention = price, label, grade, scope, convention
        self.min_window_s = 0.0

    def energy(self, value: Range, spread: float, unit: str, n: int, statistic: str) -> Energy:
        """Combine a systematic range with a relative half-width ``spread`` over processes."""
        return Energy(
            value=value.value,
            low=max(0.0, value.low * (1 - spread)),
            high=value.high * (1 + spread),
            unit=unit,
            n=n,
            statistic=statistic,
            interval=_INTERVAL,
            label=self.label,
            grade=self.grade,
            scope=self.scope,
            convention=self.convention,
            random=(max(0.0, value.value * (1 - spread)), value.value * (1 + spread)),
            systematic=(value.low, value.high),
        )


def assess(evidence: Evidence) -> Assessment:
    """Return energy report and metrics. Pure: the same evidence gives the same joules."""
    if not evidence.samples:
        return _nothing("no request was measured", evidence)
    counters = CounterSet(evidence.meters)
    if counters.covers(evidence.meters_refused):
        basis = _Basis(counters.parts, "measured", counters.grade, counters.scope, "gross")
        basis.min_window_s = counters.min_window_s
        return _Assessor(evidence, basis, None).assess()
    model = host_model(evidence.host, evidence.model.weights_bytes, evidence.tdp_w)
    if isinstance(model, str):
        return _nothing(model, evidence)
    basis = _Basis(model.parts, "utilisation-modelled", model.grade, model.scope, "fair-share")
    return _Assessor(evidence, basis, model).assess()


class _Assessor:
    def __init__(self, evidence: Evidence, basis: _Basis, model: HostModel | None) -> None:
        self._evidence, self._basis, self._model = evidence, basis, model
        self._by_process: dict[int, list[Sample]] = {}
        for sample in evidence.samples:
            self._by_process.setdefault(sample.process, []).append(sample)
        self._windows: dict[str, list[Window]] = {}
        for window in evidence.windows:
            self._windows.setdefault(window.id.partition("/")[0], []).append(window)

    def assess(self) -> Assessment:
        windows = self._evidence.windows
        metrics = self._metrics()
        parts = self._basis.price(windows)
        per_token = metrics["energy_j_per_output_token"]
        if isinstance(parts, str) or isinstance(per_token, Missing):
            reason = parts if isinstance(parts, str) else per_token.reason if isinstance(per_token, Missing) else ""
            return _nothing(reason, self._evidence)
        spread = _relative_random(per_token)
        headline = self._energy_of(_total(parts), spread)
        outside = self._model.outside(windows) if self._model else []
        floor, ceiling = self._bounds(headline)
        unbounded = "a sensor needs no bound from a model"
        report = EnergyReport(
            headline=headline,
            domains=tuple(
                DomainEnergy(domain=p.domain, energy=self._energy_of(p.joules, spread), note=p.note) for p in parts
            ),
            outside_headline=tuple(
                DomainEnergy(domain=p.domain, energy=self._energy_of(p.joules, spread), note=p.note) for p in outside
            ),
            floor_j=floor,
            floor_j_missing=UNSET if floor is not None else unbounded,
            ceiling_j=ceiling,
            ceiling_j_missing=UNSET if ceiling is not None else unbounded,
            convention=self._basis.convention,
            window_s=sum(w.duration_s for w in windows),
            flags=_flags(headline, floor, ceiling),
        )
        return Assessment(report=report, metrics=metrics)

    def _energy_of(self, joules: Range, spread: float) -> Energy:
        return self._basis.energy(joules, spread, "J", len(self._by_process), "sum over measured requests")

    def _bounds(self, headline: Energy) -> tuple[float | None, float | None]:
        del headline
        if self._model is None:
            return None, None
        return self._model.floor_j(self._evidence.windows), self._model.ceiling_j(self._evidence.windows)

    def _metrics(self) -> dict[str, Metric]:
        both: tuple[WindowPhase, ...] = ("prefill", "decode")
        per_token = self._per("J", both, lambda s: s.output_tokens)
        metrics: dict[str, Metric] = {
            "energy_j_per_output_token": per_token,
            "energy_j_per_decode_token": self._per("J", ("decode",), lambda s: s.output_tokens - 1),
            "energy_j_per_prompt_token": self._per("J", ("prefill",), lambda s: s.prompt_tokens),
            "energy_j_per_request": self._per("J", both, lambda _: 1),
            "output_tokens_per_j": _inverse(per_token),
            "power_w": self._per("W", both, lambda s: s.end_s - s.start_s),
            "energy_delay_j_s": self._delay(),
            "idle_power_w": _idle(self._evidence.idle),
        }
        return metrics

    def _per(self, unit: str, phases: tuple[WindowPhase, ...], amount: Callable[[Sample], float]) -> Metric:
        """Return energy of some phases per amount of something: one value a process, then over processes."""
        values: list[Range] = []
        for samples in self._by_process.values():
            windows = [w for s in samples for w in self._windows.get(s.window, []) if w.phase in phases]
            refused = self._too_short(windows, phases)
            parts = refused or self._basis.price(windows)
            if isinstance(parts, str):
                return Missing(reason=parts)
            total = sum(amount(s) for s in samples)
            if not total:
                return Missing(reason="the requests have none of what this divides by")
            values.append(_total(parts).times(1 / total))
        return self._over(values, unit)

    def _too_short(self, windows: Sequence[Window], phases: tuple[WindowPhase, ...]) -> str:
        """Requests of a process follow each other, so their windows add up; single phases do not."""
        need = self._basis.min_window_s
        spans = [w.duration_s for w in windows]
        have = sum(spans) if len(phases) > 1 else max(spans, default=0.0)
        if have >= need:
            return ""
        return f"the sensor needs a window of {need:g} s; the longest had {have:.2g} s"

    def _over(self, values: Sequence[Range], unit: str) -> Metric:
        from perjoule.stats.intervals import half_width  # noqa: PLC0415 - scipy only where intervals are made

        mean = Range(
            low=fmean(v.low for v in values),
            value=fmean(v.value for v in values),
            high=fmean(v.high for v in values),
        )
        half = half_width([v.value for v in values])
        if not mean.value:
            return Missing(reason="the engine used no energy that this host's meters resolve")
        if half is None:
            return Missing(reason="one process: no spread to judge by")
        return self._basis.energy(mean, half / mean.value, unit, len(values), "mean over processes")

    def _delay(self) -> Metric:
        """Return energy per request times its latency, J*s."""
        latency = {p: fmean(s.end_s - s.start_s for s in samples) for p, samples in self._by_process.items()}
        values: list[Range] = []
        for process, samples in self._by_process.items():
            windows = [w for s in samples for w in self._windows.get(s.window, [])]
            parts = self._too_short(windows, ("prefill", "decode")) or self._basis.price(windows)
            if isinstance(parts, str):
                return Missing(reason=parts)
            values.append(_total(parts).times(latency[process] / len(samples)))
        return self._over(values, "J*s")


def _total(parts: Sequence[Part]) -> Range:
    total = Range(low=0.0, value=0.0, high=0.0)
    for part in parts:
        total = total.plus(part.joules)
    return total


def _relative_random(energy: Energy | Quantity) -> float:
    return (energy.random[1] / energy.value - 1) if isinstance(energy, Energy) and energy.value else 0.0


def _inverse(energy: Metric) -> Metric:
    """Turn joules per token into tokens per joule; the bounds change places."""
    if not isinstance(energy, Energy):
        return energy
    if not energy.low or not energy.systematic[0] or not energy.random[0]:
        return Missing(reason="the joules per token may be 0, so there is no upper bound")
    return Energy(
        value=1 / energy.value,
        low=1 / (energy.high or energy.value),
        high=1 / energy.low,
        unit="tokens/J",
        n=energy.n,
        statistic=energy.statistic,
        interval=energy.interval,
        label=energy.label,
        grade=energy.grade,
        scope=energy.scope,
        convention=energy.convention,
        random=(1 / energy.random[1], 1 / energy.random[0]),
        systematic=(1 / energy.systematic[1], 1 / energy.systematic[0]),
    )


def _idle(idle: IdlePower) -> Metric:
    if not idle.before:
        return Missing(reason=str(idle.before_missing))
    first = next(iter(idle.before.values()))
    return first if len(idle.before) == 1 else Missing(reason="more than one domain: see idle.before")


def _flags(headline: Energy, floor: float | None, ceiling: float | None) -> tuple[Flag, ...]:
    flags = []
    if floor is not None and headline.value < floor:
        flags.append(Flag(code="below_floor", message="less than moving the bytes alone must cost"))
    if ceiling is not None and headline.value > ceiling:
        flags.append(Flag(code="above_ceiling", message="more than the machine could draw in that time"))
    return tuple(flags)


def _nothing(reason: str, evidence: Evidence) -> Assessment:
    report = EnergyReport(
        headline=None,
        headline_missing=reason,
        floor_j=None,
        floor_j_missing=reason,
        ceiling_j=None,
        ceiling_j_missing=reason,
        convention=None,
        convention_missing=reason,
        window_s=sum(w.duration_s for w in evidence.windows),
    )
    metrics: dict[str, Metric] = {name: Missing(reason=reason) for name in ENERGY_METRICS}
    metrics["idle_power_w"] = _idle(evidence.idle)
    return Assessment(report=report, metrics=metrics)
