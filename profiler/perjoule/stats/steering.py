"""What decides when a scenario has been measured well enough: one value a process of each steering metric."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from perjoule.stats.selection import select
from perjoule.stats.sequential import Decision, Targets, enough, relative_half_width

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perjoule.records import ProcessRecord, Sample, Span, Window
    from perjoule.scenario import Scenario

STEERING = {
    "ttft_s": "time to first token",
    "tpot_s": "time per output token",
    "output_tokens_per_s": "output tokens per second",
    "load_s": "model load",
}


def ttft_s(sample: Sample) -> float:
    return sample.first_token_s - sample.sent_s


def tpot_s(sample: Sample) -> float | None:
    """Return seconds per output token after the first; None where there is only one."""
    if sample.output_tokens == 1:
        return None
    return (sample.end_s - sample.first_token_s) / (sample.output_tokens - 1)


def process_medians(groups: Sequence[Sequence[Sample]], of: Callable[[Sample], float | None]) -> list[float]:
    """Return one median per process, leaving out requests (and processes) without a value."""
    values = ([v for v in map(of, group) if v is not None] for group in groups)
    return [statistics.median(v) for v in values if v]


def measured_seconds(samples: Sequence[Sample], windows: Sequence[Window]) -> float:
    """Return the seconds of load that samples stand for: of the windows they share, else of each in turn."""
    shared = {s.span for s in samples}
    alone = sum(s.end_s - s.start_s for s in samples if not isinstance(s.span, str))
    return alone + sum(w.duration_s for w in windows if w.id in shared)


def output_rates(groups: Sequence[Sequence[Sample]], windows: Sequence[Window]) -> list[float]:
    """Return output tokens per second of each process that served requests in shared windows."""
    duration_s = {w.id: w.duration_s for w in windows}
    rates = []
    for group in groups:
        seconds = sum(duration_s.get(name, 0.0) for name in {s.span for s in group if isinstance(s.span, str)})
        if seconds:
            rates.append(sum(s.output_tokens for s in group) / seconds)
    return rates


def steering_values(
    samples: Sequence[Sample],
    windows: Sequence[Window],
    processes: Sequence[ProcessRecord],
    scenario: Scenario,
    spans: Sequence[Span] = (),
) -> dict[str, list[float]]:
    """Return, for each metric that steers the scenario, one value a process; an empty list where there is none.

    A saturated load has no latency to steer on, so throughput does.
    """
    groups = select(samples, windows, scenario).by_process
    if scenario.shape == "idle":
        return {}
    if scenario.shape == "offline" or too_much(spans):
        return {"output_tokens_per_s": output_rates(groups, windows)}
    values = {"ttft_s": process_medians(groups, ttft_s), "tpot_s": process_medians(groups, tpot_s)}
    if scenario.shape == "multi-stream":
        return {**values, "output_tokens_per_s": output_rates(groups, windows)}
    if scenario.shape == "cold-start":
        return {"ttft_s": values["ttft_s"], "load_s": [p.load_s for p in processes if p.load_s is not None]}
    return values


def too_much(spans: Sequence[Span]) -> bool:
    """Say whether a measured load was ended early because the engine could not keep up with it."""
    return any(s.saturated and s.phase == "measured" for s in spans)


def half_widths(values: dict[str, list[float]]) -> dict[str, float]:
    """Return relative half-widths of the 95 % interval, of the metrics that have one."""
    found = {name: relative_half_width(v) for name, v in values.items()}
    return {name: width for name, width in found.items() if width is not None}


def decide(
    samples: Sequence[Sample],
    windows: Sequence[Window],
    processes: Sequence[ProcessRecord],
    scenario: Scenario,
    measuring_s: float,
    spans: Sequence[Span] = (),
) -> Decision:
    """Decide after each process whether to add another; ``measuring_s`` is what all of them took so far.

    A load that was too much is too much in the next process as well: no interval is worth its time.
    """
    if len(processes) >= scenario.min_processes and too_much(spans):
        return Decision(stop=True, reason="the load is more than the engine answers")
    selection = select(samples, windows, scenario)
    missing_s = scenario.min_measured_s - measured_seconds(selection.samples, windows)
    if missing_s > 0 and measuring_s <= scenario.time_budget_s:
        return Decision(stop=False, reason=f"{missing_s:.0f} s of load are missing of {scenario.min_measured_s:g}")
    return enough(
        steering_values(samples, windows, processes, scenario, spans),
        Targets(
            min_processes=scenario.min_processes,
            half_width=scenario.target_half_width,
            budget_s=scenario.time_budget_s,
        ),
        processes=len(processes),
        measuring_s=measuring_s,
        noisy=selection.kept_rejected,
    )
