"""What two results must have in common, field by field, and which question each field belongs to.

A field that differs is *the question* where it belongs to it, *harmless* where it cannot move a number, and else makes
the comparison one of two things at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from perjoule.records import Record, RunResult
from perjoule.records.facts import BackendFacts, ModelFacts

Question = Literal["model", "backend", "host", "quant", "threads", "batch", "thinking", "options", "placement"]

# What must differ for a question to be found where none was declared: the narrowest first, whose fields the later hold.
KEYS: dict[Question, tuple[str, ...]] = {
    "threads": ("backend.threads",),
    "batch": ("scenario.batch",),
    "thinking": ("scenario.thinking",),
    "options": ("backend.extra",),
    "placement": ("settings.pin", "settings.nice"),
    "quant": ("model.runtime_quantization", "model.source_quantization", "backend.quant"),
    "backend": ("backend.name", "backend.version", "backend.engine_version", "backend.device"),
    "host": ("host.machine_id", "host.os", "host.governor", "host.quota_cores"),
    "model": ("model.identity", "model.file_sha256", "model.tokenizer_sha256"),
}
QUESTIONS: tuple[Question, ...] = (
    "model", "backend", "host", "quant", "threads", "batch", "thinking", "options", "placement",
)  # fmt: skip
_SAME_FILE = "give every engine the same file"


class Field(Record, frozen=True, kw_only=True):
    """One thing that is compared. ``questions``: those that it is a part of. ``harmless``: why it matters to no number.

    ``of`` gives its value; ``hint`` says what to do where it differs and may not.
    """

    name: str
    said: str
    questions: tuple[Question, ...] = ()
    harmless: str = ""
    hint: str = ""
    of: Callable[[RunResult], object]


# How surely a scenario is measured, not what is measured.
_OF_PRECISION = ("rigor", "min_processes", "target_half_width", "time_budget_s", "min_measured_s")
_AS_SWEPT = ("sweep", "description")
_ENGINE_OPTIONS = frozenset({"threads", "context_tokens", "batch"})  # fields of their own


def _model(name: str) -> Callable[[RunResult], object]:
    if name not in ModelFacts.__struct_fields__:
        raise KeyError(name)
    return lambda r: getattr(r.model, name)


def _backend(name: str) -> Callable[[RunResult], object]:
    if name not in BackendFacts.__struct_fields__:
        raise KeyError(name)
    return lambda r: getattr(r.backend, name)


def _asked(name: str) -> Callable[[RunResult], object]:
    return lambda r: r.backend.requested_options.get(name)


def _effective(name: str) -> Callable[[RunResult], object]:
    return lambda r: r.backend.effective_options.get(name)


def _other_options(result: RunResult) -> dict[str, Any]:
    return {k: v for k, v in sorted(result.backend.effective_options.items()) if k not in _ENGINE_OPTIONS}


def _identity(result: RunResult) -> object:
    model = result.model
    parameters = "unknown" if model.parameters is None else f"{model.parameters:,}"
    return f"{model.name}, {model.architecture}, {parameters} parameters, {model.weights}"


FIELDS: tuple[Field, ...] = (
    Field(name="model.file_sha256", said="model file", questions=("model", "quant"), of=_model("file_sha256"),
          hint=_SAME_FILE),
    Field(name="model.identity", said="model", questions=("model",), of=_identity,
          hint="give the same --model, or ask --varying model and keep the rest the same"),
    Field(name="model.tokenizer_sha256", said="tokenizer", questions=("model", "quant", "backend"),
          of=_model("tokenizer_sha256"), hint=_SAME_FILE),
    Field(name="model.source_quantization", said="precision in the file", questions=("quant", "model"),
          of=_model("source_quantization"), hint=_SAME_FILE),
    Field(name="model.runtime_quantization", said="precision at run time", questions=("quant", "backend", "model"),
          of=_model("runtime_quantization"), hint="give the same --quant"),
    Field(name="backend.quant", said="precision asked for", questions=("quant", "backend"), of=_asked("quant"),
          hint="give the same --quant"),
    Field(name="backend.name", said="engine", questions=("backend",), of=_backend("name"),
          hint="give the same --backend"),
    Field(name="backend.version", said="version of the backend", questions=("backend",), of=_backend("version"),
          hint="measure all with one version of perjoule"),
    Field(name="backend.engine_version", said="version of the engine", questions=("backend",),
          of=_backend("engine_version"), hint="measure all with one version of the engine"),
    Field(name="backend.device", said="device", questions=("backend",), of=_backend("device"),
          hint="give the same --device"),
    Field(name="backend.threads", said="threads", questions=("threads",), of=_asked("threads"),
          hint="give the same --threads"),
    Field(name="backend.effective_threads", said="threads in use", questions=("threads", "backend"),
          of=_effective("threads"), hint="give a number of --threads that every engine uses"),
    Field(name="backend.context_tokens", said="context, tokens", of=_asked("context_tokens"),
          hint="run the same scenario with the same version of perjoule"),
    Field(name="backend.effective_context_tokens", said="context in use, tokens", questions=("backend", "model"),
          of=_effective("context_tokens"), hint="run the same scenario"),
    Field(name="backend.batch", said="batch of the engine", questions=("batch",), of=_asked("batch"),
          hint="give the same --set batch=N"),
    Field(name="backend.effective_batch", said="batch in use", questions=("batch", "backend"), of=_effective("batch"),
          hint="give the same --set batch=N"),
    Field(name="backend.extra", said="options of the engine", questions=("options", "backend"),
          of=lambda r: r.backend.requested_options.get("extra") or {}, hint="give the same --set backend.KEY=VALUE"),
    Field(name="backend.other_effective", said="what the engine made of its options", questions=QUESTIONS,
          of=_other_options, hint="the same options gave different ones: measure all on one machine with one version"),
    Field(name="settings.pin", said="CPUs it was bound to", questions=("placement",), of=lambda r: r.settings.pin,
          hint="give the same --pin"),
    Field(name="settings.nice", said="niceness", questions=("placement",), of=lambda r: r.settings.nice,
          hint="give the same --nice"),
    Field(name="host.machine_id", said="machine", questions=("host",), of=lambda r: r.host.machine_id,
          hint="measure all on one machine, or ask --varying host and keep the rest the same"),
    Field(name="host.os", said="operating system", questions=("host",), of=lambda r: r.host.os,
          hint="measure all under one system"),
    Field(name="host.governor", said="frequency governor", questions=("host",), of=lambda r: r.host.cpu.governor,
          hint="set one governor: `cpupower frequency-set -g performance`"),
    Field(name="host.quota_cores", said="CPU limit of the container", questions=("host",),
          of=lambda r: r.host.cpu.quota_cores, hint="give every container the same CPU limit"),
    Field(name="host.kernel", said="kernel", questions=("host",), of=lambda r: r.host.kernel,
          harmless="the same machine; a kernel seldom moves these numbers"),
    Field(name="host.container", said="container", questions=("host",), of=lambda r: r.host.container,
          harmless="a container without a CPU limit runs on the same processor"),
    Field(name="host.libraries", said="libraries", questions=("host", "backend"), of=lambda r: r.host.libraries,
          harmless="the engine's own version is a field of its own"),
    Field(name="tool.version", said="perjoule", questions=("backend",), of=lambda r: r.tool.version,
          harmless="results of one schema version mean the same"),
    Field(name="settings.resumed_at_s", said="taken up again", of=lambda r: len(r.settings.resumed_at_s),
          harmless="every process is fresh, before and after"),
)  # fmt: skip


def scenario_fields(results: tuple[RunResult, ...]) -> list[Field]:
    """Return a field for every key of the scenarios' specs: their hashes are equal exactly if all of these are."""
    keys = dict.fromkeys(key for r in results for key in r.scenario.spec)
    return [_scenario_field(key, results) for key in keys]


def _scenario_field(key: str, results: tuple[RunResult, ...]) -> Field:
    swept = any((r.scenario.spec.get("sweep") or {}).get("key") == key for r in results)
    harmless = ""
    if key in _OF_PRECISION:
        harmless = "how long was measured, which the intervals show, not what was measured"
    elif key in _AS_SWEPT:
        harmless = "whether it was a point of a sweep changes no load"
    return Field(
        name=f"scenario.{key}",
        said=f"point of the sweep ({key})" if swept else f"scenario ({key})",
        questions=(key,) if key in ("batch", "thinking") else (),  # type: ignore[arg-type]
        harmless=harmless,
        hint="compare the same point; `perjoule show` draws a sweep as a curve" if swept
        else "run the same scenario with the same --set",
        of=lambda r: r.scenario.spec.get(key),
    )  # fmt: skip
