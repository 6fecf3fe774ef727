"""Service level objectives: whether a request met its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perjoule.scenario import Slo


def meets(slo: Slo, ttft_s: float, tpot_s: float | None) -> bool:
    """Say whether one request met both limits; an answer of one token has no time per output token to miss."""
    if slo.ttft_s is not None and ttft_s > slo.ttft_s:
        return False
    return slo.tpot_s is None or tpot_s is None or tpot_s <= slo.tpot_s
