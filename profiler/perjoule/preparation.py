"""Preparing a model before anything is measured: converted in a child, then held against what the scenario needs."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from perjoule import messages
from perjoule.child import Child
from perjoule.errors import EngineError, HostError, InputError, UsageError
from perjoule.memory_estimate import available_bytes, needed_bytes

if TYPE_CHECKING:
    from perjoule.plan import Configuration
    from perjoule.protocols import Prepared


def prepare(configuration: Configuration, stall_s: float, tell: messages.Tell) -> Prepared:
    """Return the configuration's model, ready to load. Raises ``UsageError`` where too little context is set."""
    scenario, options = configuration.scenario, configuration.options
    need = scenario.prompt_tokens + scenario.new_tokens
    if need > options.context_tokens:
        raise UsageError(
            f"the scenario needs a context of {need} tokens; {options.context_tokens} are set",
            hint="use a shorter prompt_tokens or new_tokens, or a larger context",
        )
    job = messages.PrepareJob(backend=configuration.backend, ref=configuration.model_ref, options=options)
    return prepare_model(job, stall_s, tell)


def refuse_unfit(configuration: Configuration, prepared: Prepared) -> None:
    """Refuse before anything is loaded what this model or this machine's memory cannot hold.

    Raises ``InputError`` where the scenario needs more context than the model has, ``HostError`` for a batch that is
    larger than memory: the kernel would end this process, or others.
    """
    if prepared.server is not None:
        _refuse_what_a_server_has_not(configuration)
    need = configuration.scenario.prompt_tokens + configuration.scenario.new_tokens
    if need > prepared.context_tokens:
        raise InputError(
            f"{configuration.model_ref} holds {prepared.context_tokens} tokens; the scenario needs {need}",
            hint="use a shorter prompt_tokens or new_tokens",
        )
    _refuse_large_batch(configuration, prepared)


def _refuse_what_a_server_has_not(configuration: Configuration) -> None:
    """Refuse what a server that is there already decides itself, or did before anybody looked."""
    scenario = configuration.scenario
    if scenario.shape == "cold-start":
        raise UsageError(
            f"scenario {scenario.name} measures loading; the server has loaded its model before",
            hint="use a backend that loads the model itself",
        )
    if scenario.sweep is not None and scenario.sweep.key == "threads":
        raise UsageError(
            f"scenario {scenario.name} sweeps threads; those of a server were set when it was started",
            hint="start the server with each number of threads, and run another scenario",
        )


def _refuse_large_batch(configuration: Configuration, prepared: Prepared) -> None:
    options, free = configuration.options, available_bytes()
    if options.batch == 1 or options.device != "cpu" or free is None:
        return  # the estimate is an upper one, so a single sequence is left to the engine

    def needed(batch: int) -> int:
        return needed_bytes(prepared.model, options.context_tokens, batch, configuration.scenario.prompt_tokens)

    if needed(options.batch) > free:
        fits = bisect_right(range(1, options.batch), free, key=needed)
        raise HostError(
            f"a batch of {options.batch} with a context of {options.context_tokens} tokens needs about "
            f"{needed(options.batch) / 1e9:.1f} GB of memory; {free / 1e9:.1f} GB are available",
            hint=f"--set batch={fits} would fit" if fits else "no batch fits: use a smaller model or a shorter context",
        )


def prepare_model(job: messages.PrepareJob, stall_s: float, tell: messages.Tell) -> Prepared:
    """Resolve and convert a model in a child process, so that its memory and imports end with it."""
    with Child(job, stall_s=stall_s) as child:
        while True:
            event = child.receive("preparing the model")
            if isinstance(event, messages.Progress):
                tell(event.text, event.done_share)
            elif isinstance(event, messages.PreparedReply):
                child.finish()
                return event.prepared
            else:
                raise EngineError(f"the worker answered {type(event).__name__}", hint="report this as a bug")
