"""Files of Hugging Face's optimum-benchmark: ``benchmark.json``, or its report alone.

What the numbers are is in huggingface/optimum-benchmark: ``scenarios/inference/scenario.py`` (prefill and decode of a
batch; joules are those of one batch, decode is generate less prefill), ``scenarios/energy_star/scenario.py`` (sums
over a data set), ``trackers/latency.py``, ``trackers/memory.py`` (MB of 10^6 bytes; resident size of one process,
polled) and ``trackers/energy.py`` (kWh of codecarbon).
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from perjoule import __version__
from perjoule.errors import InputError
from perjoule.interchange.record import (
    Figure,
    Imported,
    ImportedRecord,
    Joules,
    OtherModel,
    OtherTool,
    Source,
    figure,
    flattened,
    with_id,
)
from perjoule.interchange.strict import MAX_EXACT, fact, read_bytes, text_of
from perjoule.records import UNSET, Missing, ToolFacts
from perjoule.store.strict_json import strict_json

NAME = "optimum-benchmark"
_HINT = "give a benchmark.json that optimum-benchmark wrote for text generation"
_SHAPES = "the file has no configuration: import benchmark.json, not benchmark_report.json"
_J_PER_KWH, _MB = 3.6e6, 1e6
_LOADS = ("load_model", "load")
_PHASES = ("prefill", "decode")
_MEMORY = ("max_ram", "max_global_vram", "max_process_vram", "max_reserved", "max_allocated")
_REPEATS = "iterations share one process, and the process is what varies from run to run"
OBTAINED = (
    "by codecarbon; the file does not say how each part was had: cpu is RAPL where it could be read, else a rated "
    "power out of a table or a guessed constant, ram is a constant for the memory installed, gpu is NVML"
)
_RAM = "resident size of one process, polled: neither a high-water mark nor the process tree; see other"
_GAPS = "per_token is left out: in files of version 0.5 it counts the gaps of earlier iterations again"  # seen in them
_DESCRIBED = ("backend", "scenario", "launcher", "environment")
_PRIVATE = ("volumes", "ports", "devices", "environment", "hub_kwargs", "token")  # of backend: mounts, addresses


def read_optimum_benchmark(path: str | Path) -> list[ImportedRecord]:
    """Return the one record of the file. Raises ``InputError`` for another file, and one without text generation."""
    source = str(path)
    data = read_bytes(Path(path), _HINT)
    content = strict_json(text_of(data, source, _HINT), source, _HINT)
    if not isinstance(content, dict):
        raise InputError(f"{source}: not a file of optimum-benchmark", hint=_HINT)
    config, report = (content.get("config"), content["report"]) if "report" in content else ({}, content)
    if not isinstance(config, dict) or not isinstance(report, dict) or not all(map(_is_target, report.values())):
        what = "its configuration alone" if "scenario" in content and "backend" in content else "no report of it"
        raise InputError(f"{source}: {what}, there is nothing measured in it", hint=_HINT)
    if not any(isinstance(report.get(phase), dict) for phase in _PHASES):
        targets = ", ".join(str(fact(t))[:32] for t in list(report)[:8]) or "none"
        raise InputError(f"{source}: no prefill and no decode in it (targets: {targets})", hint=_HINT)
    origin = Source(form="json", sha256=hashlib.sha256(data).hexdigest(), file_bytes=len(data), position=0)
    return [_record(config, {k: v for k, v in report.items() if v}, origin, source)]


def _is_target(value: object) -> bool:
    return value is None or (isinstance(value, dict) and ("latency" in value or "energy" in value or "memory" in value))


def _at(tree: Any, *keys: str) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _number(value: Any, what: str, source: str, least: float = 0.0) -> float | None:
    """Return a finite number from ``least`` up, None for null. Raises ``InputError``."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
        raise InputError(f"{source}: {what} is {str(value)[:32]!r}, not such a number", hint=_HINT)
    return float(value)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < MAX_EXACT else None


class _Shape:
    """Tokens of the load, each None where the file does not fix it."""

    def __init__(self, config: dict[str, Any]) -> None:
        scenario = _at(config, "scenario") or {}
        generate = _at(scenario, "generate_kwargs")
        least, most = (_count(_at(generate, k)) for k in ("min_new_tokens", "max_new_tokens"))
        self.known = bool(config)
        self.batch = _count(_at(scenario, "input_shapes", "batch_size"))
        self.prompt = _count(_at(scenario, "input_shapes", "sequence_length"))
        self.new = most if least == most and (_at(generate, "num_beams") or 1) == 1 else None
        self.samples = _count(_at(scenario, "num_samples"))  # of a data set: joules are then sums over all of them
        if self.samples is not None:
            self.prompt = None  # every sample has its own length

    def requests(self) -> int | None:
        """Return how many requests a figure of joules is for."""
        return self.samples if self.samples is not None else self.batch

    def no_answer(self) -> str:
        """Say why the number of generated tokens is not known."""
        fixed = "the number of generated tokens is not fixed (min_new_tokens is not max_new_tokens, or beams)"
        return fixed if self.known else _SHAPES

    def no_batch(self) -> str:
        """Say why the number of requests is not known."""
        return "the file does not say how many requests it was" if self.known else _SHAPES

    def no_prompt(self) -> str:
        """Say why the number of prompt tokens is not known."""
        return "the file does not say how many tokens a prompt has" if self.known else _SHAPES


