"""From windows to joules with intervals: sensors where there are any, else the model, else nothing.

The random part of an interval is the spread over fresh processes, or what single readings leave unknown where that
is more; the systematic part is what repeats cannot reduce: a sensor's tolerance or the ranges of a model's
coefficients. Bounds combine both corner by corner.
"""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING

from perjoule.meters.amounts import Part, Range, total
from perjoule.meters.at_rest import idle_power, idle_watts
from perjoule.meters.basis import Basis, CounterBasis, choose, covering
from perjoule.meters.plausible import plausibility
from perjoule.records import (
    UNSET,
    Block,
    Check,
    DomainEnergy,
    Energy,
    EnergyReport,
    HostFacts,
    IdlePower,
    MeterFact,
    MeterRefusal,
    Metric,
    Missing,
    ModelFacts,
    Record,
    RunSettings,
    Sample,
    Window,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perjoule.records import WindowPhase

ENERGY_METRICS = (
    "energy_j_per_output_token", "energy_j_per_decode_token", "energy_j_per_prompt_token", "energy_j_per_request",
    "output_tokens_per_j", "power_w", "idle_power_w", "energy_delay_j_s", "energy_net_j_per_output_token",
    "energy_net_j_per_request",
)  # fmt: skip
ELSEWHERE = "the server runs on another machine, whose energy nothing here measures"
_BOTH: tuple[WindowPhase, ...] = ("prefill", "decode")


class Evidence(Record, frozen=True, kw_only=True):
    """What energy is judged from: the windows and samples that count, the host, its meters."""

    host: HostFacts
    meters: tuple[MeterFact, ...]
    windows: tuple[Window, ...]
    samples: tuple[Sample, ...]
    blocks: tuple[Block, ...] = ()
    model: ModelFacts
    settings: RunSettings
    idle: IdlePower
    meters_refused: tuple[MeterRefusal, ...]
    good: frozenset[str] | None = None  # requests that met the service level, by window; null: there is none
    elsewhere: bool = False  # the engine is a server on another machine
    device: str = "cpu"  # where the engine computed
    waiting: bool = False  # nothing was asked for: the windows are of a loaded engine that waits


class Assessment(Record, frozen=True, kw_only=True):
    report: EnergyReport
    metrics: dict[str, Metric]
    checks: tuple[Check, ...] = ()


def assess(evidence: Evidence) -> Assessment:
    """Return energy report and metrics. Pure: the same evidence gives the same joules."""
    if not evidence.samples and not (evidence.waiting and evidence.windows):
        return _nothing("no request was measured", evidence)
    basis = basis_of(evidence)
    if isinstance(basis, str):
        return _nothing(basis, evidence)
    assessor = _Assessor(evidence, basis)
    return assessor.at_rest() if evidence.waiting else assessor.assess()


def per_process(evidence: Evidence) -> dict[int, Part] | str:
    """Return joules per output token of each process, or why there are none; ratios of them are what pairs compare."""
    if not evidence.samples:
        return "no request was measured"
    basis = basis_of(evidence)
    return basis if isinstance(basis, str) else _Assessor(evidence, basis).per_token()


def basis_of(evidence: Evidence) -> Basis | str:
    """Return how joules are had of this evidence, or why they are not."""
    if evidence.elsewhere:
        return ELSEWHERE
    basis = choose(
        evidence.meters,
        evidence.meters_refused,
        evidence.windows,
        evidence.host,
        evidence.model.weights_bytes or 0,  # unknown: nothing is said of caches
        evidence.settings,
    )
    return basis if isinstance(basis, str) else covering(basis, evidence.device)


class _Assessor:
    def __init__(self, evidence: Evidence, basis: Basis) -> None:
        self._evidence, self._basis = evidence, basis
        self._by_process: dict[int, list[Sample]] = {}
        self._known: dict[tuple[int, tuple[WindowPhase, ...]], Part | str] = {}
        for sample in evidence.samples:
            self._by_process.setdefault(sample.process, []).append(sample)
        self._windows: dict[str, list[Window]] = {}
        for window in evidence.windows:
            name = window.id if window.phase == "serve" else window.id.partition("/")[0]
            self._windows.setdefault(name, []).append(window)
        used = {_place(s) for s in evidence.samples}
        self._request_windows = [w for name, windows in self._windows.items() if name in used for w in windows]

    def assess(self) -> Assessment:
        metrics = self._metrics()
        return self._report(self._request_windows, metrics, metrics["energy_j_per_output_token"])

    def per_token(self) -> dict[int, Part] | str:
        found: dict[int, Part] = {}
        for process, samples in self._by_process.items():
            spent = self._spent(samples, _BOTH)
            if isinstance(spent, str):
                return spent
            found[process] = spent.times(1 / sum(s.output_tokens for s in samples))
        return found

    def at_rest(self) -> Assessment:
        """Assess a loaded engine that waits: power alone, over its windows."""
        values: list[Part] = []
        metrics: dict[str, Metric] = {"idle_power_w": idle_power(self._evidence.idle)}
        for window in self._evidence.windows:
            parts = self._basis.too_short([window]) or self._basis.price([window])
            if isinstance(parts, str):
                metrics["power_w"] = Missing(reason=parts)
                break
            values.append(total(parts).times(1 / window.duration_s))
        else:
            metrics["power_w"] = self._over(values, "W")
        return self._report(list(self._evidence.windows), metrics, metrics["power_w"])

    def _report(self, windows: list[Window], metrics: dict[str, Metric], per_token: Metric) -> Assessment:
        basis = self._basis
        parts = basis.price(windows)
        domains = tuple(self._domain(*row) for row in basis.every(windows))
        if isinstance(parts, str) or isinstance(per_token, Missing):
            reason = parts if isinstance(parts, str) else per_token.reason if isinstance(per_token, Missing) else ""
            reason += "".join(
                f"; {r.reason}" for r in self._evidence.meters_refused if r.domain and reason.startswith(f"{r.domain} ")
            )
            return _nothing(reason, self._evidence, domains, metrics)
        spread = _relative_random(per_token)
        headline = self._energy_of(total(parts), spread)
        floor, ceiling = basis.floor_j(windows, self._macs()), basis.ceiling_j(windows)
        report = EnergyReport(
            headline=headline,
            domains=domains,
            outside_headline=tuple(
                DomainEnergy(domain=p.domain, energy=self._energy_of(p, spread), note=p.note)
                for p in basis.outside(windows)
            ),
            floor_j=floor,
            floor_j_missing=UNSET if floor is not None else "this scope has no bound below",
            ceiling_j=ceiling,
            ceiling_j_missing=UNSET if ceiling is not None else "no highest power is known for this scope: give --tdp",
            convention=basis.convention,
            window_s=sum(w.duration_s for w in windows),
            flags=plausibility(headline, floor, ceiling, basis, windows, self._evidence.idle),
        )
        return Assessment(report=report, metrics=metrics)

    def _domain(self, domain: str, part: Part | str, note: str) -> DomainEnergy:
        if isinstance(part, str):
            return DomainEnergy(domain=domain, energy=None, energy_missing=part, note=note or None)
        return DomainEnergy(domain=domain, energy=self._energy_of(part, 0.0, domain), note=note or part.note)

    def _energy_of(self, part: Part, spread: float, scope: str | None = None) -> Energy:
        relative = max(spread, part.random_j / part.joules.value if part.joules.value else 0.0)
        processes = len(self._by_process) or len({w.process for w in self._evidence.windows})
        energy = self._basis.energy(part.joules, relative, "J", processes, "sum over measured windows")
        return energy if scope is None else self._basis.of_domain(energy, scope)

    def _macs(self) -> int:
        """Return multiply-accumulates: about one per parameter and token."""
        tokens = sum(s.prompt_tokens + s.output_tokens for s in self._evidence.samples)
        return (self._evidence.model.parameters or 0) * tokens

    def _metrics(self) -> dict[str, Metric]:
        per_token = self._per("J", _BOTH, lambda s: s.output_tokens)
        per_request = self._per("J", _BOTH, lambda _: 1)
        return {
            "energy_j_per_output_token": per_token,
            "energy_j_per_decode_token": self._per("J", ("decode",), lambda s: s.output_tokens - 1),
            "energy_j_per_prompt_token": self._per_prompt_token(),
            "energy_j_per_request": per_request,
            "output_tokens_per_j": _inverse(per_token),
            "power_w": self._per("W", _BOTH, None),
            "energy_delay_j_s": self._per("J*s", _BOTH, lambda _: 1, delay=True),
            "idle_power_w": idle_power(self._evidence.idle),
            "energy_net_j_per_output_token": self._net(per_token, lambda s: s.output_tokens),
            "energy_net_j_per_request": self._net(per_request, lambda _: 1),
            **self._goodput(),
        }

    def _goodput(self) -> dict[str, Metric]:
        """Return requests that met the service level per joule of all requests."""
        good = self._evidence.good
        if good is None:
            return {}
        if any(not any(s.window in good for s in group) for group in self._by_process.values()):
            return {"goodput_requests_per_j": Missing(reason="in one process no request met the limits")}
        return {"goodput_requests_per_j": _inverse(self._per("J", _BOTH, lambda s: s.window in good), "requests/J")}

    def _per(
        self,
        unit: str,
        phases: tuple[WindowPhase, ...],
        amount: Callable[[Sample], float] | None,
        *,
        delay: bool = False,
    ) -> Metric:
        """Return energy of some phases per amount of something (None: seconds): one value a process, then over them."""
        values: list[Part] = []
        for samples in self._by_process.values():
            spent = self._spent(samples, phases)
            if isinstance(spent, str):
                return Missing(reason=spent)
            amounts = self._seconds(samples) if amount is None else sum(amount(s) for s in samples)
            if not amounts:
                return Missing(reason="the requests have none of what this divides by")
            latency = fmean(s.end_s - s.sent_s for s in samples) if delay else 1.0
            values.append(spent.times(latency / amounts))
        return self._over(values, unit)

    def _spent(self, samples: Sequence[Sample], phases: tuple[WindowPhase, ...]) -> Part | str:
        """Return the energy of the requests of one process in these phases; several metrics ask for the same."""
        key = samples[0].process, phases
        if key not in self._known:
            self._known[key] = self._price(samples, phases)
        return self._known[key]

    def _price(self, samples: Sequence[Sample], phases: tuple[WindowPhase, ...]) -> Part | str:
        shared = self._shared(samples)
        if shared and phases != _BOTH:
            return "requests are served in one window, so their phases cannot be told apart"
        if shared:
            parts = self._basis.too_short(shared) or self._basis.price(shared)
            return parts if isinstance(parts, str) else total(parts)
        windows = [w for s in samples for w in self._windows.get(s.window, []) if w.phase in phases]
        # the phases of a request touch, so together they are one window for a sensor
        seen = windows if len(phases) == 1 else [_whole(samples, windows)]
        too_short = self._basis.too_short(seen)
        parts = too_short or self._basis.price(windows)
        return parts if isinstance(parts, str) else total(parts)

    def _shared(self, samples: Sequence[Sample]) -> list[Window]:
        """Return the windows that requests share, each once; none where each has its own."""
        names = dict.fromkeys(s.span for s in samples if isinstance(s.span, str))
        return [w for name in names for w in self._windows.get(name, [])]

    def _seconds(self, samples: Sequence[Sample]) -> float:
        shared = self._shared(samples)
        return sum(w.duration_s for w in shared) if shared else sum(s.end_s - s.start_s for s in samples)

    def _per_prompt_token(self) -> Metric:
        """Return prefill energy per prompt token: from blocks where each process has one, else from requests."""
        blocks = self._evidence.blocks
        if {b.process for b in blocks} < set(self._by_process):
            return self._per("J", ("prefill",), lambda s: s.prompt_tokens)
        by_id = {w.id: w for w in self._evidence.windows}
        clean = [b for b in blocks if by_id[b.window].rejected is None]
        values: list[Part] = []
        # as with requests: where too few are clean all are used, and the check noisy_blocks says so
        for block in clean if len(clean) >= len(self._by_process) else blocks:
            windows = [by_id[block.window]]
            parts = self._basis.too_short(windows) or self._basis.price(windows)
            if isinstance(parts, str):
                return Missing(reason=parts)
            values.append(total(parts).times(1 / block.prompt_tokens))
        return self._over(values, "J")

    def _net(self, gross: Metric, amount: Callable[[Sample], float]) -> Metric:
        """Return energy above idle: gross less idle power, the mean of before and after, times the same seconds.

        One idle reading serves all processes, so it is subtracted once and its errors do not average out.
        """
        idle = idle_watts(self._evidence.idle)
        if not isinstance(self._basis, CounterBasis):
            return Missing(reason="net energy needs a sensor that also reads idle power")
        if isinstance(idle, str) or not isinstance(gross, Energy):
            return Missing(reason=idle if isinstance(idle, str) else "no gross energy to subtract from")
        seconds = fmean(
            self._seconds(samples) / sum(amount(s) for s in samples) for samples in self._by_process.values()
        )
        low, high = gross.systematic
        whole = Part(
            domain="total", joules=Range(low=low, value=gross.value, high=high), random_j=gross.random[1] - gross.value
        )
        net = whole.minus(idle.times(seconds))
        if net.joules.low <= 0:
            watts = idle.joules
            known = f"{watts.low:.3g} to {watts.high:.3g} W"
            return Missing(reason=f"too small to tell from idle, which is known to be {known}")
        spread = net.random_j / net.joules.value
        return self._basis.net(self._basis.energy(net.joules, spread, gross.unit, gross.n, gross.statistic))

    def _over(self, values: Sequence[Part], unit: str) -> Metric:
        from perjoule.stats.intervals import half_width  # noqa: PLC0415 - scipy only where intervals are made

        mean = Range(
            low=fmean(v.joules.low for v in values),
            value=fmean(v.joules.value for v in values),
            high=fmean(v.joules.high for v in values),
        )
        half = half_width([v.joules.value for v in values])
        if not mean.value:
            return Missing(reason="the engine used no energy that this host's meters resolve")
        if half is None:
            return Missing(reason="one process: no spread to judge by")
        readings = math.hypot(*(v.random_j for v in values)) / len(values)
        return self._basis.energy(mean, max(half, readings) / mean.value, unit, len(values), "mean over processes")


def _whole(samples: Sequence[Sample], windows: Sequence[Window]) -> Window:
    """Return one window as long as the requests: they follow each other without a pause that matters."""
    from msgspec.structs import replace  # noqa: PLC0415

    seconds = sum(s.end_s - s.start_s for s in samples)
    return replace(windows[0], end_s=windows[0].start_s + seconds)


def _relative_random(energy: Metric) -> float:
    return (energy.random[1] / energy.value - 1) if isinstance(energy, Energy) and energy.value else 0.0


def _place(sample: Sample) -> str:
    """Return where a sample's energy lies: the window it shares, or the stem of its own two."""
    return sample.span if isinstance(sample.span, str) else sample.window


def _inverse(energy: Metric, unit: str = "tokens/J") -> Metric:
    """Turn joules per token into tokens per joule; the bounds change places."""
    if not isinstance(energy, Energy):
        return energy
    if not energy.low or not energy.systematic[0] or not energy.random[0]:
        return Missing(reason="the joules may be 0, so there is no upper bound")
    return Energy(
        value=1 / energy.value,
        low=1 / (energy.high or energy.value),
        high=1 / energy.low,
        unit=unit,
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


def _nothing(
    reason: str,
    evidence: Evidence,
    domains: tuple[DomainEnergy, ...] = (),
    metrics: dict[str, Metric] | None = None,
) -> Assessment:
    report = EnergyReport(
        headline=None,
        headline_missing=reason,
        domains=domains,
        floor_j=None,
        floor_j_missing=reason,
        ceiling_j=None,
        ceiling_j_missing=reason,
        convention=None,
        convention_missing=reason,
        window_s=sum(w.duration_s for w in evidence.windows),
    )
    names: tuple[str, ...] = ENERGY_METRICS if evidence.good is None else (*ENERGY_METRICS, "goodput_requests_per_j")
    if evidence.waiting:
        names = ("power_w", "idle_power_w")
    found: dict[str, Metric] = metrics or {name: Missing(reason=reason) for name in names}
    found["idle_power_w"] = idle_power(evidence.idle)
    return Assessment(report=report, metrics=found)
