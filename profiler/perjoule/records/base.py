"""The base of all records, and numbers with their interval."""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import msgspec
from msgspec import UNSET as UNSET  # noqa: PLC0414 - records and their reasons belong together
from msgspec import UnsetType

Reason = str | UnsetType

Label = Literal["measured", "counter-modelled", "utilisation-modelled", "analytic", "imported", "none"]
Convention = Literal["gross", "net", "fair-share"]

_PHYSICAL_SUFFIXES = (
    "_s", "_bytes", "_j", "_w", "_hz", "_tokens", "_count", "_share", "_weight", "_streamed", "_pages",
)  # fmt: skip
_SIGNED_FIELDS = frozenset({"skew_s", "clock_offset_s", "clock_jump_s"})


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records: refuses what strict JSON or physics cannot hold."""

    def __post_init__(self) -> None:
        for name, physical, explains in _plan(type(self)):
            value = getattr(self, name)
            kind = type(value)
            # most values are texts, records or absent: a file has hundreds of thousands of them
            if kind is float or kind is int or kind is tuple:
                _refuse_nonsense(type(self).__name__, name, value, physical=physical)
            if explains:
                _refuse_unexplained(type(self).__name__, name, getattr(self, explains), value)


@cache
def _plan(owner: type[Record]) -> tuple[tuple[str, bool, str], ...]:
    """Return of each field its name, whether it must not be negative, and the field that it explains, if any."""
    return tuple(
        (
            name,
            name.endswith(_PHYSICAL_SUFFIXES) and name not in _SIGNED_FIELDS,
            name.removesuffix("_missing") if name.endswith("_missing") else "",
        )
        for name in owner.__struct_fields__
    )


def _refuse_nonsense(owner: str, name: str, value: object, *, physical: bool) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        msg = f"{owner}.{name} must be finite, got {value}"
        raise ValueError(msg)
    if physical and isinstance(value, int | float) and value < 0:
        msg = f"{owner}.{name} must not be negative, got {value}"
        raise ValueError(msg)
    if isinstance(value, tuple):
        for item in value:
            _refuse_nonsense(owner, name, item, physical=physical)


def _refuse_unexplained(owner: str, name: str, value: object, reason: object) -> None:
    if (value is None) != (reason is not UNSET):
        msg = f"{owner}.{name} must be given exactly when the value is null"
        raise ValueError(msg)
    if reason is not UNSET and not reason:
        msg = f"{owner}.{name} must say why"
        raise ValueError(msg)


class _Bounded(Record, frozen=True, kw_only=True):
    value: float
    low: float | None
    high: float | None
    low_missing: Reason = UNSET
    high_missing: Reason = UNSET
    unit: str
    n: int
    statistic: str
    interval: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n < 1:
            msg = f"a quantity needs at least one observation, got n={self.n}"
            raise ValueError(msg)
        if (self.low is not None and self.low > self.value) or (self.high is not None and self.high < self.value):
            msg = f"the value {self.value} lies outside its interval [{self.low}, {self.high}]"
            raise ValueError(msg)


class Quantity(_Bounded, frozen=True, kw_only=True, tag_field="type", tag="quantity"):
    """A number with its interval; ``interval`` names the method of the bounds."""


class Energy(_Bounded, frozen=True, kw_only=True, tag_field="type", tag="energy"):
    """Joules, watts, or a ratio of joules, with how they were obtained and what they cover.

    ``random`` is the part of the interval that repeats reduce, ``systematic`` the part they do not
    (tolerance of a sensor, coefficients of a model); both are (low, high) in the unit of ``value``.
    """

    label: Label
    grade: str
    scope: str
    convention: Convention
    random: tuple[float, float]
    systematic: tuple[float, float]


class Missing(Record, frozen=True, kw_only=True):
    """A metric that applies but could not be had. In JSON: ``null`` and ``<name>_missing``."""

    reason: str


Metric = Quantity | Energy | Missing
