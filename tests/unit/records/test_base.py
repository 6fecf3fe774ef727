"""Records refuse what no JSON number and no physical amount can be, wherever in them it stands."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.records import UNSET, Reason, Record


class Made(Record, frozen=True, kw_only=True):
    """One field of every kind that matters here."""

    name: str = ""
    span_s: float = 0.0
    skew_s: float = 0.0
    tick_count: int | None = 0
    times_s: tuple[Any, ...] = ()
    free: tuple[Any, ...] = ()
    amount: float | None = 1.0
    amount_missing: Reason = UNSET


numbers = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.integers())


def sound(value: Any, *, physical: bool) -> bool:
    """Say the same as the record, the plain way."""
    if isinstance(value, tuple):
        return all(sound(one, physical=physical) for one in value)
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return not (physical and isinstance(value, int | float) and value < 0)


def made(**fields: Any) -> bool:
    try:
        Made(**fields)
    except ValueError:
        return False
    return True


@given(value=numbers)
def test_single_numbers(value: float):
    assert made(span_s=value) == sound(value, physical=True)
    assert made(skew_s=value) == sound(value, physical=False)
    assert made(tick_count=value) == sound(value, physical=True)


@given(
    values=st.lists(st.one_of(numbers, st.text(max_size=3), st.tuples(numbers, numbers), st.none()), max_size=6).map(
        tuple
    )
)
def test_numbers_in_lists_however_deep(values: tuple[Any, ...]):
    assert made(times_s=values) == sound(values, physical=True)
    assert made(free=values) == sound(values, physical=False)


@pytest.mark.parametrize(
    "values", [(1e308, 1e308), (10**400,), (10**400, -1), (1.0, math.nan), (math.inf, -math.inf), (-0.0,), (True, -1)]
)
def test_sums_that_overflow_or_cancel_hide_nothing(values: tuple[Any, ...]):
    assert made(times_s=values) == sound(values, physical=True)


def test_a_reason_stands_exactly_where_a_value_is_missing():
    Made(amount=None, amount_missing="no sensor")
    for amount, reason in ((None, UNSET), (1.0, "no sensor"), (None, "")):
        with pytest.raises(ValueError, match=r"Made\.amount_missing must"):
            Made(amount=amount, amount_missing=reason)
