"""Whether one configuration is better than another: ratios of their per-process values, with verdicts.

Interleaved runs are compared by the log-ratio of each pair of processes, separate runs by Welch's test on the logs. All
p values and intervals are widened as ``perjoule.stats.widening`` says; pairs, whose order is drawn, have no prior
correlation. What an A-A control (the same configuration twice) differs by more than chance enters as variance, with the
few degrees of freedom that so few controls have. Verdicts are for the primary family and for metrics that are named,
Holm-corrected over them [Holm 1979, Scandinavian Journal of Statistics 6(2)].
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Literal

from perjoule.records import UNSET, Reason, Record
from perjoule.stats.widening import MISS, PRIOR_LAG1, lag1, miss_probability, variance_inflation

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

PRIMARY = ("ttft_s", "decode_tokens_per_s", "energy_j_per_output_token", "peak_memory_bytes")
Verdict = Literal["better", "worse", "not distinguishable"]
PAIRED = "log-ratios of interleaved process pairs, Student t widened for stopping and correlation"
SEPARATE = "Welch t on logs of per-process values, widened for stopping and correlation"
_UNNAMED = "only the primary family and metrics that are named are judged"


class Control(Record, frozen=True, kw_only=True):
    """What A-A controls show beyond chance: ``variance`` of the log-ratio of a configuration with itself."""

    variance: float
    controls: int


class Comparison(Record, frozen=True, kw_only=True):
    """``ratio`` is candidate over baseline. ``n``: pairs, or the fewer processes of the two runs.

    ``p`` is two-sided; with a ``threshold``, "worse" means worse by more than that share. ``adjusted_p`` is Holm's.
    """

    metric: str
    ratio: float
    low: float | None
    high: float | None
    low_missing: Reason = UNSET
    high_missing: Reason = UNSET
    p: float | None
    p_missing: Reason = UNSET
    adjusted_p: float | None
    adjusted_p_missing: Reason = UNSET
    verdict: Verdict | None
    verdict_missing: Reason = UNSET
    threshold: float
    n: int
    method: str


class _Effect(Record, frozen=True, kw_only=True):
    """A mean log-ratio, its standard error and degrees of freedom, and the least p that chance could ever show."""

    log_ratio: float
    error: float | None
    freedom: float
    least_p: float
    n: int
    method: str


def log_ratios(baseline: Sequence[float], candidate: Sequence[float]) -> list[float]:
    """Return the log of candidate over baseline of each pair. Raises ``ValueError`` for unequal counts, or a 0."""
    return [b - a for a, b in zip(_logs(baseline), _logs(candidate), strict=True)]


def control(controls: Sequence[Sequence[float]]) -> Control:
    """Return what A-A controls show beyond chance, from the log-ratios of the pairs of each.

    The method of moments: the mean square of their means less that of their standard errors, 0 where chance explains
    it. Raises ``ValueError`` for a control of fewer than two pairs, or none.
    """
    if not controls or min(map(len, controls)) < 2:  # noqa: PLR2004 - a spread needs a pair
        raise ValueError("an A-A control needs at least two pairs")
    beyond = statistics.fmean(statistics.fmean(r) ** 2 - statistics.variance(r) / len(r) for r in controls)
    return Control(variance=max(0.0, beyond), controls=len(controls))


def least_pairs(family: int) -> int:
    """Return the fewest pairs that could show a difference at 5 % in a family of so many tests.

    Were order drawn by coin, n pairs all on one side had a chance of 2 ** (1 - n): 6 pairs for one test, 8 for four.
    """
    return next(n for n in range(2, 64) if _least_p_pairs(n) <= MISS / max(1, family))


def log_ratio_half_width(ratios: Sequence[float], known: Control | None = None) -> float | None:
    """Return the half-width of the 95 % interval of the ratio, relative to it; None for fewer than two pairs."""
    half = _half_width(_paired(ratios, known))
    return None if half is None else math.expm1(min(half, 700.0))


def log_ratio_interval(ratios: Sequence[float], *, family: int = 1) -> tuple[float, float | None, float | None]:
    """Return the mean of log-ratios of pairs and its bounds; None for bounds of fewer than two pairs.

    The bounds are of 95 %, for all intervals of a ``family`` together [Bonferroni].
    """
    effect = _paired(ratios, None)
    half = _half_width(effect, family)
    if half is None:
        return effect.log_ratio, None, None
    return effect.log_ratio, effect.log_ratio - half, effect.log_ratio + half


def compare_pairs(
    values: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    controls: Mapping[str, Control] | None = None,
    named: Collection[str] = (),
    threshold: float = 0.0,
) -> dict[str, Comparison]:
    """Compare interleaved runs, from one value a process of (baseline, candidate), pair by pair, of each metric.

    Raises ``ValueError`` for lists of unequal length, for values that are not above 0, and for a negative threshold.
    """
    known = controls or {}
    return _judge({m: _paired(log_ratios(a, b), known.get(m)) for m, (a, b) in values.items()}, named, threshold)


def compare_separate(
    values: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    controls: Mapping[str, Control] | None = None,
    named: Collection[str] = (),
    threshold: float = 0.0,
) -> dict[str, Comparison]:
    """Compare runs that were not interleaved, from one value a process of (baseline, candidate), each in its order.

    What the machine did between the two is in the ratio and in no interval. Raises ``ValueError`` as ``compare_pairs``.
    """
    known = controls or {}
    return _judge({m: _separate(a, b, known.get(m)) for m, (a, b) in values.items()}, named, threshold)


def higher_is_better(metric: str) -> bool:
    """Say whether more is better: rates are named ``..._per_s``."""
    return metric.endswith("_per_s")


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return Holm's adjusted p values."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda n: p_values[n])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = highest
    return adjusted


def _judge(effects: Mapping[str, _Effect], named: Collection[str], threshold: float) -> dict[str, Comparison]:
    if threshold < 0:
        raise ValueError(f"threshold must not be negative, got {threshold}")
    family = [m for m in effects if m in PRIMARY or m in named]
    p_values = {
        m: p for m in family if (p := _p_value(m, effects[m], threshold)) is not None
        and effects[m].least_p <= MISS / len(family)
    }  # fmt: skip
    adjusted = holm(p_values)
    return {
        m: _comparison(m, e, p_values.get(m), adjusted.get(m), family, threshold) for m, e in effects.items()
    }  # fmt: skip


def _comparison(
    metric: str, effect: _Effect, p: float | None, adjusted: float | None, family: Sequence[str], threshold: float
) -> Comparison:
    half = _half_width(effect)
    no_bounds: Reason = "fewer than two processes: no spread can be seen" if half is None else UNSET
    why: Reason = UNSET
    verdict: Verdict | None = "not distinguishable"
    if metric not in family:
        verdict, why = None, _UNNAMED
    elif p is None:
        why = f"n = {effect.n} cannot show a difference at {MISS:.0%} in a family of {len(family)}"
    elif adjusted is not None and adjusted <= MISS:
        worse = _worsening(metric, effect.log_ratio)
        verdict = "worse" if worse > 0 else "better"
    return Comparison(
        metric=metric, ratio=math.exp(effect.log_ratio),
        low=None if half is None else math.exp(effect.log_ratio - half),
        high=None if half is None else math.exp(min(effect.log_ratio + half, 700.0)),
        low_missing=no_bounds, high_missing=no_bounds,
        p=p, p_missing=why, adjusted_p=adjusted, adjusted_p_missing=why,
        verdict=verdict, verdict_missing=_UNNAMED if verdict is None else UNSET,
        threshold=threshold, n=effect.n, method=effect.method,
    )  # fmt: skip


def _paired(ratios: Sequence[float], known: Control | None) -> _Effect:
    n = len(ratios)
    error, freedom = _mean_error(ratios, 0.0), n - 1.0
    error, freedom = _with_control(error, freedom, known)
    return _Effect(
        log_ratio=statistics.fmean(ratios), error=error, freedom=freedom, least_p=_least_p_pairs(n), n=n, method=PAIRED
    )


def _separate(baseline: Sequence[float], candidate: Sequence[float], known: Control | None) -> _Effect:
    sides = [_logs(baseline), _logs(candidate)]
    errors = [_mean_error(side, PRIOR_LAG1) for side in sides]
    counts = [len(side) for side in sides]
    error, freedom = None, 0.0
    if errors[0] is not None and errors[1] is not None:
        error, freedom = _satterthwaite([(errors[0] ** 2, counts[0] - 1), (errors[1] ** 2, counts[1] - 1)])
    error, freedom = _with_control(error, freedom, known)
    return _Effect(
        log_ratio=statistics.fmean(sides[1]) - statistics.fmean(sides[0]), error=error, freedom=freedom,
        least_p=min(1.0, 2 / math.comb(sum(counts), counts[0])), n=min(counts), method=SEPARATE,
    )  # fmt: skip


def _mean_error(values: Sequence[float], prior: float) -> float | None:
    """Return the standard error of the mean of successive values; None for fewer than two."""
    n = len(values)
    if n < 2:  # noqa: PLR2004 - a spread needs a pair
        return None
    return statistics.stdev(values) * math.sqrt(float(variance_inflation(n, lag1(values), prior)) / n)


def _with_control(error: float | None, freedom: float, known: Control | None) -> tuple[float | None, float]:
    if error is None or known is None or not known.variance:
        return error, freedom
    return _satterthwaite([(error**2, freedom), (known.variance, known.controls)])


def _satterthwaite(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the standard error of a sum of (variance, degrees of freedom), and its degrees [Welch 1947]."""
    total = sum(v for v, _ in parts)
    if not total:
        return 0.0, sum(f for _, f in parts)
    return math.sqrt(total), total**2 / sum(v**2 / f for v, f in parts)


