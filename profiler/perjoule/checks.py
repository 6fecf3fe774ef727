"""What a reader must know before believing a result: pure functions from a result to checks.

Each check says what was seen and what to do next. ``invalid`` keeps a result from being published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.records import Check
from perjoule.scenario import from_facts
from perjoule.stats.selection import select
from perjoule.stats.steering import STEERING, half_widths, steering_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perjoule.records import RunResult

MAX_HARNESS_SHARE = 0.005  # of the measured time; docs/method.md, "Own cost"
# Tokens that two prompts of a process may share at their start: a beginning-of-sequence token and one word.
MAX_SHARED_PREFIX = 8


def run_checks(result: RunResult) -> tuple[Check, ...]:
    """Return every check that applies; energy's own come from ``perjoule.meters.energy``.

    ``result.checks`` and ``result.publishable`` are not read. Raises ``InputError`` for a wrong scenario spec.
    """
    return tuple(check for rule in _RULES for check in rule(result))


def _few_processes(result: RunResult) -> Iterator[Check]:
    least, there = from_facts(result.scenario).min_processes, len(result.processes)
    if there < least:
        yield Check(
            code="few_processes",
            severity="invalid",
            message=f"{there} fresh processes were measured; the scenario asks for at least {least}",
            hint="run again and let it finish",
            data={"processes": there, "min_processes": least},
        )


def _target_missed(result: RunResult) -> Iterator[Check]:
    scenario = from_facts(result.scenario)
    widths = half_widths(steering_values(result.samples, result.windows, result.processes, scenario))
    wide = {n: round(w, 4) for n, w in widths.items() if w > scenario.target_half_width}
    if wide:
        name, width = max(wide.items(), key=lambda item: item[1])
        yield Check(
            code="target_missed",
            severity="warning",
            message=f"{STEERING[name]} is known to +-{width:.1%} only;"
            f" the target is {scenario.target_half_width:.0%}",
            hint="give more time with --time-budget, or quieten the machine",
            data=wide,
        )


def _not_steady(result: RunResult) -> Iterator[Check]:
    restless = [p.process for p in result.processes if not p.steady]
    if restless:
        yield Check(
            code="not_steady",
            severity="warning",
            message=f"{len(restless)} of {len(result.processes)} processes had not settled when warm-up ended",
            hint="raise --set max_warmup_requests=N, or quieten the machine",
            data={"processes": restless},
        )


def _noisy_host(result: RunResult) -> Iterator[Check]:
    selection = select(result.samples, result.windows, from_facts(result.scenario))
    reasons = sorted({w.rejected for w in result.windows if w.rejected})
    data = {"rejected": selection.rejected, "measured": selection.measured, "example": reasons[:1]}
    if selection.kept_rejected:
        yield Check(
            code="noisy_host",
            severity="invalid",
            message=f"{selection.rejected} of {selection.measured} requests were disturbed and too few clean ones "
            f"remain, so all are used; for example {reasons[0]}",
            hint="stop other work on this machine and run again",
            data=data,
        )
    elif selection.rejected:
        yield Check(
            code="requests_rejected",
            severity="note",
            message=f"{selection.rejected} of {selection.measured} requests were disturbed and left out; "
            f"for example {reasons[0]}",
            hint="stop other work on this machine for more requests that count",
            data=data,
        )


def _noisy_blocks(result: RunResult) -> Iterator[Check]:
    windows = {w.id: w for w in result.windows}
    reasons = [windows[b.window].rejected for b in result.blocks if b.window in windows]
    disturbed = [r for r in reasons if r is not None]
    if disturbed and len(reasons) - len(disturbed) < len({s.process for s in result.samples}):
        yield Check(
            code="noisy_blocks",
            severity="invalid",
            message=f"{len(disturbed)} of {len(reasons)} blocks of prefills were disturbed and too few clean ones "
            f"remain, so all are used; for example {disturbed[0]}",
            hint="stop other work on this machine and run again",
            data={"disturbed": len(disturbed), "blocks": len(reasons)},
        )


def _no_requests(result: RunResult) -> Iterator[Check]:
    if not any(s.phase == "measured" for s in result.samples):
        yield Check(
            code="no_requests",
            severity="invalid",
            message="no request was measured",
            hint="run again and let it finish",
        )


def _simulated_sensors(result: RunResult) -> Iterator[Check]:
    domains = [m.domain for m in result.meters if m.simulated]
    calibration = result.settings.calibration
    if domains or result.host.simulated or (calibration is not None and calibration.simulated):
        yield Check(
            code="simulated_sensors",
            severity="invalid",
            message="host facts or sensors were read from a tree that is not the kernel's own",
            hint="unset PERJOULE_SYSFS and PERJOULE_PROCFS, or mount the host's trees there",
            data={"domains": domains},
        )


def _only_simulated_readers(result: RunResult) -> Iterator[Check]:
    domains = [m.domain for m in result.meters if m.only_simulated]
    if domains:
        yield Check(
            code="reader_never_on_hardware",
            severity="note",
            message=f"the reader of {domains[0]} has been run against simulated hardware only",
            hint="compare it with another meter, and tell the authors what you saw",
            data={"domains": domains},
        )


def _meter_notes(result: RunResult) -> Iterator[Check]:
    notes = {m.domain: m.note for m in result.meters if m.note}
    if notes:
        domain, note = next(iter(notes.items()))
        yield Check(
            code="meter_notes",
            severity="note",
            message=f"{domain}: {note}",
            hint="see `note` under meters in the result",
            data=notes,
        )


def _implausible_energy(result: RunResult) -> Iterator[Check]:
    for flag in result.energy.flags[:1]:
        yield Check(
            code="implausible_energy",
            severity="warning",
            message=f"joules do not fit: {flag.message}",
            hint="check the meters with `perjoule doctor`, then run again",
            data={f.code: f.message for f in result.energy.flags},
        )


def _modelled_energy(result: RunResult) -> Iterator[Check]:
    headline = result.energy.headline
    if headline is not None and headline.label in {"counter-modelled", "utilisation-modelled", "analytic"}:
        yield Check(
            code="modelled_energy",
            severity="note",
            message=f"joules are {headline.label}, not measured: {headline.grade}",
            hint="`perjoule doctor` says which sensors this machine has and how to allow them",
            data={"label": headline.label},
        )


def _no_energy(result: RunResult) -> Iterator[Check]:
    if result.energy.headline is None:
        yield Check(
            code="no_energy",
            severity="warning",
            message=f"no joules: {result.energy.headline_missing}",
            hint="check the meter with `perjoule doctor --meter NAME`, then run again"
            if result.settings.meters
            else "`perjoule doctor` says which sensors this machine has; --tdp W allows an estimate on bare metal",
        )


def _harness_overhead(result: RunResult) -> Iterator[Check]:
    share = result.overhead.harness_share
    if share > MAX_HARNESS_SHARE:
        yield Check(
            code="harness_overhead",
            severity="warning",
            message=f"perjoule itself used {share:.1%} of a core while measuring (limit {MAX_HARNESS_SHARE:.1%})",
            hint="use fewer meters, or longer requests",
            data={"share": round(share, 5)},
        )


def _shared_prefix(result: RunResult) -> Iterator[Check]:
    longest = max((p.shared_prefix_tokens for p in result.processes), default=0)
    if longest > MAX_SHARED_PREFIX:
        yield Check(
            code="shared_prefix",
            severity="warning",
            message=f"two prompts of one process begin with the same {longest} tokens: a prefix cache could help",
            hint="use a corpus whose prompts begin differently",
            data={"tokens": longest},
        )


def _synthetic_weights(result: RunResult) -> Iterator[Check]:
    if result.model.weights == "synthetic":
        yield Check(
            code="synthetic_weights",
            severity="note",
            message="the weights are synthetic: speed and energy only, no quality",
            hint="name a real checkpoint with --model",
        )


def _short_answers(result: RunResult) -> Iterator[Check]:
    wanted = from_facts(result.scenario).new_tokens
    short = sum(s.output_tokens < wanted for s in result.samples if s.phase == "measured")
    if short:
        yield Check(
            code="short_answers",
            severity="warning",
            message=f"{short} requests gave fewer than the {wanted} tokens asked for",
            hint="use a longer context, or a model that holds it",
            data={"requests": short},
        )


_RULES: tuple[Callable[[RunResult], Iterator[Check]], ...] = (
    _no_requests,
    _few_processes,
    _noisy_host,
    _noisy_blocks,
    _simulated_sensors,
    _target_missed,
    _not_steady,
    _short_answers,
    _shared_prefix,
    _harness_overhead,
    _no_energy,
    _modelled_energy,
    _implausible_energy,
    _only_simulated_readers,
    _meter_notes,
    _synthetic_weights,
)
