"""MLPerf's early stopping: what n latencies show about a percentile at a stated confidence.

Method and constants (confidence 0.99, tolerance 0) are those of MLPerf Inference; the formula is in the comments of
``loadgen/early_stopping.cc`` of github.com/mlcommons/inference and how it is applied in ``loadgen/results.cc``. Were a
share of exactly 1 - p of all queries over the percentile, then t or fewer of n would be so with probability
I_p(n - t, t + 1), the binomial's distribution function by the regularised incomplete beta function. A run with t over
the limit passes where that probability is at most 1 - confidence. At tolerance 0 that is the classical
distribution-free upper confidence bound of a quantile. Queries are taken as independent, which a queue's are not:
the longer a busy period against the run, the less the confidence holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.records import UNSET, Reason, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.99
SINGLE_STREAM, MULTI_STREAM, SERVER = 0.90, 0.99, 0.99  # the percentiles of MLPerf's scenarios
_LEAST_OVER = 1  # LoadGen's estimate starts from one query over: 64 queries for p90, 662 for p99


class Estimate(Record, frozen=True, kw_only=True):
    """The early-stopping estimate of a percentile: with ``confidence`` the true one is not above ``value``.

    ``over`` is t, the most over-latency queries with which ``n`` pass; ``rank_from_top`` the order statistic taken
    (1: the highest), so that ``rank_from_top`` - 1 higher ones are discarded. ``value`` is in the unit of the
    latencies, None below ``least`` queries.
    """

    percentile: float
    confidence: float
    n: int
    least: int
    over: int | None
    rank_from_top: int | None
    value: float | None
    value_missing: Reason = UNSET


class ServerVerdict(Record, frozen=True, kw_only=True):
    """Whether the share of queries within the limit is shown; ``more`` is how many further ones, all within, would."""

    passed: bool
    n: int
    over: int
    more: int
    reason: str


def chance_of_at_most(over: int, n: int, percentile: float) -> float:
    """Return the probability of ``over`` or fewer of ``n`` independent queries above their true percentile."""
    if over >= n:
        return 1.0
    from scipy.special import betainc  # noqa: PLC0415 - heavy; only once results are computed

    return float(betainc(n - over, over + 1, percentile))


def least_queries(over: int, percentile: float, confidence: float = CONFIDENCE) -> int:
    """Return the fewest queries in all with which ``over`` of them over the limit pass.

    For one: 64 at p90 and 662 at p99, the minima that LoadGen prints.
    """
    _refuse_impossible(percentile, confidence)
    low, high = over, over + 1
    while not _passes(over, high, percentile, confidence):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _passes(over, middle, percentile, confidence) else (middle, high)
    return high


def most_over(n: int, percentile: float, confidence: float = CONFIDENCE) -> int | None:
    """Return the most over-latency queries with which ``n`` pass; None where even none would not do."""
    _refuse_impossible(percentile, confidence)
    if not _passes(0, n, percentile, confidence):
        return None
    low, high = 0, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _passes(middle, n, percentile, confidence) else (low, middle)
    return low


def estimate(latencies_s: Sequence[float], percentile: float, confidence: float = CONFIDENCE) -> Estimate:
    """Return the early-stopping estimate: the t-th highest latency, t as in ``most_over``, as LoadGen does."""
    n, least = len(latencies_s), least_queries(_LEAST_OVER, percentile, confidence)
    if n < least:
        return Estimate(
            percentile=percentile, confidence=confidence, n=n, least=least, over=None, rank_from_top=None, value=None,
            value_missing=f"early stopping at p{percentile * 100:g} needs at least {least} queries, there are {n}",
        )  # fmt: skip
    over = most_over(n, percentile, confidence) or _LEAST_OVER
    return Estimate(
        percentile=percentile, confidence=confidence, n=n, least=least, over=over, rank_from_top=over,
        value=sorted(latencies_s)[n - over],
    )  # fmt: skip


def single_stream(latencies_s: Sequence[float]) -> Estimate:
    """Return the estimate of the 90th percentile of single-stream queries."""
    return estimate(latencies_s, SINGLE_STREAM)


def multi_stream(latencies_s: Sequence[float]) -> Estimate:
    """Return the estimate of the 99th percentile; a multi-stream query is as late as the last of its samples."""
    return estimate(latencies_s, MULTI_STREAM)


def judge_server(over: int, n: int, share: float = SERVER, confidence: float = CONFIDENCE) -> ServerVerdict:
    """Judge whether at least ``share`` of a server run's queries are within the limit, at ``confidence``.

    ``over``: how many of the ``n`` queries took longer than the limit. Raises ``ValueError`` for impossible counts.
    """
    if not 0 <= over <= n:
        raise ValueError(f"over must lie between 0 and n, got {over} of {n}")
    need = least_queries(over, share, confidence)
    passed = n >= need
    told = f"{over} of {n} queries over the limit"
    if passed:
        reason = f"{told}: at least {share:.4g} are within it at confidence {confidence:g}"
    else:
        reason = f"{told}: {need - n} more within it would show {share:.4g} at confidence {confidence:g}"
    return ServerVerdict(passed=passed, n=n, over=over, more=max(0, need - n), reason=reason)


def _passes(over: int, n: int, percentile: float, confidence: float) -> bool:
    return chance_of_at_most(over, n, percentile) <= 1 - confidence


def _refuse_impossible(percentile: float, confidence: float) -> None:
    for name, value in (("percentile", percentile), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {value}")
