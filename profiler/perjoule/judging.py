"""Finding the quality of a configuration before it is timed: in a child, beside the checkpoint at fp32."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from perjoule import messages
from perjoule.child import Child
from perjoule.errors import EngineError, PerjouleError
from perjoule.memory_estimate import available_bytes
from perjoule.preparation import prepare_model

if TYPE_CHECKING:
    from perjoule.plan import Configuration
    from perjoule.protocols import Prepared
    from perjoule.records import Quality

REFERENCE_BACKEND = "onnxruntime"
NOT_ASKED = "not asked for: --quality fidelity measures it"
_FP32_BYTES = 4
_CONTEXT_TOKENS = 1088  # what the pinned texts need at a time, however short the requests that are timed
_SHARE_OF_MEMORY = 0.5  # what the fp32 weights may take: they lie beside the engine's, and are copied while loading


def quality_of(
    configuration: Configuration,
    prepared: Prepared,
    wanted: messages.QualityWanted,
    machine_id: str,
    stall_s: float,
    tell: messages.Tell,
) -> Quality | str:
    """Return the quality of a configuration's engine, or why it is not known.

    A failure costs the quality and not the run, whose numbers it says nothing of: it is the reason. ``prepared`` is the
    model as it will be timed.
    """
    why_not = _no_quality(configuration, prepared, wanted)
    if why_not:
        return why_not
    job = messages.QualityJob(
        backend=configuration.backend,
        prepared=replace(prepared, context_tokens=max(prepared.context_tokens, _CONTEXT_TOKENS)),
        options=replace(configuration.options, batch=1, context_tokens=_CONTEXT_TOKENS),
        reference_backend=REFERENCE_BACKEND,
        reference=_reference(configuration, prepared, stall_s, tell),
        machine_id=machine_id,
        wanted=wanted,
    )
    try:
        return _in_a_child(job, stall_s, tell)
    except PerjouleError as error:
        return f"it could not be measured: {error.message}"


def _no_quality(configuration: Configuration, prepared: Prepared, wanted: messages.QualityWanted) -> str:
    if wanted == "none":
        return NOT_ASKED
    if configuration.scenario.shape == "idle":
        return "the scenario runs no model"
    if prepared.model.weights == "synthetic":
        return "the weights are synthetic: there is no quality to measure"
    if not prepared.folder:
        return f"the {configuration.backend} engine has no weights"
    return ""


def _reference(configuration: Configuration, prepared: Prepared, stall_s: float, tell: messages.Tell) -> Prepared | str:
    """Return the same checkpoint at fp32, or why it cannot be had here."""
    need, free = _FP32_BYTES * (prepared.model.parameters or 0), available_bytes()
    if free is not None and need > _SHARE_OF_MEMORY * free:
        return (
            f"the checkpoint at fp32 takes {need / 1e9:.1f} GB beside the engine; "
            f"{free / 1e9:.1f} GB of memory are available"
        )
    options = replace(configuration.options, quant="fp32", batch=1, extra={}, device="cpu")
    job = messages.PrepareJob(backend=REFERENCE_BACKEND, ref=configuration.model_ref, options=options)
    try:
        return prepare_model(job, stall_s, tell)
    except PerjouleError as error:
        return f"no reference: {error.message}"


def _in_a_child(job: messages.QualityJob, stall_s: float, tell: messages.Tell) -> Quality:
    with Child(job, stall_s=stall_s) as child:
        while True:
            event = child.receive("measuring quality")
            if isinstance(event, messages.Progress):
                tell(event.text, event.done_share)
            elif isinstance(event, messages.QualityReply):
                child.finish()
                return event.quality
            else:
                raise EngineError(f"the worker answered {type(event).__name__}", hint="report this as a bug")
