"""Machines that measure as the recorded ones do, with a known truth; fitted to the traces in tests/noise.

A machine of a kind and a between-process spread gives the per-process medians that a run would have seen, many seeds at
a time. The truth is the long-run mean of what is reported on that machine: the mean, over processes without end, of the
median of the undisturbed requests of a process, at its settled level. Under a drift there is no long run: the truth
is the mean level over the processes that were measured, once their chance differences are averaged out. What
disturbs a request unnoticed (the tails of undisturbed requests in the traces) is part of the machine, and of the truth.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import lfilter
from scipy.special import ndtri

from perjoule.stats.steady import ABSOLUTE_TOLERANCE_S, DESCENT, RELATIVE_TOLERANCE

FOLDER = Path(__file__).parent / "noise"
UNDISTURBED = ("quiet", "shared")  # traces of a machine on which we started nothing else
METRICS = ("ttft_s", "tpot_s")
KINDS = (
    "plain", "drift", "bursts", "bimodal processes", "warm-up ramps", "steep ramps", "correlated processes",
    "correlated requests", "all at once", "noisy host",
)  # fmt: skip
MEASURED, TRIES = 3, 6  # requests a process, and how many are tried for them (perjoule.drive.requests)
DRIFT = 2.0  # rise over the time budget, in between-process spreads
STEEP = (0.5, 0.5)  # first excess and what is left of it a request later: an engine that allocates lazily (a judgement)
_SHARES = np.concatenate([[0.002], np.arange(0.01, 1.0, 0.01), [0.998]])

Array = Any  # numpy arrays of floats, seeds by processes


@dataclass(frozen=True)
class Noise:
    """What the traces show; quantiles are of logs, at ``_SHARES``. Lag-1 correlations have their bias taken out."""

    within: Array  # an undisturbed request over its process' median
    within_spread: float
    within_lag1: float
    between_spread: float
    between_lag1: float
    slow_share: float  # of processes in the slower of two modes, and the gap between modes over the spread in one
    gap: float
    ramp_excess: float  # of the first request over the settled level, and what is left of it one request later
    ramp_left: float
    disturbed_share: float
    disturbed_length: float  # requests in a row
    disturbed: Array  # a disturbed request over the median of the undisturbed ones
    noisy_share: float  # of disturbed requests where another process is busy, and how many in a row
    noisy_length: float
    load_s: float
    request_s: float


def fit(folder: Path = FOLDER) -> Noise:
    """Fit the noise to the recorded traces."""
    traces = {n: json.loads((folder / f"{n}.json").read_text())["processes"] for n in (*UNDISTURBED, "noisy")}
    calm = [(traces[n], m) for n in UNDISTURBED for m in METRICS]
    within = np.concatenate([_residuals(p, m) for ps, m in calm for p in ps])
    levels = [np.log([np.median(_settled(p, m)) for p in ps]) for ps, m in calm]
    states = [np.array(p["disturbed"]) for n in UNDISTURBED for p in traces[n]]
    modes = [_modes(np.log([np.median(_settled(p, "ttft_s")) for p in traces[n]])) for n in UNDISTURBED]
    shares, gaps = zip(*modes, strict=True)
    excess = np.mean([_ramp(ps, m) for ps, m in calm], axis=0)
    first = max(float(excess[0]), 1e-6)
    pauses = [b["start_s"][0] - a["start_s"][-1] for n in UNDISTURBED for a, b in pairwise(traces[n])]
    steps = np.concatenate([np.diff(p["start_s"]) for n in UNDISTURBED for p in traces[n]])
    return Noise(
        within=np.quantile(within, _SHARES), within_spread=float(within.std()),
        within_lag1=float(np.mean([_lag1(np.log(_settled(p, m))) for ps, m in calm for p in ps])),
        between_spread=float(np.mean([x.std(ddof=1) for x in levels])),
        between_lag1=float(np.mean([_lag1(x) for x in levels])),
        slow_share=float(np.mean(shares)), gap=float(np.mean(gaps)),
        ramp_excess=first, ramp_left=float(np.clip(excess[1:4].sum() / max(excess[:3].sum(), 1e-6), 0, 0.9)),
        disturbed_share=float(np.concatenate(states).mean()), disturbed_length=_run_length(states),
        disturbed=np.quantile(np.concatenate([_disturbed(p, m) for ps in traces.values() for p in ps for m in METRICS]),
                              _SHARES),
        noisy_share=float(np.concatenate([p["disturbed"] for p in traces["noisy"]]).mean()),
        noisy_length=_run_length([np.array(p["disturbed"]) for p in traces["noisy"]]),
        request_s=float(np.median(steps)), load_s=float(np.median(pauses) - np.median(steps)),
    )  # fmt: skip


def _settled(process: dict[str, Any], metric: str) -> Array:
    return np.array(process[metric])[~np.array(process["warmup"])]


def _clean(process: dict[str, Any], metric: str) -> Array:
    return np.array(process[metric])[~np.array(process["warmup"]) & ~np.array(process["disturbed"])]


def _residuals(process: dict[str, Any], metric: str) -> Array:
    clean = _clean(process, metric)
    return np.log(clean / np.median(clean)) if len(clean) > 3 else np.empty(0)


def _disturbed(process: dict[str, Any], metric: str) -> Array:
    clean = _clean(process, metric)
    values = np.array(process[metric])[~np.array(process["warmup"]) & np.array(process["disturbed"])]
    return np.log(values / np.median(clean)) if len(clean) > 3 else np.empty(0)


def _lag1(values: Array) -> float:
    off = values - values.mean()
    seen = float((off[1:] * off[:-1]).sum() / (off * off).sum())
    return seen + (1 + 3 * seen) / len(values)


def _modes(logs: Array) -> tuple[float, float]:
    """Split where two means fit best; return the share of the upper mode, and the gap over the spread in a mode."""
    ordered = np.sort(logs)
    halves = [(ordered[:i], ordered[i:]) for i in range(3, len(ordered) - 2)]
    low, high = min(halves, key=lambda h: h[0].var() * len(h[0]) + h[1].var() * len(h[1]))
    inner = np.sqrt((low.var() * len(low) + high.var() * len(high)) / len(ordered))
    return len(high) / len(ordered), float((high.mean() - low.mean()) / inner)


def _ramp(processes: list[dict[str, Any]], metric: str) -> Array:
    """Return by how much each of the first requests is over the settled level, the median over processes."""
    return np.median([np.array(p[metric][:8]) / np.median(_settled(p, metric)) for p in processes], axis=0) - 1


def _run_length(states: list[Array]) -> float:
    ends = sum(int((s[:-1] & ~s[1:]).sum()) for s in states)
    return sum(int(s[:-1].sum()) for s in states) / ends


@dataclass(frozen=True)
class Runs:
    """``values``: the median of each process, NaN without an undisturbed request; ``busy_s`` what a process took.

    ``truth`` of a run that ends after a process; all are seeds by processes. ``restless``: not steady after warm-up.
    ``falls``: log of the first measured request over the third.
    """

    values: Array
    busy_s: Array
    truth: Array
    restless: Array
    falls: Array


@dataclass(frozen=True)
class Machine:
    """``spread``: standard deviation of the log of the level between processes."""

    kind: str
    spread: float
    noise: Noise
    max_warmup: int = 4  # requests, the cold one among them
    agree_only: bool = False  # warm-up ends once two requests agree, falling or not

    @property
    def least_process_s(self) -> float:
        return self.noise.load_s + (MEASURED + min(3, self.max_warmup)) * self.noise.request_s

    def mean_median(self, processes: int = 200_000) -> float:
        """Return the long-run mean of a process' median over its level, at its settled level."""
        medians = [_medians(self._requests(np.random.default_rng([99, i]), (1, processes // 10), ramp=False), self)[0]
                   for i in range(10)]  # fmt: skip
        return float(np.nanmean(np.concatenate(medians)))

    def runs(self, rng: np.random.Generator, seeds: int, processes: int, horizon: int, median: float) -> Runs:
        """Simulate; ``horizon`` is how many processes the budget allows, over which a drift rises by ``DRIFT``."""
        shape = (seeds, processes)
        logs, mean = self._levels(rng, shape)
        drift = np.ones(processes)
        if self.kind == "drift":
            drift += DRIFT * self.spread * np.arange(processes) / horizon
        medians, used, restless, falls = _medians(self._requests(rng, shape, ramp=True), self)
        so_far = np.cumsum(drift) / np.arange(1, processes + 1)
        return Runs(
            values=np.exp(logs) * drift * medians, busy_s=self.noise.load_s + used * self.noise.request_s,
            truth=np.broadcast_to(mean * median * so_far, shape), restless=restless, falls=falls,
        )  # fmt: skip

    def requests(self, rng: np.random.Generator, seeds: int, processes: int, each: int) -> Array:
        """Return settled requests, seeds by processes by requests."""
        logs, _ = self._levels(rng, (seeds, processes))
        z = rng.standard_normal((seeds, processes, each))
        return np.exp(logs[..., None] + np.interp(z, ndtri(_SHARES), self.noise.within))

    def _levels(self, rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, float]:
        """Return logs of the levels, and the long-run mean of the levels."""
        z, spread = rng.standard_normal(shape), self.spread
        if self.kind in {"correlated processes", "all at once"}:
            rho = self.noise.between_lag1
            z[:, 1:] *= np.sqrt(1 - rho**2)
            z = lfilter([1.0], [1.0, -rho], z, axis=1)
        if self.kind != "bimodal processes":
            return spread * z, float(np.exp(spread**2 / 2))
        share, gap = self.noise.slow_share, self.noise.gap
        inner = spread / np.sqrt(1 + share * (1 - share) * gap**2)
        slow = rng.random(shape) < share
        mean = ((1 - share) + share * np.exp(gap * inner)) * np.exp(inner**2 / 2)
        return inner * z + np.where(slow, gap * inner, 0.0), float(mean)

    def _requests(self, rng: np.random.Generator, shape: tuple[int, int], *, ramp: bool) -> tuple[Array, Array]:
        """Return requests over their process' level, the cold one first, and which are disturbed."""
        noise, count = self.noise, self.max_warmup + TRIES
        z = rng.standard_normal((*shape, count))
        if self.kind in {"correlated requests", "all at once"}:
            for i in range(1, count):
                z[..., i] = noise.within_lag1 * z[..., i - 1] + np.sqrt(1 - noise.within_lag1**2) * z[..., i]
        logs = np.interp(z, ndtri(_SHARES), noise.within)
        disturbed = np.zeros(logs.shape, dtype=bool)
        if self.kind in {"bursts", "all at once", "noisy host"}:
            disturbed = self._disturbed(rng, logs.shape)
            size = np.interp(rng.standard_normal(int(disturbed.sum())), ndtri(_SHARES), noise.disturbed)
            logs[disturbed] = size
        excess, left = STEEP if self.kind == "steep ramps" else (noise.ramp_excess, noise.ramp_left)
        over = excess * left ** np.arange(count)
        ramps = ramp and self.kind in {"warm-up ramps", "steep ramps", "all at once"}
        return np.exp(logs) * (1 + over if ramps else 1.0), disturbed

    def _disturbed(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Return a two-state Markov chain along the last axis, with the share and length of the traces."""
        share, length = self.noise.disturbed_share, self.noise.disturbed_length
        if self.kind == "noisy host":
            share, length = self.noise.noisy_share, self.noise.noisy_length
        end = 1 / length
        begin = min(1.0, end * share / (1 - share))
        draw = rng.random(shape)
        state = draw < share
        for i in range(1, shape[-1]):
            state[..., i] = np.where(state[..., i - 1], draw[..., i] >= end, draw[..., i] < begin)
        return state


def settled_at(durations_s: Array, *, agree_only: bool = False) -> tuple[Array, Array]:
    """Return after how many durations warm-up ends, and whether it was steady: is_steady, many series at a time."""
    before, last = durations_s[..., :-1], durations_s[..., 1:]
    near = np.maximum(ABSOLUTE_TOLERANCE_S, RELATIVE_TOLERANCE * np.minimum(before, last))
    falls = before - last > np.maximum(ABSOLUTE_TOLERANCE_S, DESCENT * last)
    broken = ~falls
    broken[..., 1:] |= ~falls[..., :-1]
    steady = (np.abs(last - before) <= near) & (broken | agree_only)
    found = steady.any(axis=-1)
    return np.where(found, steady.argmax(axis=-1) + 2, durations_s.shape[-1]), found


def _medians(requests: tuple[Array, Array], machine: Machine) -> tuple[Array, Array, Array, Array]:
    """Return the median of each process' undisturbed requests, its requests, whether it was restless, and its fall."""
    values, disturbed = requests
    warm, steady = settled_at(values[..., 1 : machine.max_warmup], agree_only=machine.agree_only)
    index = 1 + warm[..., None] + np.arange(TRIES)
    measured = np.take_along_axis(values, index, axis=-1)
    clean = ~np.take_along_axis(disturbed, index, axis=-1)
    rank = np.cumsum(clean, axis=-1)
    kept = np.sort(np.where(clean & (rank <= MEASURED), measured, np.inf), axis=-1)
    count = np.minimum(rank[..., -1], MEASURED)
    with np.errstate(invalid="ignore"):
        median = np.where(
            count == 3, kept[..., 1], np.where(count == 2, (kept[..., 0] + kept[..., 1]) / 2, kept[..., 0])
        )
    tries = np.where(rank[..., -1] >= MEASURED, (rank < MEASURED).sum(axis=-1) + 1, TRIES)
    return (
        np.where(count > 0, median, np.nan),
        1 + warm + tries,
        ~steady,
        np.log(measured[..., 0] / measured[..., MEASURED - 1]),
    )
