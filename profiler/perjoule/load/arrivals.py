"""When requests are due in an open loop: the same instants for the same seed, on every machine."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from perjoule.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.scenario import Arrivals

_ROUNDING = 1e-6  # of an arrival: 0.7 requests/s over 10 s are seven, whatever the last digit of the product says


def arrival_times(
    arrivals: Arrivals,
    *,
    rate_per_s: float | None,
    duration_s: float,
    recorded: Sequence[float] = (),
    seed: int = 0,
    process: int = 0,
) -> list[float]:
    """Return the seconds from the start of the load at which requests are due, in order, all before ``duration_s``.

    ``poisson``: exponential gaps of mean 1 / ``rate_per_s`` (MLPerf's server scenario), another draw for each process;
    ``constant``: one each 1 / ``rate_per_s``; ``recorded``: as given. A draw with no arrival gets one, at half the
    duration. Raises ``InputError`` where there is no rate.
    """
    if arrivals == "recorded":
        return [t for t in recorded if t < duration_s]
    if rate_per_s is None or rate_per_s <= 0:
        raise InputError(f"{arrivals} arrivals need a rate above 0", hint="give rate_per_s")
    if arrivals == "constant":
        return [i / rate_per_s for i in range(max(1, math.ceil(duration_s * rate_per_s - _ROUNDING)))]
    generator = random.Random(f"{seed}/{process}/arrivals")  # noqa: S311 - a schedule, not a secret
    times: list[float] = []
    at_s = generator.expovariate(rate_per_s)
    while at_s < duration_s:
        times.append(at_s)
        at_s += generator.expovariate(rate_per_s)
    return times or [duration_s / 2]
