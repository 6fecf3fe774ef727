"""Totals: the outermost domains, each once, with what was left out said."""

from __future__ import annotations

import itertools
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.meters.amounts import Part, Range, ratio, total
from perjoule.meters.compose import CONTAINS, SCOPES, Composition
from perjoule.records import MeterFact, MeterRefusal


def fact(domain: str, scope: str, parent: str | None = None) -> MeterFact:
    return MeterFact(
        domain=domain, scope=scope, kind="counter", label="measured", grade="g", tick_s=0.001, source="s",
        unit_j="1/1000000", parent=parent,
    )  # fmt: skip


TWO_SOCKETS = [
    fact("package-0", "package"), fact("package-0:core", "core", "package-0"), fact("package-0:dram", "dram"),
    fact("package-1", "package"), fact("package-1:uncore", "uncore", "package-1"), fact("package-1:dram", "dram"),
    fact("psys", "platform"), fact("gpu-0", "gpu"), fact("package-0:igpu", "igpu", "package-0"),
]  # fmt: skip


def test_two_sockets_memory_and_a_board_are_summed_and_the_rest_is_explained():
    composed = Composition(TWO_SOCKETS)
    counted = ["package-0", "package-0:dram", "package-1", "package-1:dram", "gpu-0"]
    assert [m.domain for m in composed.counted] == counted
    assert composed.scope == "package+dram+gpu"
    assert composed.left_out == {
        "package-0:core": "inside package-0", "package-1:uncore": "inside package-1",
        "package-0:igpu": "inside package-0",
        "psys": "the platform domain is wired as each vendor likes; it is in no sum",
    }  # fmt: skip


@pytest.mark.parametrize(("outer", "scope"), [("wall", "wall"), ("chassis-0", "chassis"), ("battery", "battery")])
def test_whatever_contains_the_rest_is_the_total(outer: str, scope: str):
    composed = Composition([*TWO_SOCKETS, fact(outer, scope)])
    assert [m.domain for m in composed.counted] == [outer]
    assert composed.whole_box


def test_a_core_of_an_unread_package_is_not_inside_another():
    composed = Composition([fact("package-0", "package"), fact("package-1:core", "core")])
    assert [m.domain for m in composed.counted] == ["package-0", "package-1:core"]


def test_one_socket_of_two_or_a_board_alone_is_not_the_host():
    refused = MeterRefusal(meter="m", reason="EACCES", fix="f", domain="package-1")
    assert "package-1" in str(Composition([fact("package-0", "package")], [refused]).incomplete())
    assert "processor" in str(Composition([fact("gpu-0", "gpu")]).incomplete())
    assert Composition([fact("module", "module"), fact("rail", "rail")], [refused]).incomplete() is None


@pytest.mark.parametrize(
    ("lost", "counted", "whole"),
    [
        ("package-1", ["package-0", "package-0:dram"], False),
        ("package-1:dram", ["package-0"], True),
        ("gpu-1", ["package-0", "package-0:dram"], True),
        ("package-0:core", ["package-0", "package-0:dram"], True),
        ("psys", ["package-0", "package-0:dram"], True),
    ],
)
def test_what_was_lost_decides_what_the_rest_may_be_called(lost: str, counted: list[str], whole: bool):
    metered = [fact("package-0", "package"), fact("package-0:dram", "dram")]
    metered += [fact("gpu-0", "gpu")] if lost.startswith("gpu") else []
    composed = Composition(metered, [MeterRefusal(meter="m", reason="dead", fix="f", domain=lost)])
    assert [m.domain for m in composed.counted] == counted
    assert (composed.incomplete() is None) is whole


def test_half_of_a_host_of_two_modules_is_not_the_host():
    refused = MeterRefusal(meter="hwmon", reason="EIO", fix="f", domain="module-1")
    metered = [fact("module-0", "module"), fact("package-0", "package"), fact("package-1", "package")]
    composed = Composition(metered, [refused])
    assert [m.domain for m in composed.counted] == ["module-0", "package-1"], "package-1 is not inside module-0"
    assert "module-1" in str(composed.incomplete())


def test_two_readers_of_the_whole_box_are_one_box_and_two_supplies_are_two():
    box, twin = fact("chassis-0", "chassis"), fact("chassis-1", "chassis")
    both = Composition([box, msgspec.structs.replace(twin, source="another reader")])
    assert [m.domain for m in both.counted] == ["chassis-0"]
    assert len(Composition([box, twin]).counted) == 2


def test_nothing_contains_itself_or_what_contains_it():
    assert all(inner in SCOPES for inners in CONTAINS.values() for inner in inners)
    for a, b in itertools.product(SCOPES, SCOPES):
        assert not (b in CONTAINS[a] and a in CONTAINS[b]), (a, b)


@given(st.lists(st.sampled_from(SCOPES), min_size=1, max_size=8))
def test_no_joule_is_counted_twice(scopes: list[str]):
    composed = Composition([fact(f"{scope}-{i}", scope) for i, scope in enumerate(scopes)])
    for a, b in itertools.permutations(composed.counted, 2):
        if a.scope in {"package", "module"}:
            continue  # these names put parts in packages and modules of other numbers
        assert b.scope not in CONTAINS[a.scope], (a.domain, b.domain)
    assert {m.domain for m in composed.counted} | set(composed.left_out) == {f"{s}-{i}" for i, s in enumerate(scopes)}


def amount(value: float, tolerance: float, random_j: float) -> Part:
    return Part(
        domain="d", random_j=random_j,
        joules=Range(low=value * (1 - tolerance), value=value, high=value * (1 + tolerance)),
    )  # fmt: skip


def test_random_parts_add_in_quadrature_and_systematic_ones_straight():
    summed = total([amount(100.0, 0.05, 3.0), amount(50.0, 0.2, 4.0)])
    assert summed.random_j == pytest.approx(5.0)
    assert (summed.joules.low, summed.joules.value, summed.joules.high) == pytest.approx((135.0, 150.0, 165.0))


def test_a_difference_takes_the_worst_corners():
    net = amount(100.0, 0.05, 3.0).minus(amount(60.0, 0.05, 4.0))
    assert (net.joules.low, net.joules.value, net.joules.high) == pytest.approx((32.0, 40.0, 48.0))
    assert net.random_j == pytest.approx(5.0)


def test_what_is_common_cancels_in_a_ratio():
    found = ratio(amount(100.0, 0.5, 3.0), amount(50.0, 0.5, 2.0), residual=0.0)
    assert (found.joules.low, found.joules.value, found.joules.high) == pytest.approx((2.0, 2.0, 2.0))
    assert found.random_j == pytest.approx(2.0 * math.hypot(0.03, 0.04))
    assert ratio(amount(100.0, 0.5, 0.0), amount(50.0, 0.5, 0.0), residual=0.25).joules.high == pytest.approx(2.5)
