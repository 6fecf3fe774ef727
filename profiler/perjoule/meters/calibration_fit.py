"""The fit behind `perjoule calibrate`: P0 and e from processes whose joules a sensor measured.

Non-negative least squares in relative error. How far the fit is off is measured, not assumed: every model is
predicted once from the others. docs/calibrate.md.
"""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING

from perjoule.errors import InputError
from perjoule.meters.counters import CounterSet
from perjoule.records import LEAST_CONFIGURATIONS, LEAST_MODELS, MOST_ERROR, Calibration, Record
from perjoule.scenario import from_facts
from perjoule.stats.selection import select, stem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perjoule.records import RunResult, Sample

LEAST_SPREAD = 1.25  # of bytes per second, fastest to slowest: nearer, and the two terms are one
_SAME = 1e-6  # relative; sums of the same counts in another order


class Point(Record, frozen=True, kw_only=True):
    """All measured requests of one process: what the sensor said, and what the fit may explain it from."""

    model: str
    configuration: str
    joules: float
    duration_s: float
    streamed_bytes: int
    cpu_s: float

    @property
    def bytes_per_s(self) -> float:
        return self.streamed_bytes / self.duration_s

    @property
    def cores(self) -> float:
        return self.cpu_s / self.duration_s


class Evidence(Record, frozen=True, kw_only=True):
    """What one measured result gives to a fit."""

    points: tuple[Point, ...]
    scope: str
    grade: str
    tolerance_share: float
    simulated: bool


def evidence_of(result: RunResult, source: str) -> Evidence:
    """Return the points of a result, one a process. ``source`` names it in errors.

    Raises ``InputError`` where no sensor measured the headline, or counts, bytes or CPU time are missing.
    """
    headline = result.energy.headline
    if headline is None or headline.label != "measured":
        what = "null" if headline is None else headline.label
        raise InputError(
            f"{source}: its joules are {what}, not measured",
            hint="a fit needs a sensor: `perjoule doctor` says what this machine has and how to allow it",
        )
    samples = select(result.samples, result.windows, from_facts(result.scenario)).samples
    points = tuple(_points(result, samples, source))
    total = sum(p.joules for p in points)
    if not math.isclose(total, headline.value, rel_tol=_SAME):
        raise InputError(
            f"{source}: its domains add up to {total:.6g} J, its headline says {headline.value:.6g} J",
            hint="`perjoule verify` says what does not follow from the samples",
        )
    low, high = headline.systematic
    return Evidence(
        points=points,
        scope=headline.scope,
        grade=headline.grade,
        tolerance_share=max(headline.value - low, high - headline.value) / headline.value,
        simulated=result.host.simulated or any(m.simulated for m in result.meters),
    )


def _points(result: RunResult, samples: Sequence[Sample], source: str) -> Iterable[Point]:
    counters = CounterSet(result.meters, result.meters_refused, result.windows)
    model, backend, used = result.model, result.backend, {s.window for s in samples}
    for process in sorted({s.process for s in samples}):
        windows = [w for w in result.windows if w.process == process and stem(w) in used]
        parts = counters.parts(windows)
        reasons = [parts] if isinstance(parts, str) else []
        if any(w.bytes_streamed is None for w in windows):
            reasons.append("the engine does not say how many bytes it streams")
        if any(w.cpu_s is None for w in windows):
            reasons.append("the engine's CPU time was not read")
        if reasons or isinstance(parts, str):
            raise InputError(f"{source}: {reasons[0]}", hint="leave this result out, or measure it again")
        yield Point(
            model=model.name,
            configuration=f"{model.file_sha256} {model.runtime_quantization} {backend.name} {result.scenario.sha256}"
            f" {backend.effective_options.get('threads')}",
            joules=sum(p.joules.value for p in parts),
            duration_s=sum(w.duration_s for w in windows),
            streamed_bytes=sum(w.bytes_streamed or 0 for w in windows),
            cpu_s=sum(w.cpu_s or 0.0 for w in windows),
        )


