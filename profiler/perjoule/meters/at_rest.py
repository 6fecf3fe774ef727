"""Idle power of the total, from that of its domains before and after a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.meters.amounts import Part, Range, total
from perjoule.records import Energy, IdlePower, Metric, Missing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def idle_power(idle: IdlePower) -> Metric:
    """Return idle power of the total before the run, W."""
    if not idle.before:
        return Missing(reason=str(idle.before_missing))
    domains = list(idle.before.values())
    if len(domains) == 1:
        return domains[0]
    return Energy(
        value=sum(e.value for e in domains),
        low=sum(e.low or 0.0 for e in domains),
        high=sum(e.high or e.value for e in domains),
        unit="W",
        n=1,
        statistic=domains[0].statistic,
        interval=domains[0].interval,
        label=domains[0].label,
        grade="+".join(dict.fromkeys(e.grade for e in domains)),
        scope="+".join(dict.fromkeys(e.scope for e in domains)),
        convention="gross",
        random=_sum_of_pairs([e.random for e in domains]),
        systematic=_sum_of_pairs([e.systematic for e in domains]),
    )


def idle_watts(idle: IdlePower) -> Part | str:
    """Return idle power of the total as joules per second, the mean of before and after; or why there is none."""
    if not idle.before or not idle.after:
        reason = idle.before_missing if not idle.before else idle.after_missing
        return f"no idle power to subtract: {reason}"
    mean, drift_w = total([*_halves(idle.before), *_halves(idle.after)]), _drift_w(idle.before, idle.after)
    low, value, high = mean.joules.low, mean.joules.value, mean.joules.high
    return Part(
        domain="idle", random_j=mean.random_j,
        joules=Range(low=max(0.0, low - drift_w / 2), value=value, high=high + drift_w / 2),
    )  # fmt: skip


def _halves(side: Mapping[str, Energy]) -> list[Part]:
    return [
        Part(
            domain=name, random_j=(e.random[1] - e.value) / 2,
            joules=Range(low=e.systematic[0] / 2, value=e.value / 2, high=e.systematic[1] / 2),
        )
        for name, e in side.items()
    ]  # fmt: skip


def _drift_w(before: Mapping[str, Energy], after: Mapping[str, Energy]) -> float:
    """Return by how much idle power changed; half of it to either side of the mean is what it may have been."""
    return abs(sum(e.value for e in after.values()) - sum(e.value for e in before.values()))


def _sum_of_pairs(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(low for low, _ in pairs), sum(high for _, high in pairs)
