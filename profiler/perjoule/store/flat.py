"""A result as one row of a table: what `perjoule query`, the CSV export and the index of a site hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.records import Energy, Quantity

if TYPE_CHECKING:
    from perjoule.records import RunResult

Cell = str | int | float | bool | None
Row = dict[str, Cell]


def flat(result: RunResult) -> Row:
    """Return one row: facts, then of each metric its value, ``<name>_low``, ``<name>_high`` and, of joules, the label.

    Values are in the unit of the name. What could not be had is null, as in the result, where the reason stands.
    """
    model, host, backend = result.model, result.host, result.backend
    threads = backend.effective_options.get("threads", backend.requested_options.get("threads"))
    headline = result.energy.headline
    row: Row = {
        "id": result.id,
        "created_utc": result.created_utc,
        "perjoule_version": result.tool.version,
        "scenario": result.scenario.name,
        "scenario_version": result.scenario.version,
        "scenario_sha256": result.scenario.sha256,
        "model": model.name,
        "model_ref": model.ref,
        "model_sha256": model.file_sha256,
        "family": model.family,
        "vendor": model.vendor,
        "country": model.country,
        "license": model.license,
        "architecture": model.architecture,
        "parameters": model.parameters,
        "weights": model.weights,
        "quantization": model.runtime_quantization,
        "source_quantization": model.source_quantization,
        "bits_per_weight": model.bits_per_weight,
        "backend": backend.name,
        "engine_version": backend.engine_version,
        "device": backend.device,
        "threads": threads if isinstance(threads, int) else None,
        "machine_id": host.machine_id,
        "cpu": host.cpu.name,
        "cpu_vendor": host.cpu.vendor,
        "cpu_cores": host.cpu.cores_visible,
        "cpu_threads": host.cpu.threads,
        "memory_bytes": host.memory_bytes,
        "gpus": ", ".join(gpu.name for gpu in host.gpus) or None,
        "virtualization": host.virtualization,
        "os": host.os,
        "kernel": host.kernel,
        "processes": len(result.processes),
        "publishable": result.publishable,
        "warnings": ", ".join(c.code for c in result.checks if c.severity != "note") or None,
        "energy_label": None if headline is None else headline.label,
        "energy_scope": None if headline is None else headline.scope,
        "energy_convention": None if headline is None else headline.convention,
    }
    for name in result.metric_names():
        _add(row, name, result.metrics[name])
    fidelity = None if result.quality is None else result.quality.fidelity
    _add(row, "kl_divergence_nats", None if fidelity is None else fidelity.kl_divergence_nats.mean)
    _add(row, "same_top_token", None if fidelity is None else fidelity.same_top_token)
    _add(row, "perplexity_ratio", None if fidelity is None else fidelity.perplexity_ratio)
    return row


def _add(row: Row, name: str, value: Quantity | Energy | str | None) -> None:
    bounded = value if isinstance(value, Quantity | Energy) else None
    row.setdefault(name, None if bounded is None else bounded.value)  # a metric cannot take the place of a fact
    row.setdefault(f"{name}_low", None if bounded is None else bounded.low)
    row.setdefault(f"{name}_high", None if bounded is None else bounded.high)
    if isinstance(value, Energy):
        row.setdefault(f"{name}_label", value.label)
        row.setdefault(f"{name}_scope", value.scope)
