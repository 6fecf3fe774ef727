"""How much wider than Student's an interval over processes must be: they follow each other, and stopping looks at them.

Two corrections, measured by benchmarks/coverage.py on machines fitted to the traces in tests/noise:

* Processes are added until the interval is narrow, so it is read when it happens to be narrow. What that costs in
  coverage falls as 1/n [Woodroofe 1977, Annals of Statistics 5(5)]: the t quantile is
  taken at a miss probability of 5 % times n / (n + 2).
* Successive processes resemble each other: what disturbs a shared host outlives a process. The variance of a mean
  grows by 1 + 2 r / (1 - f), where r is the correlation of neighbours and falls by the factor f a process more. Too few
  processes show r, so their estimate counts beside ``PRIOR_LAG1``, which stands for ``PRIOR_PROCESSES`` of them; its
  bias of -(1 + 3 r) / n is taken out [Kendall 1954, Biometrika 41(3-4)]. Under noise of its own each process shows
  less of r than it has, so f is at least ``LEAST_DECAY``.

The constants were chosen on those machines, whose correlation of 0.4 is the mean over traces and metrics. Where it is
0.55, as in the trace where it is highest, intervals at the targets of quick and standard hold 87 to 90 %.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

MISS = 0.05
STOPPING = 2.0  # n / (n + 2) of the misses are left to chance, the others to stopping
PRIOR_LAG1 = 0.17  # between no memory and the 0.4 of the traces
PRIOR_PROCESSES = 30.0
LEAST_DECAY = 0.5
_MOST_LAG1 = 0.9


def miss_probability(n: Any) -> Any:
    """Return the two-sided miss probability at which the t quantile is taken for n processes; floats or arrays."""
    return MISS * n / (n + STOPPING)


def lag1(values: Sequence[float]) -> float:
    """Return the correlation of neighbours, as it is seen (biased); 0 where all values are the same."""
    mean = math.fsum(values) / len(values)
    off = [v - mean for v in values]
    total = math.fsum(d * d for d in off)
    return math.fsum(a * b for a, b in itertools.pairwise(off)) / total if total > 0 else 0.0


def variance_inflation(n: Any, seen_lag1: Any, prior: float = PRIOR_LAG1) -> Any:
    """Return by how much correlation of neighbours raises the variance of a mean over n; floats or arrays.

    ``seen_lag1`` as ``lag1`` returns it. ``prior`` is 0 for what order should not matter to: pairs, in random order.
    """
    import numpy as np  # noqa: PLC0415 - heavy; only once results are computed

    unbiased = seen_lag1 + (1 + 3 * seen_lag1) / n
    r = np.minimum(np.maximum((PRIOR_PROCESSES * prior + n * unbiased) / (PRIOR_PROCESSES + n), 0.0), _MOST_LAG1)
    return 1 + 2 * r / (1 - np.maximum(r, LEAST_DECAY))


def widened_half_width(n: Any, stdev: Any, seen_lag1: Any, prior: float = PRIOR_LAG1) -> Any:
    """Return the half-width of the 95 % interval of the mean of n >= 2 successive values; floats or arrays."""
    import numpy as np  # noqa: PLC0415
    from scipy.special import stdtrit  # noqa: PLC0415 - heavy; only once results are computed

    quantile = stdtrit(n - 1, 1 - miss_probability(n) / 2)
    return quantile * stdev * np.sqrt(variance_inflation(n, seen_lag1, prior) / n)
