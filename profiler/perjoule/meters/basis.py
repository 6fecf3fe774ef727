"""How joules are had on a host: from its counters, from a calibrated or a general model, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from perjoule.meters.calibration import CalibratedModel
from perjoule.meters.coefficients import analytic_floor_j
from perjoule.meters.counters import CounterSet, tolerance_of
from perjoule.meters.model import host_model
from perjoule.records import Energy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.meters.amounts import Part, Range
    from perjoule.records import Convention, HostFacts, Label, MeterFact, MeterRefusal, RunSettings, Window

_INTERVAL = "95 % t over processes, times the systematic range"
_WITH_BOARDS = frozenset({"gpu", "module", "chassis", "battery", "wall"})
_WITH_MEMORY = frozenset({"dram", "module", "chassis", "battery", "wall"})
TDP_FACTOR = 1.6  # the highest power of a package against its TDP: turbo limits stay below


class PowerModel(Protocol):
    """What a model of a host answers. ``parts`` gives joules per domain over windows, or why there are none."""

    @property
    def grade(self) -> str: ...
    @property
    def scope(self) -> str: ...
    @property
    def label(self) -> Label: ...
    @property
    def convention(self) -> Convention: ...
    def parts(self, windows: Sequence[Window]) -> list[Part] | str: ...
    def outside(self, windows: Sequence[Window]) -> list[Part]: ...
    def floor_j(self, windows: Sequence[Window], macs: int = 0) -> float | None: ...
    def ceiling_j(self, windows: Sequence[Window]) -> float | None: ...


class Basis:
    """One way to joules, with the label, grade, scope and convention that every figure from it carries."""

    def __init__(self, label: Label, grade: str, scope: str, convention: Convention) -> None:
        self.label, self.grade, self.scope, self.convention = label, grade, scope, convention

    def price(self, windows: Sequence[Window]) -> list[Part] | str:
        """Return joules of each part of the total over windows, or why there are none."""
        raise NotImplementedError

    def every(self, windows: Sequence[Window]) -> list[tuple[str, Part | str, str]]:
        """Return every domain, its joules or the reason, and why it is not in the total."""
        raise NotImplementedError

    def too_short(self, windows: Sequence[Window]) -> str:
        """Return why the windows are too short to be priced; empty where they are not."""
        del windows
        return ""

    def outside(self, windows: Sequence[Window]) -> list[Part]:
        """Return modelled parts that the headline leaves out."""
        del windows
        return []

    def floor_j(self, windows: Sequence[Window], macs: int) -> float | None:
        del windows, macs
        return None

    def ceiling_j(self, windows: Sequence[Window]) -> float | None:
        del windows
        return None

    def of_domain(self, energy: Energy, domain: str) -> Energy:
        """Return the energy of one domain with its own scope and grade."""
        return replace(energy, scope=domain)

    def net(self, energy: Energy) -> Energy:
        return replace(energy, convention="net")

    def energy(self, value: Range, spread: float, unit: str, n: int, statistic: str) -> Energy:
        """Combine a systematic range with a relative half-width ``spread`` of random parts.

        Bounds multiply corner by corner; a difference that may be nothing (net energy) has them added instead.
        """
        factors = value.low > 0 and spread < 1
        low = value.low * (1 - spread) if factors else value.low - value.value * spread
        return Energy(
            value=value.value,
            low=max(0.0, low),
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
            systematic=(max(0.0, value.low), value.high),
        )


class CounterBasis(Basis):
    """Sensors. Nothing modelled enters the total."""

    def __init__(self, counters: CounterSet, tdp_w: float | None, *, cached: bool) -> None:
        super().__init__("measured", counters.grade, counters.scope, "gross")
        self.counters = counters
        self._tdp_w, self._cached = tdp_w, cached

    def price(self, windows: Sequence[Window]) -> list[Part] | str:
        return self.counters.parts(windows)

    def every(self, windows: Sequence[Window]) -> list[tuple[str, Part | str, str]]:
        return [(meter.domain, part, why) for meter, part, why in self.counters.every(windows)]

    def too_short(self, windows: Sequence[Window]) -> str:
        return self.counters.too_short(windows)

    def floor_j(self, windows: Sequence[Window], macs: int) -> float | None:
        """Return what the arithmetic must cost, and moving the bytes where the memory is in the scope."""
        memory = not self._cached and _WITH_MEMORY & {m.scope for m in self.counters.counted}
        return analytic_floor_j(sum(w.bytes_streamed or 0 for w in windows) if memory else 0, macs)

    def ceiling_j(self, windows: Sequence[Window]) -> float | None:
        """Return the TDP the user gave for all packages, times 1.6; other scopes have no known limit."""
        packages = [m for m in self.counters.counted if m.scope == "package"]
        if self._tdp_w is None or len(packages) != len(self.counters.counted):
            return None
        return TDP_FACTOR * self._tdp_w * sum(w.duration_s for w in windows)

    def of_domain(self, energy: Energy, domain: str) -> Energy:
        facts = {m.domain: m for m in (*self.counters.counted, *self.counters.others)}
        return _measured(energy, facts[domain])


class ModelBasis(Basis):
    """A model: its label says so in every figure."""

    def __init__(self, model: PowerModel, beside: CounterSet, why: str) -> None:
        super().__init__(model.label, model.grade, model.scope, model.convention)
        self.model, self._beside, self._why = model, beside, why

    def price(self, windows: Sequence[Window]) -> list[Part] | str:
        return self.model.parts(windows)

    def every(self, windows: Sequence[Window]) -> list[tuple[str, Part | str, str]]:
        parts = self.model.parts(windows)
        modelled = [] if isinstance(parts, str) else [(p.domain, p, p.note or "") for p in parts]
        return modelled + [(m.domain, p, f"not the total: {self._why}") for m, p, _ in self._beside.every(windows)]

    def of_domain(self, energy: Energy, domain: str) -> Energy:
        facts = {m.domain: m for m in (*self._beside.counted, *self._beside.others)}
        return _measured(energy, facts[domain]) if domain in facts else replace(energy, scope=domain)

    def outside(self, windows: Sequence[Window]) -> list[Part]:
        return self.model.outside(windows)

    def floor_j(self, windows: Sequence[Window], macs: int) -> float | None:
        return self.model.floor_j(windows, macs)

    def ceiling_j(self, windows: Sequence[Window]) -> float | None:
        return self.model.ceiling_j(windows)


class WithoutTotal(Basis):
    """What can be read and is not all that the engine drew: domains are told, and no total is made of them."""

    def __init__(self, basis: Basis, why: str) -> None:
        super().__init__(basis.label, basis.grade, basis.scope, basis.convention)
        self._basis, self._why = basis, why

    def price(self, windows: Sequence[Window]) -> list[Part] | str:
        del windows
        return self._why

    def every(self, windows: Sequence[Window]) -> list[tuple[str, Part | str, str]]:
        note = f"not the total: {self._why}"
        return [(domain, part, said or note) for domain, part, said in self._basis.every(windows)]

    def of_domain(self, energy: Energy, domain: str) -> Energy:
        return self._basis.of_domain(energy, domain)


def covering(basis: Basis, device: str) -> Basis:
    """Return the basis; for an engine on a board that it leaves out, one that makes no total.

    Models are of the processor and its memory. Boards are summed all or none, so that one of them stands for all.
    """
    if not device.startswith("cuda"):
        return basis
    if isinstance(basis, CounterBasis) and _WITH_BOARDS & {fact.scope for fact in basis.counters.counted}:
        return basis
    return WithoutTotal(basis, f"the engine ran on {device}, and what is known here is of {basis.scope} alone")


def choose(
    meters: Sequence[MeterFact],
    refused: Sequence[MeterRefusal],
    run: Sequence[Window],
    host: HostFacts,
    weights_bytes: int,
    settings: RunSettings,
) -> Basis | str:
    """Return the best basis this host has: sensors of its whole, else a model; or why there is none."""
    counters = CounterSet(meters, refused, run)
    why = counters.incomplete() or ""
    if counters.counted and not why:
        largest_cache = max((c.size_bytes for c in host.cpu.caches), default=0)
        return CounterBasis(counters, settings.tdp_w, cached=weights_bytes <= largest_cache)
    if settings.calibration is not None:
        return ModelBasis(CalibratedModel(settings.calibration), counters, why)
    model = host_model(host, weights_bytes, settings.tdp_w)
    if isinstance(model, str):
        return f"{why}; {model}" if counters.counted else model
    return ModelBasis(model, counters, why)


def _measured(energy: Energy, fact: MeterFact) -> Energy:
    """Return the energy of one metered domain, with its own scope, grade, label and tolerance."""
    tolerance = tolerance_of(fact)
    bounds = (energy.value * max(0.0, 1 - tolerance), energy.value * (1 + tolerance))
    return replace(energy, scope=fact.scope, grade=fact.grade, label=fact.label, convention="gross", systematic=bounds)
