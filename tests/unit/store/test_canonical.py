"""The fast canonical form is that of the `rfc8785` package, byte for byte, and what that refuses is refused."""

from __future__ import annotations

import hashlib
import math
import re
import struct
from typing import Any

import msgspec
import pytest
import rfc8785
from builders import make_result
from hypothesis import example, given, settings
from hypothesis import strategies as st
from key_tables import reached

from perjoule.records import Energy, RunResult
from perjoule.store import canonical
from perjoule.store.canonical import canonical_id, canonical_json

EDGES = [
    0.0, -0.0, 1.0, -1.0, 1e15, 1e16, 1.5e16, 1e17, 123456789012345680.0, 1e20, 1e21, 1.5e21, 1e22, 1e-4, 1e-5, 1.5e-5,
    1e-6, 1.5e-6, 1e-7, 1.23e-7, 5e-324, 1.7976931348623157e308, 2.0**53, 2.0**53 + 2, 0.1 + 0.2, 100.0, 10.5,
    9007199254740992.0, 999999999999999.9, 9999999999999998.0,
]  # fmt: skip
any_double = st.binary(min_size=8, max_size=8).map(lambda b: struct.unpack("<d", b)[0]).filter(math.isfinite)
numbers = st.one_of(
    st.sampled_from(EDGES), any_double, st.floats(allow_nan=False, allow_infinity=False),
    st.floats(0, 100).map(lambda x: round(x, 9)), st.integers(-(2**53) + 1, 2**53 - 1),
)  # fmt: skip
# what a rewriting of numbers could take for one, and every kind of character
words = st.one_of(
    st.text(max_size=20), st.text(alphabet='0123456789.e-,:[]{}"\\ \x00\n\u00e9\u2028\ue000\U0001f600', max_size=20)
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, words),
    lambda inside: st.one_of(st.lists(inside, max_size=5), st.dictionaries(words, inside, max_size=5)),
    max_leaves=25,
)


@given(values)
@example({"\ue000": 1, "\U0001f600": 2})
@example({'a"1.0,': [1.0, "\\", '\\"', 1e-7, {"1.0": -0.0}], "\\\\": "2.0]"})
@example(EDGES)
def test_it_is_the_form_of_the_reference(value: Any):
    assert canonical_json(value) == rfc8785.dumps(value)


@given(any_double)
def test_every_number_is_written_as_the_reference_writes_it(number: float):
    assert canonical_json([number, {"a": number}, number]) == rfc8785.dumps([number, {"a": number}, number])


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        2**53,
        -(2**53),
        10**30,
        {"a": [math.nan]},
        {1: 2},
        "\ud800",
        {"\ud800": 1},
        1 + 2j,
    ],
    ids=repr,
)
def test_what_has_no_canonical_form_is_refused(value: Any):
    with pytest.raises(ValueError):  # noqa: PT011 - the package's own errors and the codec's are kinds of it
        rfc8785.dumps(value)
    with pytest.raises(ValueError):  # noqa: PT011
        canonical_json(value)


def by_the_reference(result: Any) -> str:
    content = msgspec.to_builtins(result)
    del content["id"]
    return f"sha256:{hashlib.sha256(rfc8785.dumps(content)).hexdigest()}"


@settings(deadline=None)  # the first result takes longer
@given(values, words)
def test_the_id_of_a_result_is_that_of_the_reference(value: Any, word: str):
    result = make_result()
    backend = msgspec.structs.replace(result.backend, effective_options={word: value})
    host = msgspec.structs.replace(result.host, kernel=word, libraries={word: "1.0"})
    result = msgspec.structs.replace(result, backend=backend, host=host)
    assert canonical_id(result) == by_the_reference(result)


@pytest.mark.parametrize("value", [math.nan, 2**53])
def test_a_result_without_a_canonical_form_has_no_id(value: float):
    result = make_result()
    backend = msgspec.structs.replace(result.backend, effective_options={"a": [value]})
    with pytest.raises(ValueError):  # noqa: PT011
        canonical_id(msgspec.structs.replace(result, backend=backend))
    with pytest.raises(ValueError):  # noqa: PT011
        canonical_id(msgspec.structs.replace(result, settings=msgspec.structs.replace(result.settings, seed=2**53)))


def test_all_that_a_result_holds_as_it_came_is_looked_at():
    """NaN is refused by the constructors of records; what is no record has to be among the parts looked through."""
    kinds = {
        f"{record.__name__}.{field.name}"
        for record, _ in reached(RunResult)
        for field in msgspec.structs.fields(record)
        if re.search(r"Any|(dict|list)\[.*float", str(field.type))
    }
    assert kinds == {
        "ScenarioFacts.spec", "BackendFacts.requested_options", "BackendFacts.effective_options", "Check.data",
        "Peak.slower",
    }  # fmt: skip
    energy = make_result().energy.headline
    assert isinstance(energy, Energy)
    with pytest.raises(ValueError, match="finite"):
        msgspec.structs.replace(energy, random=(0.0, math.nan))


def test_the_fast_way_is_taken(monkeypatch: pytest.MonkeyPatch):
    canonical._digest.cache_clear()
    result = make_result()
    monkeypatch.setattr(canonical, "canonical_json", lambda _: pytest.fail("the slow way was taken"))
    assert canonical_id(result) == result.id