def _record(config: dict[str, Any], report: dict[str, Any], origin: Source, source: str) -> ImportedRecord:
    shape = _Shape(config)
    environment, backend = _at(config, "environment") or {}, _at(config, "backend") or {}
    version, commit = (fact(_at(environment, f"optimum_benchmark_{k}")) for k in ("version", "commit"))
    metrics = _times(report, shape, source) | _memory(report, source) | _energy(report, shape, source)
    scenario = fact(_at(config, "scenario", "name"))
    model = fact(backend.get("model")) if isinstance(backend, dict) else None
    task = fact(_at(backend, "task"))
    return with_id(
        ImportedRecord(
            tool=OtherTool(
                name=NAME, version=version if isinstance(version, str) else None,
                version_missing=UNSET if isinstance(version, str) else _SHAPES,
                commit=commit if isinstance(commit, str) else None,
                commit_missing=UNSET if isinstance(commit, str) else "the file does not name one",
            ),
            imported_by=ToolFacts(name="perjoule", version=__version__),
            source=origin, measured_utc=None, measured_utc_missing="optimum-benchmark records no time",
            test=scenario if isinstance(scenario, str) and scenario else "report",
            load={"batch": shape.batch, "prompt_tokens": shape.prompt, "output_tokens": shape.new,
                  "samples": shape.samples},
            model=OtherModel(
                name=model if isinstance(model, str) and model else "not named",
                description=task if isinstance(task, str) else None,
                description_missing=UNSET if isinstance(task, str) else _SHAPES,
                parameters=None, parameters_missing="optimum-benchmark records none",
                weights_bytes=None, weights_bytes_missing="optimum-benchmark records none",
            ),
            device=str(fact(_at(backend, "device")) or "not said"),
            facts={k: fact(_shown(config[k])) for k in _DESCRIBED if isinstance(config.get(k), dict)},
            metrics=flattened(metrics), other=_others(report, source), intervals_missing=_REPEATS,
            remarks=() if config else (_SHAPES,),
        )
    )  # fmt: skip


def _shown(part: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in part.items() if k not in _PRIVATE}


def _latency(report: dict[str, Any], target: str, source: str) -> Figure | None:
    """Return a target's latency in seconds, None where it was not measured."""
    found = _at(report, target, "latency")
    if found is None or _at(found, "mean") is None:
        return None
    what = f"{target}.latency"
    if _at(found, "unit") not in ("s", None):
        raise InputError(f"{source}: {what} is in {str(found['unit'])[:16]!r}, not in seconds", hint=_HINT)
    mean = _number(found["mean"], f"{what}.mean", source) or 0.0
    listed = found.get("values")
    values = [_number(v, f"{what}.values", source) or 0.0 for v in listed] if isinstance(listed, list) else []
    spread = _number(found.get("stdev"), f"{what}.stdev", source)
    return figure(mean, "s", "mean over iterations", spread=spread, values=values, n=_count(found.get("count")))


def _times(report: dict[str, Any], shape: _Shape, source: str) -> dict[str, Imported]:
    prefill, decode = (_latency(report, phase, source) for phase in _PHASES)
    load = next((f for f in (_latency(report, t, source) for t in _LOADS) if f is not None), None)
    whole = shape.samples is not None  # a latency of the energy_star scenario is that of the whole data set
    sums = "the latency is that of a whole data set"
    metrics: dict[str, Imported] = {
        "load_s": load or Missing(reason="load_model has no latency"),
        "itl_s": Missing(reason=_GAPS),
    }
    lost = Missing(reason=sums if whole else "prefill has no latency")
    metrics["ttft_s"] = lost if whole or prefill is None else prefill
    batch = Missing(reason=f"prefill of {shape.batch} prompts at once: it is the rate of no request")
    one = lost if whole or prefill is None else _per(shape.prompt, prefill, shape.no_prompt())
    metrics["prefill_tokens_per_s"] = batch if shape.batch not in (None, 1) and one is not lost else one
    steps = None if shape.new is None or shape.new < 2 else shape.new - 1  # noqa: PLR2004 - the first is prefill's
    lost = Missing(reason=sums if whole else "decode has no latency")
    metrics["decode_tokens_per_s"] = lost if whole or decode is None else _per(steps, decode, shape.no_answer())
    return metrics


