"""One value a process of a metric: what intervals are made of, and what comparisons pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.assemble import evidence_of
from perjoule.meters.amounts import total
from perjoule.meters.energy import basis_of, per_process
from perjoule.scenario import from_facts
from perjoule.stats.selection import select
from perjoule.stats.service import serving_seconds
from perjoule.stats.steering import process_medians, tpot_s, ttft_s

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perjoule.records import RunResult, Sample

# Metric: whether more of it is worse.
WORSE_IS_MORE = {
    "ttft_s": True, "tpot_s": True, "e2e_latency_s": True, "decode_tokens_per_s": False, "prefill_tokens_per_s": False,
    "output_tokens_per_s": False, "energy_j_per_output_token": True, "peak_memory_bytes": True, "load_s": True,
    "requests_per_s": False, "cold_ttft_s": True, "energy_j_per_request": True, "power_w": True,
}  # fmt: skip
_ENERGY = frozenset({"energy_j_per_output_token", "energy_j_per_request", "power_w"})


def values(result: RunResult, metric: str) -> dict[int, float] | str:
    """Return the metric of each process, by its number, or why there is none.

    The same values as in ``stats.summary`` and ``meters.energy``; latencies in seconds, rates in tokens per second,
    energy in joules per output token (central values: what is systematic is common to all processes).
    Raises ``KeyError`` for a metric that has no value of its own in each process.
    """
    if metric in _ENERGY:
        return _energy(result, metric)
    if metric == "load_s":
        return {p.process: p.load_s for p in result.processes if p.load_s is not None} or "the server was there before"
    if metric == "cold_ttft_s":
        return {p.process: p.cold_ttft_s for p in result.processes if p.cold_ttft_s} or "no request was made"
    if metric == "peak_memory_bytes":
        return _peaks(result)
    groups = select(result.samples, result.windows, from_facts(result.scenario)).by_process
    if metric in ("output_tokens_per_s", "requests_per_s"):
        seconds = serving_seconds(groups, result.windows)
        return {
            group[0].process: (sum(s.output_tokens for s in group) if metric[0] == "o" else len(group)) / spent
            for group, spent in zip(groups, seconds, strict=True)
            if spent
        } or "no measured request"
    found = {group[0].process: middle for group in groups if (middle := _median(group, _OF[metric])) is not None}
    return found or "no measured request has it"


def _median(group: Sequence[Sample], of: Callable[[Sample], float | None]) -> float | None:
    return next(iter(process_medians([group], of)), None)


def _energy(result: RunResult, metric: str) -> dict[int, float] | str:
    """Return joules of each process per output token or request, or the mean power of its requests."""
    evidence = evidence_of(result)
    if evidence.waiting:
        return _power_at_rest(result) if metric == "power_w" else "nothing was asked for: the engine waited"
    parts = per_process(evidence)
    if isinstance(parts, str):
        return parts
    groups = select(result.samples, result.windows, from_facts(result.scenario)).by_process
    seconds = serving_seconds(groups, result.windows)
    found: dict[int, float] = {}
    for group, spent_s in zip(groups, seconds, strict=True):
        process, tokens = group[0].process, sum(s.output_tokens for s in group)
        per = {"energy_j_per_output_token": tokens, "energy_j_per_request": len(group), "power_w": spent_s}[metric]
        if process in parts and per:
            found[process] = parts[process].joules.value * tokens / per
    return found or "no measured request has it"


def _power_at_rest(result: RunResult) -> dict[int, float] | str:
    """Return the mean power of each process that waited, watts, as ``meters.energy`` has it."""
    evidence = evidence_of(result)
    windows, basis = evidence.windows, basis_of(evidence)
    if isinstance(basis, str):
        return basis
    found: dict[int, float] = {}
    for window in windows:
        parts = basis.too_short([window]) or basis.price([window])
        if isinstance(parts, str):
            return parts
        found[window.process] = total(parts).joules.value / window.duration_s
    return found or "no process finished"


def _peaks(result: RunResult) -> dict[int, float] | str:
    peaks: dict[int, float] = {}
    for entry in result.memory:
        if entry.rss_peak_bytes is None:
            return f"{entry.phase}: {entry.rss_peak_bytes_missing}"
        peaks[entry.process] = max(peaks.get(entry.process, 0.0), float(entry.rss_peak_bytes))
    return peaks or "no process finished"


def _decode_rate(sample: Sample) -> float | None:
    seconds = tpot_s(sample)
    return 1 / seconds if seconds else None


def _prefill_rate(sample: Sample) -> float | None:
    seconds = sample.first_token_s - sample.start_s
    return sample.prompt_tokens / seconds if seconds else None


_OF: dict[str, Callable[[Sample], float | None]] = {
    "ttft_s": ttft_s,
    "tpot_s": tpot_s,
    "e2e_latency_s": lambda s: s.end_s - s.sent_s,
    "decode_tokens_per_s": _decode_rate,
    "prefill_tokens_per_s": _prefill_rate,
}