def _half_width(effect: _Effect, family: int = 1) -> float | None:
    if effect.error is None:
        return None
    from scipy.special import stdtrit  # noqa: PLC0415 - heavy; only once results are computed

    return float(stdtrit(effect.freedom, 1 - miss_probability(effect.n) / (2 * family))) * effect.error


def _p_value(metric: str, effect: _Effect, threshold: float) -> float | None:
    """Return the two-sided p, never below what the order of so few values could show; None without a spread."""
    if effect.error is None:
        return None
    from scipy.special import stdtr  # noqa: PLC0415 - heavy; only once results are computed

    worsening = _worsening(metric, effect.log_ratio)
    off = max(worsening - math.log1p(threshold), -worsening)
    if off <= 0:
        return 1.0
    tail = 2 * float(stdtr(effect.freedom, -off / effect.error)) if effect.error else 0.0
    return min(1.0, max(effect.least_p, tail * MISS / float(miss_probability(effect.n))))


def _worsening(metric: str, log_ratio: float) -> float:
    return -log_ratio if higher_is_better(metric) else log_ratio


def _least_p_pairs(n: int) -> float:
    return min(1.0, 2.0 ** (1 - n))


def _logs(values: Sequence[float]) -> list[float]:
    if not values or min(values) <= 0:
        raise ValueError("a ratio needs values above 0 on both sides")
    return [math.log(v) for v in values]
