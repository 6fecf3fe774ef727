"""The highest offered rate at which an engine still meets its service level: where to look next."""

from __future__ import annotations

import math

from perjoule.records import Record

_STEP = 1.5  # from a rate that was met to the next, while none was missed
_BACK = 0.5  # from a rate that was missed, while none was met
RESOLUTION = 1.1  # met and missed rates this close to each other end the search
MOST_TRIALS = 10


class Trial(Record, frozen=True, kw_only=True):
    rate_per_s: float
    met: bool


class RateSearch:
    """Goes by factors from ``first_per_s`` until one rate was met and one missed, then halves their ratio.

    Latency grows with the rate, so one trial at each is enough to place the next; what the search ends with is
    measured again by other processes, and only that is reported.
    """

    def __init__(self, first_per_s: float, most_trials: int = MOST_TRIALS) -> None:
        self._first, self._most = first_per_s, most_trials
        self.trials: list[Trial] = []

    @property
    def best_per_s(self) -> float | None:
        """The highest rate that was met; None if none was."""
        return max((t.rate_per_s for t in self.trials if t.met), default=None)

    def next_per_s(self) -> float | None:
        """Return the rate to try next; None once the answer is known closely enough, or the trials are used up."""
        met, missed = self.best_per_s, min((t.rate_per_s for t in self.trials if not t.met), default=None)
        if len(self.trials) >= self._most:
            return None
        if met is None and missed is None:
            return self._first
        if missed is None:
            return (met or self._first) * _STEP
        if met is None:
            return missed * _BACK
        if met >= missed or missed / met <= RESOLUTION:
            return None
        return math.sqrt(met * missed)

    def tell(self, rate_per_s: float, *, met: bool) -> None:
        self.trials.append(Trial(rate_per_s=rate_per_s, met=met))
