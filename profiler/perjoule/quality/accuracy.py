"""How many answers are right, with an interval over questions.

Wilson's interval holds for few questions and near 0 and 1 [Wilson 1927, Journal of the American Statistical Association
22(158)]. Questions that belong together (the same one in several languages) are no independent evidence: their interval
is that of fewer questions, by how much the clusters differ [Miller 2024, arXiv 2411.00640, section 2.2].
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

from perjoule.records import Missing, Quantity
from perjoule.stats.intervals import CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
_STATISTIC = "share of right answers"
_LEAST = 2


def accuracy(correct: Sequence[bool], *, clusters: Sequence[str] = ()) -> Quantity | Missing:
    """Return the share of right answers with its 95 % interval over questions.

    ``clusters`` names for each answer what it belongs to; none: all are independent. Missing for fewer than two
    answers, or clusters. Raises ``ValueError`` for lists of unequal length.
    """
    n = len(correct)
    if clusters and len(clusters) != n:
        raise ValueError(f"{n} answers and {len(clusters)} clusters")
    groups = _groups(correct, clusters)
    if len(groups) < _LEAST:
        what = "cluster of questions" if clusters else "question"
        return Missing(reason=f"{len(groups)} {what}: an interval needs at least {_LEAST}")
    value = sum(correct) / n
    low, high = wilson(value, _effective(groups, n, value) if clusters else n)
    over = f"{len(groups)} clusters of questions" if clusters else "questions"
    return Quantity(
        value=value, low=min(low, value), high=max(high, value), unit="1", n=n, statistic=_STATISTIC,
        interval=f"95 % Wilson over {over}",
    )  # fmt: skip


def wilson(share: float, n: float) -> tuple[float, float]:
    """Return the bounds of Wilson's 95 % interval of a share of ``n`` trials; ``n`` need not be whole."""
    scale = 1 + _Z**2 / n
    centre = (share + _Z**2 / (2 * n)) / scale
    half = _Z / scale * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _groups(correct: Sequence[bool], clusters: Sequence[str]) -> list[list[bool]]:
    if not clusters:
        return [[one] for one in correct]
    found: dict[str, list[bool]] = {}
    for one, cluster in zip(correct, clusters, strict=True):
        found.setdefault(cluster, []).append(one)
    return list(found.values())


def _effective(groups: Sequence[Sequence[bool]], n: int, value: float) -> float:
    """Return how many independent answers would tell as much: at most all, at least one a cluster.

    From the variance of the share with clusters, times G / (G - 1) as for any sample of G clusters.
    """
    independent = value * (1 - value) / n
    if not independent:
        return len(groups)  # all alike: nothing shows how far clusters differ
    between = math.fsum((sum(group) - value * len(group)) ** 2 for group in groups)
    clustered = between / n**2 * len(groups) / (len(groups) - 1)
    return max(min(n, n * independent / clustered), min(n, len(groups))) if clustered else n
