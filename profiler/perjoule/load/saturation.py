"""Whether an engine keeps up with an open load, told as soon as it can be told."""

from __future__ import annotations

import math

MIN_ANSWERS, MIN_BLOCKS = 20, 10  # to judge from
MIN_WAITING = 5  # requests in the queue, below which a burst explains it
GRACE_SHARE, LONGEST_SHARE = 0.15, 0.5  # of the planned time, for what still waits when it is over
_MIN_FOR_GUESS = 5  # blocks, to guess how long the rest will take
_CERTAIN = 3.0  # standard errors: one false alarm in 700 looks at an engine that just keeps up
_NS = 1e9


class Saturation:
    """Watches one open load of ``rate_per_s`` requests a second on average, on an engine with ``places``.

    A stretch from one answer to the next counts where every place was taken all along: so long the engine answers as
    fast as it can. Whether one counts is known at its start; to choose by what waits at its end would favour the slow
    ones. Stretches are taken together in blocks of ``places`` answers, since places that began together end together.
    The load is beyond the engine when the offered rate times the mean time per answer (a ratio of sums over blocks;
    its standard error is the ratio estimator's: Cochran, Sampling Techniques, 6.3) is above 1 by more than three
    standard errors.

    Once the planned time is over, what waits is given a tenth and a half of it more if the rate seems too high, and
    half of it if a late burst is to blame; if it cannot be done by then, the load is beyond the engine too.
    """

    def __init__(self, rate_per_s: float, planned_s: float, places: int = 1) -> None:
        self._rate, self._planned_ns, self._places = rate_per_s, planned_s * _NS, places
        self._begin_ns = 0
        self._full_since_ns: int | None = None
        self._block_s, self._block_answers = 0.0, 0
        self._blocks, self._answers, self._seconds = 0, 0, 0.0
        self._seconds2, self._product, self._answers2 = 0.0, 0.0, 0  # sums of squares, and of seconds times answers

    def begin(self, now_ns: int) -> None:
        self._begin_ns = now_ns

    def answered(self, now_ns: int, count: int, waiting: int, *, full: bool) -> str:
        """Hear of ``count`` answers at once while ``waiting`` requests were in the queue.

        ``full``: with those that wait, every place is taken again. Returns the verdict, empty if it keeps up.
        """
        if self._full_since_ns is not None:
            self._block_s += (now_ns - self._full_since_ns) / _NS
            self._block_answers += count
            if self._block_answers >= self._places or not full:
                self._close_block()
        self._full_since_ns = now_ns if full else None
        if self._answers < MIN_ANSWERS or self._blocks < MIN_BLOCKS or waiting < MIN_WAITING:
            return ""
        mean_s = self._seconds / self._answers
        if self._rate * (mean_s - _CERTAIN * self._standard_error_s(mean_s)) <= 1:
            return ""
        return (
            f"saturated: {self._rate:.3g} requests/s are offered, about {1 / mean_s:.3g} are answered; "
            f"{waiting} wait after {(now_ns - self._begin_ns) / _NS:.3g} s, so the load was ended early"
        )

    def overdue(self, now_ns: int, unanswered: int) -> str:
        """Return the verdict once the time for what still waits cannot suffice; empty before."""
        late_ns = now_ns - self._begin_ns - self._planned_ns
        if not unanswered or late_ns <= 0:
            return ""
        known = self._blocks >= _MIN_FOR_GUESS
        mean_s = self._seconds / self._answers if known else 0.0
        slack = known and self._rate * (mean_s - self._standard_error_s(mean_s)) <= 1
        share = LONGEST_SHARE if slack else GRACE_SHARE
        if late_ns + unanswered * mean_s * _NS <= share * self._planned_ns:
            return ""
        return (
            f"saturated: {unanswered} requests were unanswered {late_ns / _NS:.3g} s after the load was to end; "
            f"{self._rate:.3g} requests/s are more than the engine answers"
        )

    def _close_block(self) -> None:
        seconds, count = self._block_s, self._block_answers
        self._block_s, self._block_answers = 0.0, 0
        self._blocks += 1
        self._answers += count
        self._seconds += seconds
        self._seconds2 += seconds * seconds
        self._product += seconds * count
        self._answers2 += count * count

    def _standard_error_s(self, mean_s: float) -> float:
        squares = self._seconds2 - 2 * mean_s * self._product + mean_s * mean_s * self._answers2
        variance = max(0.0, squares) / (self._blocks - 1)
        return math.sqrt(variance * self._blocks) / self._answers
