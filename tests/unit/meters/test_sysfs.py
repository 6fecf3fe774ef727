"""The bounded reader of sysfs files, and the counter behind one, held against known truth."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.meters.sysfs import MAX_COUNT, EnergyCounter, read_count, read_signed, read_text

if TYPE_CHECKING:
    from pathlib import Path

NS = 1_000_000_000
JOULE = Fraction(1)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sysfs") / "energy_uj"


@given(data=st.one_of(st.binary(max_size=600), st.integers().map(lambda n: b"%d\n" % n)))
def test_any_content_is_a_number_in_range_or_an_error_with_a_reason(file: Path, data: bytes):
    file.write_bytes(data)
    value = number_or_reason(file)
    if isinstance(value, str):
        assert value.startswith("energy_uj ")
        assert len(value) < 200
    else:
        assert 0 <= value <= MAX_COUNT
        assert value == int(data) == read_signed(file)
        assert read_text(file).isdigit()


def number_or_reason(file: Path) -> int | str:
    try:
        return read_count(file)
    except ValueError as error:
        return str(error)


def test_a_signed_number_keeps_its_sign(file: Path):
    file.write_text("-1500\n")
    assert read_signed(file) == -1500


@given(steps=st.lists(st.integers(min_value=1, max_value=900), min_size=1, max_size=30), start=st.integers(0, 999))
def test_steps_are_summed_across_any_number_of_wraps(steps: list[int], start: int):
    counter = EnergyCounter(JOULE, wrap=1000, unwrap=True)
    total, at_ns = start, NS
    assert counter.take(start, at_ns) == 0
    for step in steps:
        total += step
        at_ns += NS
        assert counter.take(total % 1000, at_ns) == total - start


def test_a_wrap_that_would_need_more_than_any_board_draws_is_a_reset():
    counter = EnergyCounter(JOULE, wrap=100_000)
    assert counter.take(50_000, 0) == 50_000
    assert "reset" in str(counter.take(40_000, NS))
    assert counter.take(40_100, 2 * NS) == 40_100  # raw counts go on; the window across the reset has no edge