def _per(tokens: int | None, time: Figure, missing: str) -> Imported:
    """Return tokens per second of one request: its deviation is not that of the latency, so none is given."""
    if tokens is None or time.value <= 0:
        return Missing(reason=missing if tokens is None else "the latency is 0")
    return figure(tokens / time.value, "tokens/s", "tokens over the mean latency of the iterations", n=time.n)


def _memory(report: dict[str, Any], source: str) -> dict[str, Imported]:
    peak = max(
        (v for t in report for v in [_megabytes(report, t, "max_process_vram", source)] if v is not None), default=None
    )
    ram = any(_at(report, t, "memory", "max_ram") is not None for t in report)
    return {
        "peak_memory_bytes": Missing(reason=_RAM if ram else "no memory was tracked"),
        "peak_gpu_memory_bytes": Missing(reason="no memory of a GPU was tracked")
        if not peak
        else figure(peak, "bytes", "largest max_process_vram of all phases, polled", n=1),
    }


def _megabytes(report: dict[str, Any], target: str, key: str, source: str) -> float | None:
    found = _at(report, target, "memory")
    value = _number(_at(found, key), f"{target}.memory.{key}", source)
    if value is not None and _at(found, "unit") != "MB":
        raise InputError(f"{source}: {target}.memory is not in MB", hint=_HINT)
    return None if value is None else value * _MB


def _joules(report: dict[str, Any], target: str, source: str) -> float | None:
    """Return the joules of a target; a difference of two runs can be negative."""
    found = _at(report, target, "energy")
    value = _number(_at(found, "total"), f"{target}.energy.total", source, least=-math.inf)
    if value is not None and _at(found, "unit") != "kWh":
        raise InputError(f"{source}: {target}.energy is not in kWh", hint=_HINT)
    return None if value is None else value * _J_PER_KWH


def _energy(report: dict[str, Any], shape: _Shape, source: str) -> dict[str, Imported]:
    prefill, decode = (_joules(report, phase, source) for phase in _PHASES)
    whole = _joules(report, "generate", source)
    if whole is None and prefill is not None and decode is not None:
        whole = prefill + decode  # decode was made by taking one from the other
    requests, new, prompt = shape.requests(), shape.new, shape.prompt
    difference = "decode is generate less prefill, two runs: the difference of two numbers with errors of their own"
    answer, scope = shape.no_answer(), _scope(report)
    return {
        "energy_j_per_request": _energy_per(whole, requests, "", shape.no_batch(), scope),
        "energy_j_per_output_token": _energy_per(whole, requests and new and requests * new, "", answer, scope),
        "energy_j_per_prompt_token": _energy_per(
            prefill, requests and prompt and requests * prompt, "", shape.no_prompt(), scope
        ),
        "energy_j_per_decode_token": _energy_per(
            decode, requests and new and requests * (new - 1), difference, answer, scope
        ),
    }


def _scope(report: dict[str, Any]) -> str:
    parts = ("cpu", "ram", "gpu")
    used = [p for p in parts if any(_at(report, t, "energy", p) not in (None, 0) for t in _PHASES)]
    return " + ".join(used) or "nothing that it names"


def _energy_per(joules: float | None, number: int | None, note: str, missing: str, scope: str) -> Imported:
    if joules is None:
        return Missing(reason="no energy was tracked")
    if joules <= 0:
        return Missing(reason="the file gives no energy above 0")
    if not number:
        return Missing(reason=missing)
    return _made_joules(joules / number, "J", note, scope)


def _made_joules(value: float, unit: str, note: str, scope: str) -> Joules:
    return Joules(
        value=value, unit=unit, statistic="total over everything that was done", n=None,
        n_missing="the file gives one sum", spread=None, spread_missing="the file gives one sum",
        note=note, scope=scope, obtained=OBTAINED,
    )  # fmt: skip


def _others(report: dict[str, Any], source: str) -> dict[str, Figure | Joules]:
    """Return what the tool measured and we have no name for, under its own names in SI units."""
    other: dict[str, Figure | Joules] = {}
    for target in (*_LOADS, *_PHASES, "generate"):
        for key in _MEMORY:
            value = _megabytes(report, target, key, source)
            if value is not None:
                other[f"{target}_{key}_bytes"] = figure(value, "bytes", f"{key} of {target}, polled", n=1)
        for key in ("cpu", "ram", "gpu", "total"):
            kwh = _number(_at(report, target, "energy", key), f"{target}.energy.{key}", source, least=-math.inf)
            if kwh is not None and _at(report, target, "energy", "unit") == "kWh":
                other[f"{target}_energy_{key}_j"] = _made_joules(kwh * _J_PER_KWH, "J", "", key)
        seconds = _latency(report, target, source) if target in ("decode", "generate") else None
        if seconds is not None:
            other[f"{target}_latency_s"] = seconds
    return other
