"""The base of all records, and numbers with their interval."""

from __future__ import annotations

from functools import cache
from math import inf, isfinite
from typing import Any, Literal

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
        # A file has a thousand records, so what is sound is passed over quickly; what is not is then named.
        numbers, reasons = _plan(type(self))
        for name, physical in numbers:
            value = getattr(self, name)
            kind = type(value)
            if kind is float:
                if not -inf < value < inf or (physical and value < 0):
                    _refuse_nonsense(type(self).__name__, name, value, physical=physical)
            elif kind is int:
                if physical and value < 0:
                    _refuse_nonsense(type(self).__name__, name, value, physical=physical)
            elif kind is tuple and not _surely_sound(value, physical=physical):
                _refuse_nonsense(type(self).__name__, name, value, physical=physical)
        for name, explained in reasons:
            reason = getattr(self, name)
            if (getattr(self, explained) is None) == (reason is UNSET) or reason == "":
                _refuse_unexplained(type(self).__name__, name, getattr(self, explained), reason)


@cache
def _plan(owner: type[Record]) -> tuple[list[tuple[str, bool]], list[tuple[str, str]]]:
    """Return fields that may hold numbers, with whether they must not be negative; and reasons, with what they explain.

    A field that can only be a text is left out of the first.
    """
    fields = {field.name: field.type for field in msgspec.structs.fields(owner)}
    return (
        [
            (name, name.endswith(_PHYSICAL_SUFFIXES) and name not in _SIGNED_FIELDS)
            for name, kind in fields.items()
            if kind not in (str, Reason)
        ],
        [(name, name.removesuffix("_missing")) for name in fields if name.endswith("_missing")],
    )


def _surely_sound(values: tuple[Any, ...], *, physical: bool) -> bool:
    """Say whether all are finite numbers, and none below 0 where that is physical; False asks for a closer look."""
    try:
        return isfinite(sum(values)) and not (physical and values and min(values) < 0)
    except (TypeError, OverflowError):  # texts, records, tuples; whole numbers that no float holds
        return False


def _refuse_nonsense(owner: str, name: str, value: object, *, physical: bool) -> None:
    if isinstance(value, float) and not isfinite(value):
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
