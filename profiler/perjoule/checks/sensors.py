"""What stands behind the joules, and what perjoule itself cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.records import Check
from perjoule.roofline.shares import impossible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perjoule.records import RunResult

MAX_HARNESS_SHARE = 0.005  # of the measured time


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


def _never_on_hardware(result: RunResult) -> Iterator[Check]:
    device = result.backend.device
    if device.startswith("cuda"):
        yield Check(
            code="device_never_on_hardware",
            severity="note",
            message=f"{result.backend.name} on {device} is experimental: its authors have never run it on a GPU",
            hint="compare time and quality with --device cpu, and tell the authors what you saw",
            data={"device": device},
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


def _synthetic_weights(result: RunResult) -> Iterator[Check]:
    if result.model.weights == "synthetic":
        yield Check(
            code="synthetic_weights",
            severity="note",
            message="the weights are synthetic: speed and energy only, no quality",
            hint="name a real checkpoint with --model",
        )


def _beyond_roofline(result: RunResult) -> Iterator[Check]:
    for beyond in impossible(result.roofline):
        yield Check(
            code="beyond_roofline",
            severity="warning",
            message=f"faster than the measured limit of this machine: {beyond}",
            hint="the limit was measured low while others worked: measure it again with `perjoule doctor`",
        )


RULES: tuple[Callable[[RunResult], Iterator[Check]], ...] = (
    _simulated_sensors,
    _only_simulated_readers,
    _never_on_hardware,
    _meter_notes,
    _implausible_energy,
    _modelled_energy,
    _no_energy,
    _harness_overhead,
    _synthetic_weights,
    _beyond_roofline,
)
