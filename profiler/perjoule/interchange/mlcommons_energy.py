"""Results in the draft energy schema of MLCommons Inference, extended so that modelled joules cannot pass as measured.

The draft is pull request 2587 of mlcommons/inference, ``energy-reporting/mlperf_energy_schema_v6.json`` (6.1). It knows
sensors only. Where a result has none, ``measurement_method`` is our label, which the draft does not accept; what the
draft requires and the result does not have is absent, with the reason in ``perjoule.missing``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from perjoule.errors import InputError
from perjoule.records import Energy, Missing
from perjoule.scenario import from_facts
from perjoule.stats.selection import select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.records import MeterFact, RunResult, Sample

DRAFT = "mlcommons/inference pull request 2587, energy-reporting/mlperf_energy_schema_v6.json (version 6.1, a draft)"
_SCENARIOS = {"single-stream": "singlestream", "offline": "offline", "server": "server"}
_METHODS = {"nvml": "nvml", "nvml-power": "nvml", "csv": "external_analyzer"}
_REQUIRED = (
    "static_power_baseline_watts", "measurement_method", "sampling_rate_hz", "thermal_stabilization_seconds",
    "scenario", "accelerator_count", "energy_per_token_joules", "prefill_energy_joules", "generation_energy_joules",
    "batch_size", "input_sequence_length", "output_sequence_length",
)  # fmt: skip
_LEAST_HZ = 1.0
Found = float | int | str | dict[str, Any] | Missing


def documents(results: Sequence[RunResult]) -> str:
    """Return JSON Lines, one document a result. Raises ``InputError`` for a result without joules or tokens."""
    return "".join(f"{msgspec.json.encode(document(r), order='sorted').decode()}\n" for r in results)


def document(result: RunResult) -> dict[str, Any]:
    """Return one result as the draft has it, with ``perjoule`` beside: label, interval, what is missing and why."""
    headline = result.energy.headline
    if headline is None:
        raise InputError(
            f"{result.id[:15]}: it has no joules: {result.energy.headline_missing}", hint="export it as csv instead"
        )
    used = select(result.samples, result.windows, from_facts(result.scenario)).samples
    tokens = sum(s.output_tokens for s in used)
    if not (headline.value > 0 and tokens and result.energy.window_s > 0):
        raise InputError(f"{result.id[:15]}: it has no tokens or no energy", hint="export it as csv instead")
    found: dict[str, Found] = {
        "static_power_baseline_watts": _idle(result),
        "measurement_method": _method(result, headline),
        "sampling_rate_hz": _rate(result, headline),
        "thermal_stabilization_seconds": _warm_up(result),
        "scenario": _scenario(result),
        "accelerator_count": _accelerators(result),
        **_phases(result, used, tokens),
        "batch_size": _batch(result),
        "input_sequence_length": _middle([s.prompt_tokens for s in used], "prompts"),
        "output_sequence_length": _middle([s.output_tokens for s in used], "answers"),
    }
    missing = {name: value.reason for name, value in found.items() if isinstance(value, Missing)}
    return {
        "task_type": "llm",
        "total_energy_joules": headline.value,
        "inference_active_power_watts": {"mean": headline.value / result.energy.window_s},
        "output_token_count": tokens,
        "software_runtime_versions": _software(result),
        **{name: value for name, value in found.items() if not isinstance(value, Missing)},
        "perjoule": _beside(result, headline, missing, found),
    }


def _beside(result: RunResult, headline: Energy, missing: dict[str, str], found: dict[str, Found]) -> dict[str, Any]:
    departs = [f"{name} is absent" for name in missing if name in _REQUIRED]
    if headline.label != "measured" or _simulated(result):
        how = "simulated" if headline.label == "measured" else "modelled"
        departs.append(f"measurement_method is no sensor: the joules are {how}")
    rate = found["sampling_rate_hz"]
    if isinstance(rate, float) and rate < _LEAST_HZ:
        departs.append("the sensor is slower than 1 Hz")
    return {
        "draft": DRAFT,
        "conforms_to_draft": not departs,
        "departs_from_draft": departs,
        "measured": headline.label == "measured" and not _simulated(result),
        "label": headline.label,
        "grade": headline.grade,
        "scope": headline.scope,
        "convention": headline.convention,
        "total_energy_low_joules": headline.low,
        "total_energy_high_joules": headline.high,
        "interval": headline.interval,
        "processes": headline.n,
        "missing": missing,
        "result_id": result.id,
        "scenario": result.scenario.name,
        "model": result.model.name,
        "quantization": result.model.runtime_quantization,
        "publishable": result.publishable,
        "notes": [
            "energy of phases is joules per token (mean over processes) times tokens",
            "sampling_rate_hz is how often the sensor's counter changes; it is read at the edges of windows",
            "lengths are the middle one of all requests",
        ],
    }


def _sensors(result: RunResult) -> list[MeterFact]:
    """Return the sensors whose readings are in the headline."""
    domains = {d.domain for d in result.energy.domains if d.energy is not None}
    return [m for m in result.meters if m.domain in domains and m.label == "measured"]


def _simulated(result: RunResult) -> bool:
    return result.host.simulated or any(m.simulated for m in _sensors(result))


def _method(result: RunResult, headline: Energy) -> str | Missing:
    if headline.label != "measured":
        return headline.label
    if _simulated(result):
        return "simulated"
    sensors = _sensors(result)
    methods = {_METHODS.get(m.grade) or ("rapl" if "rapl" in m.grade else "") for m in sensors}
    methods |= {"rocm_smi" for m in sensors if m.grade.startswith("amdsmi")}
    methods -= {""} if "rocm_smi" in methods else set()
    if len(methods) == 1 and (only := methods.pop()):
        return only
    grades = ", ".join(sorted({m.grade for m in sensors})) or "none in the result"
    return Missing(reason=f"the draft has no name for this sensor, or one for all of them (sensors: {grades})")


def _rate(result: RunResult, headline: Energy) -> float | Missing:
    if headline.label != "measured":
        return Missing(reason="no power was sampled: the joules are modelled")
    ticks = [m.tick_s for m in _sensors(result)]
    slowest = max((t for t in ticks if t), default=0.0)
    if not slowest or None in ticks:
        return Missing(reason="the update period of a sensor is not known")
    return 1 / slowest


def _idle(result: RunResult) -> float | Missing:
    idle = result.metric("idle_power_w") if "idle_power_w" in result.metrics else Missing(reason="it was not read")
    return idle.value if isinstance(idle, Energy) else Missing(reason=getattr(idle, "reason", "it was not read"))


def _warm_up(result: RunResult) -> float | Missing:
    """Return the shortest time that a process worked before its first measured request."""
    spans = []
    for process in {s.process for s in result.samples}:
        own = [s for s in result.samples if s.process == process]
        measured = [s.start_s for s in own if s.phase == "measured"]
        if measured:
            spans.append(min(measured) - min(s.start_s for s in own))
    return max(0.0, min(spans)) if spans else Missing(reason="no request was measured")


def _scenario(result: RunResult) -> str | Missing:
    shape = str(result.scenario.spec.get("shape", ""))
    return _SCENARIOS.get(shape) or Missing(reason=f"the draft does not know the load {shape[:64]!r}")


def _accelerators(result: RunResult) -> int | Missing:
    if result.backend.device == "cpu":
        return Missing(reason="there is none: the engine ran on the CPU, and the draft asks for at least 1")
    return 1  # --device names one


def _phases(result: RunResult, used: Sequence[Sample], tokens: int) -> dict[str, Found]:
    prompt = _joules(result, "energy_j_per_prompt_token", sum(s.prompt_tokens for s in used))
    decode = _joules(result, "energy_j_per_decode_token", sum(max(0, s.output_tokens - 1) for s in used))
    per = decode if isinstance(decode, Missing) else {"mean": decode / tokens}  # as the draft defines it (RULE-07)
    return {"prefill_energy_joules": prompt, "generation_energy_joules": decode, "energy_per_token_joules": per}


def _joules(result: RunResult, name: str, count: int) -> float | Missing:
    per = result.metric(name) if name in result.metrics else Missing(reason="this load has no such phase")
    if not isinstance(per, Energy):
        return Missing(reason=getattr(per, "reason", "it is no energy"))
    joules = per.value * count
    return joules if joules > 0 and math.isfinite(joules) else Missing(reason="it is 0")


def _batch(result: RunResult) -> int | Missing:
    batch = result.backend.requested_options.get("batch", 1)
    whole = isinstance(batch, int) and not isinstance(batch, bool) and batch >= 1
    return batch if whole else Missing(reason="the options name none")


def _middle(lengths: Sequence[int], what: str) -> int | Missing:
    ordered = sorted(lengths)
    middle = ordered[len(ordered) // 2] if ordered else 0
    return middle if middle >= 1 else Missing(reason=f"the {what} are empty")


def _software(result: RunResult) -> dict[str, str]:
    return {"perjoule": result.tool.version, result.backend.name: result.backend.engine_version}
