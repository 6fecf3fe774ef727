"""What two figures of energy have in common, and what of their ratio stays unknown.

One host with one reader: the gain of a sensor, or the coefficients of a model, are common to both sides and cancel; of
a model there remains what differs with the mix of instructions and turbo (x/÷ 1.25, docs/energy.md), unless both sides
run the same engine at the same precision. Between hosts, or readers, nothing cancels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from perjoule.records import Energy, Record

if TYPE_CHECKING:
    from perjoule.records import RunResult

METRICS = frozenset({"energy_j_per_output_token", "energy_j_per_request", "power_w"})
MODEL_RESIDUAL = 1.25  # docs/energy.md, "Intervals": turbo and instruction mix; a judgement


class Systematic(Record, frozen=True, kw_only=True):
    """By how much the log of candidate over baseline may be too high (``down``) or too low (``up``), and why."""

    down: float = 0.0
    up: float = 0.0
    why: str = ""


def systematic(a: RunResult, b: RunResult, metric: str) -> Systematic | str:
    """Return what of the ratio b / a does not cancel, or why the two must not be compared.

    ``metric`` is an energy that both have. Random parts are left to the processes.
    """
    left, right = a.metric(metric), b.metric(metric)
    if not isinstance(left, Energy) or not isinstance(right, Energy):
        raise TypeError(f"{metric} is no energy of both results")
    unlike = [
        f"{said} {one} against {other}"
        for said, one, other in (
            ("label", left.label, right.label), ("scope", left.scope, right.scope),
            ("convention", left.convention, right.convention),
        )
        if one != other
    ]  # fmt: skip
    if unlike:
        return f"joules of another kind: {', '.join(unlike)}"
    if _one_reader(a, b, left, right):
        return _on_one_host(a, b, left)
    if left.label != "measured" and not _disjoint(left, right):
        return "modelled with coefficients that are not common, and the whole intervals overlap"
    return _nothing_cancels(left, right)


def _one_reader(a: RunResult, b: RunResult, left: Energy, right: Energy) -> bool:
    """Say whether the same sensor, or the same model with the same coefficients, gave both."""
    if a.host.machine_id != b.host.machine_id or left.grade != right.grade:
        return False
    if left.label == "measured":
        return _sensors(a) == _sensors(b)
    return (a.settings.tdp_w, a.settings.calibration) == (b.settings.tdp_w, b.settings.calibration)


def _sensors(result: RunResult) -> list[tuple[object, ...]]:
    return sorted((m.domain, m.scope, m.grade, m.source, str(m.unit_j), str(m.tolerance)) for m in result.meters)


def _on_one_host(a: RunResult, b: RunResult, left: Energy) -> Systematic:
    if left.label == "measured":
        return Systematic(why="one sensor: its gain cancels")
    if _work(a) == _work(b):
        return Systematic(why="one model of power, one engine, one precision: its coefficients cancel")
    half = math.log(MODEL_RESIDUAL)
    return Systematic(
        down=half, up=half,
        why=f"one model of power: its coefficients cancel but for x/÷ {MODEL_RESIDUAL:g} (turbo, instruction mix)",
    )  # fmt: skip


def _work(result: RunResult) -> tuple[object, ...]:
    backend, model = result.backend, result.model
    return backend.name, backend.engine_version, backend.device, model.runtime_quantization, model.source_quantization


def _nothing_cancels(left: Energy, right: Energy) -> Systematic:
    (low_a, high_a), (low_b, high_b) = _relative(left), _relative(right)
    return Systematic(
        down=math.log(high_a / low_b), up=math.log(high_b / low_a),
        why="not the same reader: what is systematic on each side adds up",
    )  # fmt: skip


def _relative(energy: Energy) -> tuple[float, float]:
    low, high = energy.systematic
    return max(low / energy.value, math.ulp(1.0)), high / energy.value


def _disjoint(left: Energy, right: Energy) -> bool:
    if None in (left.low, left.high, right.low, right.high):
        return False
    return (left.high or 0.0) < (right.low or 0.0) or (right.high or 0.0) < (left.low or 0.0)
