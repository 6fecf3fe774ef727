"""What the same passage costs in one language as a multiple of another: tokens, joules, seconds.

Languages are rows beside each other; nothing is averaged over them.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from perjoule.records import UNSET, Missing, Reason, Record
from perjoule.stats.paired import log_ratio_half_width, log_ratios

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXACT = "exact: a count that does not vary"
PAIRED = "95 % over pairs of processes, log-ratios, Student t widened for stopping and correlation"
_ONE_PAIR = "one process: a spread between processes cannot be seen"


class RelativeCost(Record, frozen=True, kw_only=True):
    """``ratio`` is the language over the reference, of the same passage.

    ``amount`` is the language's own, the mean over processes, in the unit that was given; so is
    ``per_1000_characters``, which says little of languages: one character says more in Chinese than in English.
    """

    language: str
    amount: float
    ratio: float
    low: float | None
    high: float | None
    low_missing: Reason = UNSET
    high_missing: Reason = UNSET
    per_1000_characters: float
    n: int
    interval: str


def relative_cost(
    per_process: Mapping[str, Sequence[float]],
    characters: Mapping[str, int],
    *,
    reference: str = "en",
    exact: bool = False,
) -> dict[str, RelativeCost | Missing]:
    """Return each language's cost of the passage over that of ``reference``, in the order given.

    ``per_process`` holds one amount a process for each language, the same processes in the same order in all, so that
    ratios are taken within a process. ``exact`` is for counts (tokens): one amount, no spread. Missing for a language
    with another number of processes than the reference, or an amount that is not above 0. Raises ``ValueError``
    without the reference, or without the characters of a language.
    """
    base = per_process.get(reference)
    if not base or min(base) <= 0:
        raise ValueError(f"no amounts above 0 for the reference language {reference!r}")
    if lost := [language for language in per_process if characters.get(language, 0) < 1]:
        raise ValueError(f"no characters for {lost[0]!r}")
    return {
        language: _one(language, base, amounts, characters[language], exact=exact)
        for language, amounts in per_process.items()
    }


def _one(
    language: str, base: Sequence[float], amounts: Sequence[float], characters: int, *, exact: bool
) -> RelativeCost | Missing:
    if len(amounts) != len(base):
        return Missing(reason=f"{len(amounts)} processes, {len(base)} for the reference: they cannot be paired")
    if min(amounts) <= 0:
        return Missing(reason="an amount is not above 0, so there is no ratio")
    ratios = log_ratios(base, amounts)
    ratio = math.exp(statistics.fmean(ratios))
    half = 0.0 if exact else log_ratio_half_width(ratios)
    if exact and max(map(len, (set(base), set(amounts)))) > 1:
        return Missing(reason="a count that differs between processes is not exact")
    why: Reason = _ONE_PAIR if half is None else UNSET
    amount = statistics.fmean(amounts)
    return RelativeCost(
        language=language, amount=amount, ratio=ratio,
        low=None if half is None else ratio / (1 + half), high=None if half is None else ratio * (1 + half),
        low_missing=why, high_missing=why, per_1000_characters=amount / characters * 1000, n=len(ratios),
        interval=EXACT if exact else "none" if half is None else PAIRED,
    )  # fmt: skip
