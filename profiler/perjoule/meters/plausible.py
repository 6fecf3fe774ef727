"""What cannot be: joules below what physics asks for, above what the machine can draw, sensors that disagree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.meters.basis import CounterBasis
from perjoule.meters.counters import domain_part
from perjoule.records import Flag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.meters.basis import Basis
    from perjoule.records import Energy, IdlePower, Window

# pJ per bit of weights streamed while decoding one request at a time, whole box. Public wall readings give 46-96 on
# GPUs and Apple silicon and 111-234 on CPUs and single-board computers; outside this wider band something is wrong.
LOWEST_PJ_PER_BIT, HIGHEST_PJ_PER_BIT = 30.0, 350.0
MAX_DISAGREEMENT = 0.10  # between a counter and the power reading of the same board
MAX_DRIFT = 0.05  # of idle power, against net power
_PICO = 1e-12


def plausibility(
    headline: Energy,
    floor: float | None,
    ceiling: float | None,
    basis: Basis,
    windows: Sequence[Window],
    idle: IdlePower,
) -> tuple[Flag, ...]:
    """Return a flag for everything that does not fit."""
    flags = []
    if floor is not None and headline.value < floor:
        flags.append(Flag(code="below_floor", message="less than moving the bytes and computing must cost at least"))
    if ceiling is not None and headline.value > ceiling:
        flags.append(Flag(code="above_ceiling", message="more than the machine could draw in that time"))
    if isinstance(basis, CounterBasis):
        flags += _per_bit(basis, windows) + _disagreement(basis, windows) + _drift(headline, windows, idle)
    return tuple(flags)


def _per_bit(basis: CounterBasis, windows: Sequence[Window]) -> list[Flag]:
    """Judge decoding only, and only where the scope is the whole box."""
    decode = [w for w in windows if w.phase == "decode"]
    bits = 8 * sum(w.bytes_streamed or 0 for w in decode)
    parts = basis.price(decode)
    if not basis.counters.whole_box or not bits or isinstance(parts, str):
        return []
    found = sum(p.joules.value for p in parts) / bits / _PICO
    if LOWEST_PJ_PER_BIT <= found <= HIGHEST_PJ_PER_BIT:
        return []
    band = f"{LOWEST_PJ_PER_BIT:g} to {HIGHEST_PJ_PER_BIT:g}"
    message = f"decoding cost {found:.2g} pJ per bit of weights; whole machines lie at {band}"
    return [Flag(code="energy_per_bit", message=message)]


def _disagreement(basis: CounterBasis, windows: Sequence[Window]) -> list[Flag]:
    """Compare a board's energy counter with the integral of its power reading, where both were read."""
    facts = {m.domain: m for m in (*basis.counters.counted, *basis.counters.others)}
    flags = []
    for fact in facts.values():
        twin = facts.get(f"{fact.domain}:power")
        if twin is None:
            continue
        counter, gauge = domain_part(fact, windows), domain_part(twin, windows)
        if isinstance(counter, str) or isinstance(gauge, str):
            continue
        apart = abs(counter.joules.value - gauge.joules.value) / counter.joules.value
        if apart > MAX_DISAGREEMENT:
            message = f"{fact.domain}: its energy counter and its power reading differ by {apart:.0%}"
            flags.append(Flag(code="sensors_disagree", message=message))
    return flags


def _drift(headline: Energy, windows: Sequence[Window], idle: IdlePower) -> list[Flag]:
    if not idle.before or not idle.after:
        return []
    before, after = (sum(e.value for e in side.values()) for side in (idle.before, idle.after))
    seconds = sum(w.duration_s for w in windows)
    net_w = headline.value / seconds - (before + after) / 2 if seconds else 0.0
    if net_w > 0 and abs(after - before) <= MAX_DRIFT * net_w:
        return []
    message = f"idle power went from {before:.3g} W before to {after:.3g} W after the run"
    return [Flag(code="idle_drift", message=message)]
