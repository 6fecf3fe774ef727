"""What the load generator costs a request, and how late it begins one, with an engine that does nothing.

Overhead: 100,000 requests as fast as they can be begun (all at once; overdue on a schedule; four places), beside a bare
loop that calls the same engine and stamps its tokens. Arrival error: 100,000 requests on a schedule in real time, how
much later than scheduled one is begun while the engine has nothing to do, beside bare sleeps until the same instants:
what the system's timer alone does. The aims are 20 us a request and 1 ms at the 99th percentile; the exit code says
whether they were met, which means something only on a machine that does nothing else.

    python benchmarks/load_generator.py [--requests 100000] [--rate 4000]
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
from typing import TYPE_CHECKING

from perjoule.clock import MonotonicClock
from perjoule.load.arrivals import arrival_times
from perjoule.load.saturation import Saturation
from perjoule.load.serve import serve_one_by_one, serve_together
from perjoule.load.sources import AllAtOnce, OpenLoop
from perjoule.memory import read_peak, reset_peak
from perjoule.stats.intervals import percentile
from perjoule_backends.null import NullEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perjoule.load.serve import Tally

MOST_OVERHEAD_S, MOST_LATE_S = 20e-6, 1e-3
PROMPT = list(range(16))
CLOCK = MonotonicClock()
REPEATS = 3


def bare(engine: NullEngine, requests: int) -> float:
    """Return seconds a request of a loop that calls the engine and stamps its one token."""
    stamps: list[int] = []
    no_stop: frozenset[int] = frozenset()
    start_ns = CLOCK.now_ns()
    for _ in range(requests):
        engine.generate(PROMPT, 1, no_stop, lambda _token: stamps.append(CLOCK.now_ns()))
    return (CLOCK.now_ns() - start_ns) / 1e9 / requests


def loaded(serve: Callable[[Sequence[Sequence[int]]], Tally], requests: int) -> tuple[float, float]:
    """Return seconds a request, and bytes that each adds to the resident peak, of a load without pauses."""
    prompts = [PROMPT] * requests
    gc.collect()
    refused = reset_peak()
    before = read_peak(0, "requests", reset_refused=refused).rss_peak_bytes or 0
    tally = serve(prompts)
    after = read_peak(0, "requests", reset_refused=refused).rss_peak_bytes or 0
    assert len(tally.answers) == requests  # noqa: S101 - or the figure would be of something else
    return (tally.end_ns - tally.start_ns) / 1e9 / requests, (after - before) / requests


def overhead(requests: int) -> dict[str, float]:
    """Print seconds a request; return what each kind of load adds to the bare loop, by name."""
    alone, four = NullEngine(CLOCK, 64, 0.0, 0.0), NullEngine(CLOCK, 64, 0.0, 0.0, batch=4)
    overdue = [i * 1e-9 for i in range(requests)]
    kinds: dict[str, Callable[[Sequence[Sequence[int]]], Tally]] = {
        "all at once": lambda p: serve_one_by_one(alone, AllAtOnce(requests), p, 1, CLOCK),
        "overdue schedule": lambda p: serve_one_by_one(
            alone, OpenLoop(overdue), p, 1, CLOCK, Saturation(1e-9, 1e9)
        ),
        "overdue, 4 places": lambda p: serve_together(
            four.batch(), 4, OpenLoop(overdue), p, 1, CLOCK, Saturation(1e-9, 1e9, 4)
        ),
    }  # fmt: skip
    floor_s = statistics.median(bare(alone, requests) for _ in range(REPEATS))
    print(f"bare loop of engine calls        {floor_s * 1e6:7.2f} us a request")
    found = {}
    for name, serve in kinds.items():
        runs = [loaded(serve, requests) for _ in range(REPEATS)]
        seconds = statistics.median(s for s, _ in runs)
        found[name] = seconds - floor_s
        print(
            f"{name:<32} {seconds * 1e6:7.2f} us a request: {found[name] * 1e6:6.2f} us overhead; "
            f"{max(b for _, b in runs):5.0f} bytes a request"
        )
    return found


def lateness(kind: str, rate_per_s: float, requests: int) -> list[float]:
    """Return by how many seconds requests began late while the engine was idle, of a load in real time."""
    duration_s = requests / rate_per_s
    times = arrival_times(kind, rate_per_s=rate_per_s, duration_s=duration_s)  # type: ignore[arg-type]
    tally = serve_one_by_one(
        NullEngine(CLOCK, 64, 0.0, 0.0), OpenLoop(times, duration_s), [PROMPT] * len(times), 1, CLOCK
    )
    free_ns, late = tally.start_ns, []
    for answer in tally.answers:
        if free_ns <= answer.due_ns:
            late.append((answer.start_ns - answer.due_ns) / 1e9)
        free_ns = answer.token_ns[-1]
    return late


def timer(kind: str, rate_per_s: float, requests: int) -> list[float]:
    """Return the same of a bare loop that sleeps until those instants and does nothing then."""
    duration_s = requests / rate_per_s
    times = arrival_times(kind, rate_per_s=rate_per_s, duration_s=duration_s)  # type: ignore[arg-type]
    free_ns = start_ns = CLOCK.now_ns()
    late = []
    for at_s in times:
        due_ns, now_ns = start_ns + int(at_s * 1e9), CLOCK.now_ns()
        if now_ns < due_ns:
            CLOCK.sleep((due_ns - now_ns) / 1e9)
            now_ns = CLOCK.now_ns()
        if free_ns <= due_ns:
            late.append((now_ns - due_ns) / 1e9)
        free_ns = now_ns
    return late


def told(name: str, late: Sequence[float], requests: int) -> float:
    p99 = percentile(late, 0.99)
    print(
        f"{name:<32} late by p50 {percentile(late, 0.5) * 1e6:6.0f} us, p99 {p99 * 1e6:6.0f} us, "
        f"at most {max(late) * 1e3:6.2f} ms; the engine was idle for {len(late) / requests:.0%} of the arrivals"
    )
    return p99


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=4000.0, help="requests per second, in real time")
    options = parser.parse_args()
    costs = overhead(options.requests)
    p99s = {}
    for kind in ("constant", "poisson"):
        told(f"bare sleeps, {kind}", timer(kind, options.rate, options.requests), options.requests)
        late = lateness(kind, options.rate, options.requests)
        p99s[kind] = told(f"{kind}, {options.rate:g}/s", late, options.requests)
    missed = [f"{n}: {s * 1e6:.1f} us a request" for n, s in costs.items() if s >= MOST_OVERHEAD_S]
    missed += [f"{n}: p99 {s * 1e3:.2f} ms late" for n, s in p99s.items() if s >= MOST_LATE_S]
    print(f"MISSED: {'; '.join(missed)}" if missed else "both aims are met: under 20 us a request, p99 under 1 ms late")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
