"""Gaps between tokens (ITL), from times of tokens or, where a file would hold too many, from histograms of them."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import TYPE_CHECKING

from perjoule.records import GapHistogram, Metric, Missing
from perjoule.stats.intervals import least_for_percentile, percentile, t_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.records import Sample

ONE_TOKEN = "every request gave one token, so there is no gap between tokens"  # noqa: S105 - a reason
FIRST_S, RATIO = 1e-6, 1.01  # a histogram's bins: from a microsecond on, 1 % wide


def gaps_of(sample: Sample) -> list[float]:
    times = sample.token_times_s or ()
    return [after - before for before, after in itertools.pairwise(times)]


def histogram(process: int, samples: Sequence[Sample]) -> GapHistogram:
    """Return the gaps of one process in bins 1 % wide."""
    counts: dict[int, int] = {}
    for gap in (g for s in samples for g in gaps_of(s)):
        place = max(0, math.floor(math.log(gap / FIRST_S) / math.log(RATIO))) if gap > FIRST_S else 0
        counts[place] = counts.get(place, 0) + 1
    size = max(counts, default=-1) + 1
    return GapHistogram(
        process=process, first_s=FIRST_S, ratio=RATIO, counts=tuple(counts.get(i, 0) for i in range(size))
    )


def quantile_of(gaps: GapHistogram, share: float) -> float:
    """Return a percentile to within half a bin (0.5 %): the geometric middle of the bin it lies in."""
    due, seen = share * sum(gaps.counts), 0
    for place, count in enumerate(gaps.counts):
        seen += count
        if count and seen >= due:
            return gaps.first_s * math.pow(gaps.ratio, place + 0.5)
    msg = "a histogram without gaps has no percentile"
    raise ValueError(msg)


def itl(groups: Sequence[Sequence[Sample]], histograms: Sequence[GapHistogram]) -> Metric:
    """Return the median gap between tokens of a process, over processes."""
    if histograms:
        values = [quantile_of(h, 0.5) for h in histograms if sum(h.counts)]
    else:
        values = [statistics.median(gaps) for group in groups if (gaps := [g for s in group for g in gaps_of(s)])]
    if not values:
        return Missing(reason=_no_gaps(groups))
    return t_interval(values, unit="s", statistic="mean of per-process medians over gaps")


def itl_p99(groups: Sequence[Sequence[Sample]], histograms: Sequence[GapHistogram]) -> Metric:
    """Return the 99th percentile of the gaps of a process, over processes; each needs 100 gaps."""
    per_process = [[g for s in group for g in gaps_of(s)] for group in groups]
    counts = [sum(h.counts) for h in histograms] if histograms else [len(gaps) for gaps in per_process]
    fewest, least = min(counts, default=0), least_for_percentile(0.99)
    if not fewest:
        return Missing(reason=_no_gaps(groups))
    if fewest < least:
        return Missing(reason=f"p99 needs at least {least} gaps a process, the shortest has {fewest}")
    if histograms:
        values = [quantile_of(h, 0.99) for h in histograms]
    else:
        values = [percentile(gaps, 0.99) for gaps in per_process]
    return t_interval(values, unit="s", statistic="mean of per-process p99 over gaps")


def _no_gaps(groups: Sequence[Sequence[Sample]]) -> str:
    reasons = [s.token_times_s_missing for group in groups for s in group if s.token_times_s is None]
    return next((r for r in reasons if isinstance(r, str)), ONE_TOKEN)
