"""Amounts of energy with what is unknown of them: what repeats cannot reduce, and what they can."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Sequence


class Range(Record, frozen=True, kw_only=True):
    """A number with the bounds it lies in (about 90 %) for systematic reasons: tolerances, coefficients."""

    low: float
    value: float
    high: float

    def times(self, factor: float) -> Range:
        return Range(low=self.low * factor, value=self.value * factor, high=self.high * factor)

    def plus(self, other: Range) -> Range:
        """Add amounts whose errors may go together, so bounds add."""
        return Range(low=self.low + other.low, value=self.value + other.value, high=self.high + other.high)

    def minus(self, other: Range) -> Range:
        """Subtract corner by corner: an offset of a sensor does not cancel between load and idle."""
        return Range(low=self.low - other.high, value=self.value - other.value, high=self.high - other.low)

    def by(self, other: Range) -> Range:
        """Multiply corner by corner; both ranges are positive."""
        return Range(low=self.low * other.low, value=self.value * other.value, high=self.high * other.high)


class Part(Record, frozen=True, kw_only=True):
    """Joules of one domain. ``random_j`` is the 95 % half-width of what differs from window to window."""

    domain: str
    joules: Range
    random_j: float = 0.0
    note: str | None = None

    def times(self, factor: float) -> Part:
        return Part(
            domain=self.domain, joules=self.joules.times(factor), random_j=self.random_j * factor, note=self.note
        )

    def minus(self, other: Part) -> Part:
        """Subtract; independent random parts add in quadrature."""
        return Part(
            domain=self.domain,
            joules=self.joules.minus(other.joules),
            random_j=math.hypot(self.random_j, other.random_j),
        )


def total(parts: Sequence[Part]) -> Part:
    """Add domains: systematic bounds add, since one reader's errors go together; random parts in quadrature."""
    joules = Range(low=0.0, value=0.0, high=0.0)
    for part in parts:
        joules = joules.plus(part.joules)
    return Part(domain="total", joules=joules, random_j=math.hypot(*(p.random_j for p in parts)))


def ratio(left: Part, right: Part, residual: float) -> Part:
    """Return left / right of two amounts whose systematic errors are common, as on one host with one reader.

    ``residual`` is the relative part of the systematic error that does not cancel (docs/energy.md: 0.25 for a model,
    0 for a counter's gain). Random parts add in quadrature. Raises ``ZeroDivisionError`` for a right side of 0.
    """
    value = left.joules.value / right.joules.value
    relative = math.hypot(left.random_j / left.joules.value, right.random_j / right.joules.value) if value else 0.0
    return Part(
        domain="ratio",
        joules=Range(low=value / (1 + residual), value=value, high=value * (1 + residual)),
        random_j=value * relative,
    )
