"""What blocks of fidelity amount to: means with intervals, computed again from a result's own blocks.

A block is the unit of replication, since neighbouring positions share their context. Texts are fixed, not drawn, so the
spread is that of blocks within each text (stratified sampling, Cochran 1977, section 5.3): the interval says how far
other passages of texts like these might differ. No numpy here: every verification of a result comes this way.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from perjoule.records.base import Quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perjoule.records.quality import Fidelity, FidelityBlock

BLOCK_POSITIONS = 64
FAITHFUL_NATS = 0.02  # mean divergence up to which an encoding is called faithful to its file
INTERVAL = f"95 % Student t over blocks of {BLOCK_POSITIONS} positions within each text"
_CONFIDENCE = 0.95


def derive_fidelity(found: Fidelity) -> Fidelity:
    """Return the fidelity with everything that follows from its blocks computed again."""
    values = means(found.blocks)
    return msgspec.structs.replace(
        found,
        kl_divergence_nats=msgspec.structs.replace(found.kl_divergence_nats, mean=values["mean"]),
        same_top_token=values["same_top_token"],
        perplexity=values["perplexity"],
        perplexity_ratio=values["perplexity_ratio"],
    )


def means(blocks: Sequence[FidelityBlock]) -> dict[str, Quantity]:
    """Return mean divergence, share of equal top tokens, perplexity and its ratio to the reference's, by name."""

    def of(
        total: Callable[[FidelityBlock], float], count: Callable[[FidelityBlock], int]
    ) -> tuple[float, float | None]:
        return _stratified(blocks, total, count)

    return {
        "mean": _quantity(*of(lambda b: b.kl_nats, lambda b: b.positions), "nats", "mean over positions", len(blocks)),
        "same_top_token": _quantity(
            *of(lambda b: b.same_top, lambda b: b.positions), "1", "share of positions", len(blocks), most=1.0
        ),
        "perplexity": _exponential(
            *of(lambda b: b.nll_nats, lambda b: b.predicted), "exp of the mean -ln p", len(blocks)
        ),
        "perplexity_ratio": _exponential(
            *of(lambda b: b.nll_nats - b.reference_nll_nats, lambda b: b.predicted),
            "exp of the mean difference of -ln p, engine less reference",
            len(blocks),
        ),
    }  # fmt: skip


def _stratified(
    blocks: Sequence[FidelityBlock],
    total: Callable[[FidelityBlock], float],
    count: Callable[[FidelityBlock], int],
) -> tuple[float, float | None]:
    """Return the mean over all positions and the half-width of its interval; None for the latter without a spread."""
    by_text: dict[str, list[FidelityBlock]] = defaultdict(list)
    for block in blocks:
        if count(block):
            by_text[block.text].append(block)
    positions = sum(count(b) for group in by_text.values() for b in group)
    mean = math.fsum(total(b) for group in by_text.values() for b in group) / positions
    freedom = sum(len(group) - 1 for group in by_text.values())
    if freedom < 1:
        return mean, None
    variance = 0.0
    for group in by_text.values():
        if len(group) < 2:  # noqa: PLR2004 - a spread needs two; this text's share of it is not seen
            continue
        share = sum(map(count, group)) / positions
        variance += share**2 * statistics.variance(total(b) / count(b) for b in group) / len(group)
    from scipy.special import stdtrit  # noqa: PLC0415 - heavy; only once something was measured

    return mean, float(stdtrit(freedom, (1 + _CONFIDENCE) / 2)) * math.sqrt(variance)


def _quantity(
    mean: float, half: float | None, unit: str, statistic: str, n: int, most: float = math.inf
) -> Quantity:  # fmt: skip
    if half is None:
        return _unbounded(mean, unit, statistic, n)
    return Quantity(
        value=mean, low=max(0.0, mean - half), high=min(most, mean + half), unit=unit, n=n,
        statistic=statistic, interval=INTERVAL,
    )  # fmt: skip


def _exponential(mean: float, half: float | None, statistic: str, n: int) -> Quantity:
    if half is None:
        return _unbounded(math.exp(mean), "1", statistic, n)
    return Quantity(
        value=math.exp(mean), low=math.exp(mean - half), high=math.exp(mean + half), unit="1", n=n,
        statistic=statistic, interval=INTERVAL,
    )  # fmt: skip


def _unbounded(value: float, unit: str, statistic: str, n: int) -> Quantity:
    reason = "one block a text: no spread can be seen"
    return Quantity(
        value=value, low=None, high=None, low_missing=reason, high_missing=reason, unit=unit, n=n,
        statistic=statistic, interval="none",
    )  # fmt: skip
