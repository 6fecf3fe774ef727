"""What a computed result could not be, whatever its numbers: `perjoule verify --deep`.

``perjoule.verify`` computes every number and interval again from the raw parts. This looks at the raw parts themselves:
whether one machine, one clock and one seed can have given them. It finds what was made up carelessly, not what was
made up well: the fields that nothing here can check are listed in docs/publish.md.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from perjoule.load.arrivals import arrival_times
from perjoule.publish.machine import follows
from perjoule.roofline import impossible
from perjoule.scenario import from_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perjoule.records import RunResult, Sample

_ROUNDING_S = 1e-6  # stamps are nanoseconds divided by 1e9
_TICKS = 2  # user and system time are rounded on their own
_DEFAULT_TICK_S = 0.01
_CPU_SHARE, _SCHEDULER_S = 1.02, 0.004  # a thread's CPU time is accounted at the scheduler's ticks, not at our stamps


def implausible(result: RunResult) -> list[str]:
    """Return what cannot be, one line each. May raise what a wrong scenario spec raises."""
    return [
        *_machine(result),
        *_said_twice(result),
        *_names(result),
        *_memory(result),
        *_requests(result),
        *_cpu_times(result),
        *_order(result),
        *_schedule(result),
        *_counts(result),
        *_physics(result),
    ]


def _machine(result: RunResult) -> Iterator[str]:
    if not follows(result.host):
        yield "host.machine_id: is not the hash of the facts beside it"
    if not result.created_utc.endswith("Z"):
        yield "created_utc: is not in UTC"


def _said_twice(result: RunResult) -> Iterator[str]:
    """What stands in two places is the same in both."""
    scenario, backend = result.scenario, result.backend
    if (scenario.name, scenario.version) != (scenario.spec.get("name"), scenario.spec.get("version")):
        yield "scenario: its name or version is not that of its spec"
    if backend.requested_options.get("device", backend.device) != backend.device:
        yield "backend.device: is not the one that was asked for"
    if result.tool.name != "perjoule":
        yield f"tool.name: {result.tool.name!r} is not perjoule"


def _names(result: RunResult) -> Iterator[str]:
    """Requests and windows are named after their process; a process that serves alone warms up as often as it says."""
    warmups: dict[int, int] = {}
    for sample in result.samples:
        if sample.window != f"{sample.process}.{sample.index}":
            yield f"sample {sample.window}: is not named after its process and index"
        if isinstance(sample.span, str):
            warmups[sample.process] = -1
        elif warmups.get(sample.process, 0) >= 0:
            warmups[sample.process] = warmups.get(sample.process, 0) + (sample.phase == "warmup")
    for window in result.windows:
        if window.phase != "idle" and not window.id.startswith(f"{window.process}."):
            yield f"window {window.id}: is not named after its process"
    for process in result.processes:
        seen = warmups.get(process.process, 0)
        if seen >= 0 and seen != process.warmup_requests:
            yield f"process {process.process}: says {process.warmup_requests} warm-ups, and {seen} are there"


def _memory(result: RunResult) -> Iterator[str]:
    """A process has one peak a phase at most, and never held more than its peak."""
    phases: dict[int, list[str]] = {p.process: [] for p in result.processes}
    for entry in result.memory:
        phases.setdefault(entry.process, []).append(entry.phase)
        if entry.rss_peak_bytes is not None and entry.pss_bytes is not None and entry.pss_bytes > entry.rss_peak_bytes:
            yield f"memory of process {entry.process}, {entry.phase}: more at its end than at its peak"
    if len(phases) != len(result.processes) or any(len(set(found)) != len(found) for found in phases.values()):
        yield "memory: a peak is given twice, or is of no process"


def _requests(result: RunResult) -> Iterator[str]:
    """A request served alone has the edges of its windows for stamps."""
    windows = {w.id: w for w in result.windows}
    for sample in result.samples:
        if isinstance(sample.span, str):
            continue
        edges = (("prefill", sample.start_s, sample.first_token_s), ("decode", sample.first_token_s, sample.end_s))
        for phase, start_s, end_s in edges:
            window = windows.get(f"{sample.window}/{phase}")
            if window and (abs(window.start_s - start_s) > _ROUNDING_S or abs(window.end_s - end_s) > _ROUNDING_S):
                yield f"window {window.id}: its stamps are not those of its request"
        times = sample.token_times_s
        if times is not None and any(b <= a for a, b in itertools.pairwise(times)):
            yield f"sample {sample.window}: two tokens of one request came at the same instant"


def _cpu_times(result: RunResult) -> Iterator[str]:
    threads = result.host.cpu.threads
    for window in result.windows:
        tick_s = window.cpu_tick_s if isinstance(window.cpu_tick_s, float) else _DEFAULT_TICK_S
        most_s = window.duration_s * threads
        if window.cpu_s is not None and window.cpu_s > most_s * _CPU_SHARE + threads * _SCHEDULER_S:
            yield f"window {window.id}: more CPU time than {threads} threads have in {window.duration_s:.6g} s"
        for name, spent_s in (("steal_s", window.steal_s), ("foreign_cpu_s", window.foreign_cpu_s)):
            if spent_s is not None and spent_s > most_s * _CPU_SHARE + _TICKS * threads * tick_s:
                yield f"window {window.id}: {name} is more than the machine has"


def _order(result: RunResult) -> Iterator[str]:
    """Processes run one after the other, and what a process serves alone does not overlap."""
    by_process: dict[int, list[Sample]] = {}
    for sample in result.samples:
        by_process.setdefault(sample.process, []).append(sample)
    lives = []
    for process in result.processes:
        samples = by_process.get(process.process, [])
        first_s = min((s.start_s for s in samples), default=process.start_s)
        if samples and process.start_s + (process.load_s or 0.0) > first_s + _ROUNDING_S:
            yield f"process {process.process}: a request began before the engine was loaded"
        lives.append((process.start_s, max((s.end_s for s in samples), default=process.start_s), process.process))
        alone = sorted((s for s in samples if not isinstance(s.span, str)), key=lambda s: s.start_s)
        for before, after in itertools.pairwise(alone):
            if after.start_s < before.end_s - _ROUNDING_S:
                yield f"sample {after.window}: began while {before.window} was served, though each was served alone"
    for (_, end_s, one), (start_s, _, other) in itertools.pairwise(sorted(lives)):
        if start_s < end_s - _ROUNDING_S:
            yield f"process {other}: began while process {one} was at work"


def _schedule(result: RunResult) -> Iterator[str]:
    """Requests of an open loop were due when the seed says."""
    scenario = from_facts(result.scenario)
    if scenario.shape != "server" or scenario.arrivals not in ("poisson", "constant", None):
        return
    windows = {w.id: w for w in result.windows}
    for span in result.spans:
        window = windows.get(span.window)
        if window is None or span.rate_per_s is None or span.planned_s is None:
            continue
        due = arrival_times(
            scenario.arrivals or "poisson", rate_per_s=span.rate_per_s, duration_s=span.planned_s,
            seed=result.settings.seed, process=span.process,
        )  # fmt: skip
        told = [s.scheduled_s - window.start_s for s in result.samples if s.span == span.window and s.scheduled_s]
        late = [t for t in told if min(abs(t - d) for d in due) > _ROUNDING_S]
        if late:
            yield f"span {span.window}: {len(late)} of {len(told)} requests were due at other times than the seed gives"


def _counts(result: RunResult) -> Iterator[str]:
    lengths: dict[str, int] = {}
    for sample in result.samples:
        if lengths.setdefault(sample.prompt_ids_sha256, sample.prompt_tokens) != sample.prompt_tokens:
            yield f"sample {sample.window}: the prompt of another request, with another number of tokens"
    for histogram in result.gap_histograms:
        most = sum(s.output_tokens - 1 for s in result.samples if s.process == histogram.process)
        if sum(histogram.counts) > most:
            yield f"gap_histograms of process {histogram.process}: more gaps than its requests have"


def _physics(result: RunResult) -> Iterator[str]:
    headline, report = result.energy.headline, result.energy
    if headline is not None:
        low, high = headline.low, headline.high
        if report.floor_j is not None and high is not None and high < report.floor_j:
            yield f"energy.headline: {high:.4g} J at most, where moving the bytes alone costs {report.floor_j:.4g} J"
        if report.ceiling_j is not None and low is not None and low > report.ceiling_j:
            yield f"energy.headline: {low:.4g} J at least, where the machine draws {report.ceiling_j:.4g} J at most"
    for beyond in impossible(result.roofline):
        yield f"roofline: faster than the measured limit of the machine: {beyond}"
