"""How often intervals hold the truth: simulated machines, fitted to recorded noise, with the rules of a run.

Each run adds processes as perjoule does, until the interval meets its target or the next process would not fit into
the time budget. "decided" runs met their target; "too noisy" ones spent the budget, or had too few undisturbed
requests. What is the truth of a machine is said in tests/simulated_machines.py. Plain Student t is what the
same rule gives without the widening of perjoule.stats.widening.

    python benchmarks/coverage.py [--seeds 2000] [--part coverage|pairs|percentiles|warm-up|drift]
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import simulated_machines as sim

from perjoule.records import Missing
from perjoule.stats.intervals import pooled_percentile
from perjoule.stats.paired import PRIMARY, compare_pairs, compare_separate, least_pairs
from perjoule.stats.trend import leftover_ramp, trend
from perjoule.stats.widening import widened_half_width

SPREADS = (0.02, 0.05, 0.12)
CHANGED = "energy_j_per_output_token"
DECIDED = {"better", "worse"}
CHUNK = 50  # seeds at a time
FEW = 0.5  # decided runs; below it the budget rules the target out on that machine
EFFECTS = (1.02, 1.05, 1.2)  # true ratios of one metric of the family
Array = Any


@dataclass(frozen=True)
class Rigor:
    """As in perjoule.scenario."""

    name: str
    min_processes: int
    half_width: float
    budget_s: float


RIGORS = (Rigor("quick", 5, 0.05, 60.0), Rigor("standard", 8, 0.02, 600.0), Rigor("strict", 12, 0.01, 3600.0))


def plain_t(n: Array, stdev: Array, _lag1: Array) -> Array:
    return stdtrit(n - 1, 0.975) * stdev / np.sqrt(n)


METHODS = {"widened": widened_half_width, "plain t": plain_t}


@dataclass(frozen=True)
class Outcome:
    """One value a run. ``processes``: all that ran."""

    decided: Array
    covered: Array
    processes: Array

    def joined(self, other: Outcome) -> Outcome:
        return Outcome(*(np.concatenate([getattr(self, f), getattr(other, f)]) for f in self.__dataclass_fields__))


def moments(values: Array) -> tuple[Array, Array, Array, Array]:
    """Return count, mean, standard deviation and lag-1 correlation after each process; NaN values do not count."""
    here = ~np.isnan(values)
    # shifted, so that sums of squares keep their digits
    first = np.nansum(values, axis=1, keepdims=True) / np.maximum(here.sum(axis=1, keepdims=True), 1)
    y = np.where(here, values - first, 0.0)
    place = np.maximum.accumulate(np.where(here, np.arange(values.shape[1]), -1), axis=1)
    earlier = np.pad(place[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    before = np.where(here & (earlier >= 0), np.take_along_axis(y, np.maximum(earlier, 0), axis=1), 0.0)
    n, total, square = here.cumsum(1), y.cumsum(1), (y * y).cumsum(1)
    count = np.maximum(n, 1)
    mean = total / count
    left = np.maximum(square - count * mean**2, 1e-300)
    start = np.take_along_axis(y, here.argmax(1)[:, None], axis=1)
    last = np.take_along_axis(y, np.maximum(place, 0), axis=1)
    product = (y * before).cumsum(1) - mean * (total - last) - mean * (total - start) + (count - 1) * mean**2
    return n, mean + first, np.sqrt(left / np.maximum(count - 1, 1)), product / left


def outcome(runs: sim.Runs, rigor: Rigor, method: Any) -> tuple[Outcome, Array]:
    """Apply the stopping rule of perjoule.stats.sequential; also say which runs had not ended with the last process."""
    n, mean, stdev, lag1 = moments(runs.values)
    half = method(np.maximum(n, 2), stdev, lag1)
    done = np.arange(1, n.shape[1] + 1)
    enough = (done >= rigor.min_processes) & (n >= rigor.min_processes)
    reached = enough & (half <= rigor.half_width * mean)
    spent = (done >= rigor.min_processes) & (runs.busy_s.cumsum(1) * (done + 1) / done > rigor.budget_s)
    stops = reached | spent
    at = np.where(stops.any(1), stops.argmax(1), n.shape[1] - 1)[:, None]
    pick = lambda a: np.take_along_axis(a, at, axis=1)[:, 0]  # noqa: E731
    covered = np.abs(pick(mean) - pick(np.asarray(runs.truth))) <= pick(half)
    return Outcome(decided=pick(reached), covered=covered, processes=at[:, 0] + 1), ~stops.any(1)


def horizon(machine: sim.Machine, rigor: Rigor) -> int:
    """Return the most processes that the budget allows."""
    return max(rigor.min_processes, math.ceil(rigor.budget_s / machine.least_process_s))


def likely(machine: sim.Machine, rigor: Rigor, most: int) -> int:
    """Return a number of processes that nearly all runs stay below; those that do not are simulated to the end."""
    spread = math.hypot(machine.spread, 0.6 * machine.noise.within_spread)
    return min(most, max(80, math.ceil(2.5 * (2.2 * spread / rigor.half_width) ** 2)))


def simulate(machine: sim.Machine, rigor: Rigor, seeds: int, median: float, seed: int = 1) -> dict[str, Outcome]:
    """Return the outcomes of ``seeds`` runs of each method; both see the same runs."""
    most = horizon(machine, rigor)
    found: dict[str, Outcome] = {}
    for start in range(0, seeds, CHUNK):
        size = min(CHUNK, seeds - start)
        key = [seed, start, sim.KINDS.index(machine.kind), round(machine.spread * 1000)]
        runs = machine.runs(np.random.default_rng(key), size, likely(machine, rigor, most), most, median)
        ends = {name: outcome(runs, rigor, m) for name, m in METHODS.items()}
        if any(open_.any() for _, open_ in ends.values()):
            runs = machine.runs(np.random.default_rng(key), size, most, most, median)
            ends = {name: outcome(runs, rigor, m) for name, m in METHODS.items()}
        for name, (result, _) in ends.items():
            found[name] = found[name].joined(result) if name in found else result
    return found


def share(hits: Array) -> str:
    return f"{100 * hits.mean():5.1f}" if len(hits) else "    -"


def coverage_table(noise: sim.Noise, seeds: int) -> None:
    print(
        f"\nCoverage of 95 % intervals after the stopping rule, {seeds} runs a cell (2,000: standard error 0.5 points)"
    )
    print("decided: share that met the target. (few): not half of them, so that the decided are the lucky ones")
    print(f"{'':9}{'':22}{'spread':>7}  {'decided':>8} {'covers':>7} | {'too noisy: covers':>17} | {'decided':>8} "
          f"{'processes':>10} | plain t: {'covers':>6} {'processes':>9}")  # fmt: skip
    print(f"{'rigor':9}{'machine':22}{'%':>7}  {'%':>8} {'%':>7} | {'%':>17} | {'+ wrong':>8} {'mean':>10} |")
    outside = []
    for kind in sim.KINDS:
        median = sim.Machine(kind, 0.0, noise).mean_median()
        for rigor in RIGORS:
            for spread in SPREADS:
                ends = simulate(sim.Machine(kind, spread, noise), rigor, seeds, median)
                wide, plain = ends["widened"], ends["plain t"]
                covers, decided = wide.covered[wide.decided], wide.decided.mean()
                note = " (few)" if decided < FEW else ""
                if decided >= FEW and not 0.92 <= covers.mean() <= 0.98:
                    outside.append(f"{rigor.name}, {kind}, {spread:.0%}: {covers.mean():.1%}")
                print(
                    f"{rigor.name:9}{kind:22}{100 * spread:7.0f}  {100 * decided:8.1f} {share(covers):>7} | "
                    f"{share(wide.covered[~wide.decided]):>17} | {share(wide.decided & ~wide.covered):>8} "
                    f"{wide.processes.mean():10.1f} | {'':9}{share(plain.covered[plain.decided]):>6} "
                    f"{plain.processes.mean():9.1f}{note}", flush=True,
                )  # fmt: skip
    print("outside 92 to 98 %, of cells where at least half decided:", "; ".join(outside) or "none")


def pair_values(machine: sim.Machine, rng: np.random.Generator, pairs: int, median: float) -> dict[str, Array]:
    """Return values of one seed and four independent metrics: pairs by (baseline, candidate), interleaved at random."""
    runs = machine.runs(rng, len(PRIMARY), 2 * pairs, 2 * pairs, median)
    memory = 1 + 0.001 * rng.standard_normal(2 * pairs)
    found = {}
    swap = rng.random(pairs) < 0.5
    for name, values in zip(PRIMARY, np.where(np.isnan(runs.values), median, runs.values), strict=True):
        both = (memory if name == "peak_memory_bytes" else values).reshape(pairs, 2)
        found[name] = np.where(swap[:, None], both[:, ::-1], both)
    return found


def stop_pairs(values: dict[str, Array], half_width: float) -> tuple[int, bool]:
    """Return after how many pairs perjoule.stats.sequential.enough_pairs stops, and whether the target was met."""
    n, _, stdev, lag1 = moments(np.log([v[:, 1] / v[:, 0] for v in values.values()]))
    half = np.expm1(widened_half_width(np.maximum(n, 2), stdev, lag1, 0.0)).max(axis=0)
    met = (half <= half_width) & (n[0] >= least_pairs(len(values)))
    return (int(met.argmax()) + 1, True) if met.any() else (len(met), False)


def pairs_table(noise: sim.Noise, seeds: int) -> None:
    print(
        f"\nComparisons, {seeds} runs a cell: pairs until ratios are within 2 %, at most 150; Holm over {len(PRIMARY)}"
    )
    print(
        "false: better or worse of a metric without a difference, or the wrong way; found: of runs that met the target"
    )
    heads = "".join(f"{f'x{ratio:g} false %':>15} {'found %':>12}" for ratio in EFFECTS)
    print(f"{'machine':22}{'spread %':>9} {'pairs':>7} {'met target %':>13} {'x1 false %':>11} {heads} "
          f"{'separate runs: x1 false %':>26}")  # fmt: skip
    for kind in ("plain", "drift", "bimodal processes", "correlated processes", "all at once"):
        median = sim.Machine(kind, 0.0, noise).mean_median()
        for spread in SPREADS:
            rows = [_pair_run(sim.Machine(kind, spread, noise), seed, median) for seed in range(seeds)]
            used, met, alarm, separate, wrong, found = (np.array(column) for column in zip(*rows, strict=True))
            effects = "".join(
                f"{100 * wrong[:, i].mean():15.1f} {share(found[met, i]):>12}" for i in range(len(EFFECTS))
            )
            print(
                f"{kind:22}{100 * spread:9.0f} {used.mean():7.1f} {100 * met.mean():13.1f} {100 * alarm.mean():11.1f} "
                f"{effects} {100 * separate.mean():26.1f}",
                flush=True,
            )


def _pair_run(
    machine: sim.Machine, seed: int, median: float
) -> tuple[int, bool, bool, bool, tuple[bool, ...], tuple[bool, ...]]:
    """Return pairs used, target met, false alarm in turns and apart, then false verdicts and power by ``EFFECTS``."""
    rng = np.random.default_rng([7, seed])
    values = pair_values(machine, rng, 150, median)
    used, met = stop_pairs(values, 0.02)
    same = {m: (v[:used, 0].tolist(), v[:used, 1].tolist()) for m, v in values.items()}
    alarm = any(c.verdict in DECIDED for c in compare_pairs(same).values())
    wrong, found = zip(*(_changed(same, ratio) for ratio in EFFECTS), strict=True)
    other = pair_values(machine, rng, 150, median)
    apart = {m: (v[:used].ravel()[:used].tolist(), other[m].ravel()[:used].tolist()) for m, v in values.items()}
    separate = any(c.verdict in DECIDED for c in compare_separate(apart).values())
    return used, met, alarm, separate, wrong, found


def _changed(same: dict[str, tuple[list[float], list[float]]], ratio: float) -> tuple[bool, bool]:
    """Return whether any verdict is false, and whether a metric that truly is ``ratio`` times as much is found."""
    values = {m: (a, [ratio * x for x in b] if m == CHANGED else b) for m, (a, b) in same.items()}
    verdicts = {m: c.verdict for m, c in compare_pairs(values).items()}
    return (
        any(v in DECIDED and not (m == CHANGED and v == "worse") for m, v in verdicts.items()),
        verdicts[CHANGED] == "worse",
    )


def percentiles_table(noise: sim.Noise, seeds: int) -> None:
    print(f"\nBounds of a percentile over requests, {seeds} runs a cell; no stopping rule looks at them")
    print(
        f"{'machine':22}{'spread %':>9} {'processes':>10} {'requests':>9} {'covers %':>9} "
        f"{'bootstrap percentiles %':>24}"
    )
    for kind in ("plain", "bimodal processes", "correlated processes"):
        for spread in SPREADS:
            for processes, requests in ((8, 5), (20, 5), (40, 5)):
                rows = _percentile_runs(sim.Machine(kind, spread, noise), processes, requests, seeds)
                ours, plain = np.mean(rows, axis=0)
                print(f"{kind:22}{100 * spread:9.0f} {processes:10} {requests:9} {100 * ours:9.1f} {100 * plain:24.1f}",
                      flush=True)  # fmt: skip


def _percentile_runs(machine: sim.Machine, processes: int, requests: int, seeds: int) -> list[tuple[bool, bool]]:
    rng = np.random.default_rng([8, processes])
    truth = float(np.quantile(machine.requests(rng, 1, 100_000, requests), 0.9))
    rows = []
    for groups in machine.requests(rng, seeds, processes, requests):
        bounds = pooled_percentile(groups.tolist(), 0.9, unit="s")
        if isinstance(bounds, Missing) or bounds.low is None or bounds.high is None:
            raise TypeError("there are enough processes and requests for bounds")
        again = groups[rng.integers(0, processes, (500, processes))].reshape(500, -1)
        low, high = np.quantile(np.quantile(again, 0.9, axis=1), [0.025, 0.975])
        rows.append((bounds.low <= truth <= bounds.high, low <= truth <= high))
    return rows


def warm_up_table(noise: sim.Noise, seeds: int) -> None:
    processes = 50
    print("\nWarm-up: bias of a process' median, and what notices it (leftover_ramp over 50 processes)")
    print(f"{'machine':16}{'most':>5} {'rule':>14} {'warm-ups':>9} {'restless %':>11} {'bias %':>7} {'noticed %':>10}")
    for kind in ("plain", "warm-up ramps", "steep ramps"):
        for most in (4, 6, 10):
            for agree_only in (True, False):
                machine = sim.Machine(kind, 0.0, noise, most, agree_only)
                median = machine.mean_median()
                runs = machine.runs(np.random.default_rng(9), seeds, processes, processes, median)
                seen = [leftover_ramp([[math.exp(f), 1.0] for f in row]) for row in runs.falls]
                noticed = np.mean([s is not None and s.warming_up for s in seen])
                warm = (runs.busy_s - noise.load_s).mean() / noise.request_s - sim.MEASURED
                print(f"{kind:16}{most:5} {'two agree' if agree_only else 'and not falling':>14} {warm:9.2f} "
                      f"{100 * runs.restless.mean():11.1f} {100 * (runs.values.mean() / median - 1):7.2f} "
                      f"{100 * noticed:10.1f}", flush=True)  # fmt: skip


def drift_table(noise: sim.Noise, seeds: int) -> None:
    print("\nTrend over processes, share of runs flagged at 1 %; the drift rises by two spreads over all of them")
    for kind in ("plain", "drift", "correlated processes"):
        for processes in (12, 40):
            machine = sim.Machine(kind, 0.05, noise)
            median = machine.mean_median()
            runs = machine.runs(np.random.default_rng(10), seeds, processes, processes, median)
            seen = [trend(row.tolist()) for row in runs.values]
            flagged = np.mean([t is not None and t.drifts for t in seen])
            print(f"{kind:22} {processes:3} processes: {100 * flagged:5.1f} %", flush=True)


PARTS = {
    "coverage": coverage_table, "pairs": pairs_table, "percentiles": percentiles_table, "warm-up": warm_up_table,
    "drift": drift_table,
}  # fmt: skip


SHARE_OF_SEEDS = {"coverage": 1, "pairs": 2, "percentiles": 8, "warm-up": 8, "drift": 4}  # the slow ones get fewer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--part", choices=PARTS)
    arguments = parser.parse_args()
    noise = sim.fit()
    print("fitted to tests/noise:")
    for name, value in noise.__dict__.items():
        if isinstance(value, float):
            print(f"  {name:20}{value:9.4f}")
    for name, table in PARTS.items():
        if arguments.part in {None, name}:
            table(noise, max(20, arguments.seeds // SHARE_OF_SEEDS[name]))


if __name__ == "__main__":
    main()
