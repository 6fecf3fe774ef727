"""Which numbers stand side by side: rows that fit the loads that were run; and what a load that was too much says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.records import Energy, Metric, Missing, Record, RunResult
from perjoule.render import format as fmt

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_ALONE = frozenset({"single-stream", "cold-start"})
_TOGETHER = frozenset({"multi-stream", "offline", "server"})
_QUEUES = frozenset({"multi-stream", "server"})
_COLD, _IDLE, _SERVER = frozenset({"cold-start"}), frozenset({"idle"}), frozenset({"server"})
_WORKING = _ALONE | _TOGETHER
_LATENCY = _ALONE | _QUEUES
_EVERY = _WORKING | _IDLE

LOAD_AND_TTFT, READ_BYTES = "load_and_ttft_s", "load_read_bytes"  # not in the result's metrics: of its processes

_TOLD_APART_BY = (
    "scenario", "file", "precision", "backend", "device", "rate", "threads", "batch", "prompt", "answer", "thinking",
    "control",
)  # fmt: skip


class Row(Record, frozen=True, kw_only=True):
    """One row: a metric, the shapes of load that it says something of, and its name outside the table.

    ``optional``: a result without it is not asked why (sensors that most hosts lack, keys that were not set).
    """

    title: str
    name: str
    shapes: frozenset[str]
    said: str = ""
    optional: bool = False


def _row(title: str, name: str, shapes: frozenset[str], said: str = "", *, optional: bool = False) -> Row:
    return Row(title=title, name=name, shapes=shapes, said=said or title, optional=optional)


ROWS = (
    _row("Right answers", "accuracy", _ALONE, optional=True),
    _row("  joules a right answer", "energy_j_per_correct_answer", _ALONE, "energy of a right answer", optional=True),
    _row("  tokens per answer", "output_tokens_per_answer", _ALONE, optional=True),
    _row("Offered load", "offered_requests_per_s", _SERVER),
    _row("Answered", "requests_per_s", _TOGETHER),
    _row("Output tokens", "output_tokens_per_s", _TOGETHER),
    _row("Time to first token", "ttft_s", _LATENCY),
    _row("  99 % are within", "ttft_p99_s", _QUEUES, "99th percentile of time to first token"),
    _row("Queueing delay", "queue_delay_s", _QUEUES),
    _row("Prefill", "prefill_tokens_per_s", _ALONE),
    _row("Decode", "decode_tokens_per_s", _ALONE),
    _row("  last fifth of load to first", "last_fifth_decode_ratio", _ALONE, "change over the load", optional=True),
    _row("Time per output token", "tpot_s", _LATENCY),
    _row("  99 % are within", "tpot_p99_s", _QUEUES, "99th percentile of time per output token"),
    _row("Latency, MLPerf's p90 bound", "e2e_latency_p90_early_stopping_s", _ALONE, optional=True),
    _row("Latency, MLPerf's p99 bound", "e2e_latency_p99_early_stopping_s", _QUEUES, optional=True),
    _row("Met the service level", "slo_met_share", _WORKING, optional=True),
    _row("Goodput", "goodput_requests_per_s", _WORKING, optional=True),
    _row("  per joule", "goodput_requests_per_j", _WORKING, "goodput per joule", optional=True),
    _row("Model load", "load_s", _EVERY),
    _row("  and the first token", LOAD_AND_TTFT, _COLD, "load and first token together"),
    _row("  read from the disk", READ_BYTES, _COLD, "bytes read from the disk"),
    _row("CPU while waiting", "idle_cpu_share", _IDLE),
    _row("Peak memory of the engine", "peak_memory_bytes", _EVERY),
    _row("CPU time per token", "cpu_s_per_output_token", _WORKING),
    _row("Energy per output token", "energy_j_per_output_token", _WORKING),
    _row("  of prefill, per prompt token", "energy_j_per_prompt_token", _ALONE, "energy of prefill, per prompt token"),
    _row("  of decode, per token", "energy_j_per_decode_token", _ALONE, "energy of decode, per token"),
    # shown where a sensor gives them; a host without one is not told of each
    _row("  above idle, per token", "energy_net_j_per_output_token", _WORKING, optional=True),
    _row("Power while working", "power_w", _WORKING),
    _row("Power while waiting", "power_w", _IDLE),
    _row("Power at idle", "idle_power_w", _EVERY, optional=True),
)  # fmt: skip


def rows(results: Sequence[RunResult]) -> list[Row]:
    """Return the rows in which at least one result has a value."""
    return [row for row in ROWS if any(not isinstance(value(r, row) or Missing(reason="-"), Missing) for r in results)]


def names(results: Sequence[RunResult], without: Collection[str] = ()) -> list[str]:
    """Return a short name for each: the model, and as much else as tells them apart. No two are equal.

    ``without``: aspects that are told elsewhere.
    """
    aspects = [_aspects(r) for r in results]
    stems = [a["model"] for a in aspects]
    for key in _TOLD_APART_BY:
        longer = [", ".join(filter(None, (s, a[key]))) for s, a in zip(stems, aspects, strict=True)]
        if key not in without and len(set(longer)) > len(set(stems)):
            stems = longer
    return [s if stems.count(s) == 1 else f"{s} #{stems[: i + 1].count(s)}" for i, s in enumerate(stems)]


def _aspects(result: RunResult) -> dict[str, str]:
    model, options, spec = result.model, result.backend.requested_options, result.scenario.spec
    rate = spec.get("rate_per_s")
    return {
        "model": model.name,
        "scenario": result.scenario.name,
        "file": model.source_quantization,
        "precision": model.runtime_quantization,
        "backend": result.backend.name,
        "device": result.backend.device,
        "threads": f"{options.get('threads')} threads",
        "batch": f"batch {options.get('batch', 1)}",
        "rate": f"{rate:g}/s offered" if isinstance(rate, int | float) else "",
        "prompt": f"{spec.get('prompt_tokens')} prompt tokens",
        "answer": f"{spec.get('new_tokens')} new tokens",
        "thinking": f"thinking {spec['thinking']}" if "thinking" in spec else "",
        "control": result.settings.control or "",
    }


def shape(result: RunResult) -> str:
    return str(result.scenario.spec.get("shape", ""))


def value(result: RunResult, row: Row) -> Metric | None:
    """Return what the row says of a result; None where it says nothing of this load."""
    if shape(result) not in row.shapes:
        return None
    if row.name == LOAD_AND_TTFT:
        return _load_and_ttft(result)
    if row.name == READ_BYTES:
        return _read_bytes(result)
    return result.metric(row.name) if row.name in result.metrics else None


def cell(result: RunResult, row: Row, *, short: bool) -> str:
    """Return the text of a cell; ``short`` leaves label and scope of joules to the lines below the table."""
    found = value(result, row)
    if found is None:
        return ""
    return fmt.energy_short(found) if short and isinstance(found, Energy) else fmt.metric(found)


def reasons(results: Sequence[RunResult]) -> list[str]:
    """Say why a number of the table is missing, once a reason; what stands in no table is left to the file."""
    found: dict[tuple[str, str], list[str]] = {}
    shown = rows(results)
    for result, name in zip(results, names(results), strict=True):
        told = [s.verdict for s in result.spans if s.saturated]  # above everything: ``too_much``
        for row in ROWS:
            missing = value(result, row) if row in shown or not row.optional else None
            if isinstance(missing, Missing) and not any(verdict in missing.reason for verdict in told):
                found.setdefault((name, missing.reason), []).append(row.said)
    return [f"{name}: no {', '.join(dict.fromkeys(titles))}: {reason}" for (name, reason), titles in found.items()]


def too_much(result: RunResult, name: str) -> str:
    """Say in plain words that the engine could not keep up with the load, with its own verdict; empty if it did."""
    full = [s for s in result.spans if s.saturated and s.phase == "measured"]
    if not full:
        return ""
    verdict = full[0].verdict.removeprefix("saturated: ")
    return (
        f"{name} on {result.backend.name} cannot keep up with this load: {verdict}. The queue, and with "
        "it every latency, grows as long as the load lasts, so none is given; tokens per second are the most it can do."
        + "".join(f" Hint: {c.hint}." for c in result.checks if c.code == "saturated")
    )


def found_rate(result: RunResult, name: str) -> str:
    """Say which rate a search for the highest one ended with; empty where there was none."""
    rates = [s.rate_per_s for s in result.spans if s.phase == "measured" and s.rate_per_s is not None]
    if not result.scenario.spec.get("find_rate") or not rates:
        return ""
    trials = sum(s.phase == "warmup" for s in result.spans)
    return (
        f"{name}: the search ended at {fmt.significant(rates[0], fmt.MEASURED_DIGITS)} requests/s after "
        f"{trials} trials; what was measured there stands below"
    )


def _load_and_ttft(result: RunResult) -> Metric:
    from perjoule.stats.intervals import t_interval  # noqa: PLC0415 - scipy only where intervals are made

    both = [p.load_s + p.cold_ttft_s for p in result.processes if p.load_s is not None and p.cold_ttft_s is not None]
    if not both:
        return Missing(reason="no request was made")
    return t_interval(both, unit="s", statistic="mean over processes")


def _read_bytes(result: RunResult) -> Metric:
    from perjoule.stats.intervals import t_interval  # noqa: PLC0415 - scipy only where intervals are made

    read = [float(p.load_read_bytes) for p in result.processes if isinstance(p.load_read_bytes, int)]
    if not read:
        reasons = (p.load_read_bytes_missing for p in result.processes)
        return Missing(reason=next((r for r in reasons if isinstance(r, str)), "it was not recorded"))
    return t_interval(read, unit="bytes", statistic="mean over processes")