def fit(evidence: Sequence[Evidence], *, more: str) -> Calibration:
    """Fit P0 and e to measured processes; every configuration counts the same, in relative error.

    ``more`` is the hint that says how to get further results. Raises ``InputError`` for too few configurations or
    models, more than one scope, loads too much alike, a term that is not positive, or a fit that misses too far.
    """
    scopes = sorted({f"{e.scope} from {e.grade}" for e in evidence})
    if len(scopes) > 1:
        raise InputError(f"the results measure different things: {', '.join(scopes)}", hint="give those of one kind")
    points = [p for e in evidence for p in e.points]
    configurations, models = {p.configuration for p in points}, sorted({p.model for p in points})
    if len(configurations) < LEAST_CONFIGURATIONS or len(models) < LEAST_MODELS:
        raise InputError(
            f"{len(configurations)} configurations of {len(models)} models are too few: at least"
            f" {LEAST_CONFIGURATIONS} configurations of at least {LEAST_MODELS} models are needed",
            hint=more,
        )
    p0_w, e_j_per_byte = _solve(points, "the results", more)
    if not (p0_w > 0 and e_j_per_byte > 0):
        term = "power that is always there" if p0_w <= 0 else "energy per byte"
        raise InputError(f"the fit does not suit this machine: its best {term} is not above 0", hint=more)
    errors = [e for model in models for e in _errors_without(model, points, more)]
    if max(errors) > MOST_ERROR:
        raise InputError(
            f"the fit does not suit this machine: a model left out is missed by {max(errors):.0%}"
            f" (limit {MOST_ERROR:.0%})",
            hint="stop other work on this machine and measure again",
        )
    return Calibration(
        p0_w=p0_w,
        e_j_per_byte=e_j_per_byte,
        error_mean_share=min(fmean(errors), max(errors)),
        error_max_share=max(errors),
        tolerance_share=max(e.tolerance_share for e in evidence),
        low_bytes_per_s=min(p.bytes_per_s for p in points),
        high_bytes_per_s=max(p.bytes_per_s for p in points),
        low_cores=min(p.cores for p in points),
        high_cores=max(p.cores for p in points),
        scope=evidence[0].scope,
        grade=evidence[0].grade,
        points=len(points),
        configurations=len(configurations),
        models=len(models),
        simulated=any(e.simulated for e in evidence),
    )


def _solve(points: Sequence[Point], what: str, more: str) -> tuple[float, float]:
    """Return P0 in W and e in J/byte, neither below 0. Raises ``InputError`` where the loads are too much alike."""
    if any(p.joules <= 0 or p.duration_s <= 0 or p.streamed_bytes <= 0 or p.cpu_s <= 0 for p in points):
        raise InputError(f"{what} hold a process without joules, time, bytes or CPU time", hint="leave it out")
    rates = [p.bytes_per_s for p in points]
    if max(rates) < LEAST_SPREAD * min(rates):
        raise InputError(
            f"{what} stream {min(rates) / 1e9:.3g}-{max(rates) / 1e9:.3g} GB/s: too much alike to tell power that is"
            " always there from energy per byte",
            hint=more,
        )
    import numpy as np  # noqa: PLC0415 - heavy; only `perjoule calibrate` fits
    from scipy.optimize import nnls  # noqa: PLC0415

    counts = {p.configuration: sum(q.configuration == p.configuration for q in points) for p in points}
    weights = np.array([1 / math.sqrt(counts[p.configuration]) for p in points])
    rows = np.array([[p.duration_s / p.joules, p.streamed_bytes / p.joules] for p in points]) * weights[:, None]
    scale = np.linalg.norm(rows, axis=0)  # seconds and bytes are ten orders of magnitude apart
    solution, _residual = nnls(rows / scale, weights)
    return float(solution[0] / scale[0]), float(solution[1] / scale[1])


def _errors_without(model: str, points: Sequence[Point], more: str) -> list[float]:
    """Predict each configuration of a model from all other models; return the relative errors."""
    others = [p for p in points if p.model != model]
    p0_w, e_j_per_byte = _solve(others, f"without {model}, the results", more)
    errors = []
    for configuration in sorted({p.configuration for p in points if p.model == model}):
        mine = [p for p in points if p.configuration == configuration]
        told = sum(p0_w * p.duration_s + e_j_per_byte * p.streamed_bytes for p in mine)
        errors.append(abs(told / sum(p.joules for p in mine) - 1))
    return errors
