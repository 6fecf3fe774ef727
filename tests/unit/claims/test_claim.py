"""Claims as data: what can be tested, what cannot, and what a digest covers."""

from __future__ import annotations

import msgspec
import pytest

from perjoule.claims.claim import ALLOWED, SAID, Claim, Side, list_claims, load_claim, parse
from perjoule.cli.claim import run_arguments
from perjoule.errors import InputError, UsageError

GOOD = """
name = "mine"
version = 1
registered_utc = "2026-11-25T00:00:00Z"
statement = "A takes less than B."
scope = "here"
kind = "ratio"
scenario = "chat"
quick_scenario = "quickstart"
metric = "energy_j_per_output_token"
margin = 0.1
varying = "quant"
[a]
said = "A"
model = "m"
quant = "int8"
[b]
said = "B"
model = "m"
quant = "fp32"
[stopping]
time_budget_s = 60.0
quick_time_budget_s = 30.0
"""


@pytest.mark.parametrize("name", list_claims())
def test_claims_that_ship_can_be_tested(name: str) -> None:
    claim = load_claim(name)
    assert claim.name == name
    assert len(claim.sha256) == 64
    assert run_arguments(claim, quick=True)[1] == claim.quick_scenario
    assert all(f"--model {side.model}" in " ".join(run_arguments(claim, quick=False)) for side in claim.sides)


def test_what_ships_is_what_was_announced() -> None:
    assert set(list_claims()) == {
        "qwen-low-power", "quantization-saves-energy", "smaller-is-cheaper-per-answer", "tokenizer-tax",
    }  # fmt: skip


def test_the_digest_covers_every_field() -> None:
    claim = parse(GOOD, "mine.toml")
    for changed in (
        msgspec.structs.replace(claim, margin=0.2),
        msgspec.structs.replace(claim, statement="another"),
        msgspec.structs.replace(claim, registered_utc="2026-11-26T00:00:00Z"),
        msgspec.structs.replace(claim, a=Side(said="A", model="m", quant="int4")),
    ):
        assert changed.sha256 != claim.sha256
    assert parse(GOOD, "elsewhere.toml").sha256 == claim.sha256


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("margin = 0.1", "", "margin"),
        ("margin = 0.1", "margin = 0.0", "without one nothing can be tested"),
        ("margin = 0.1", "margin = 1.0", "nothing takes less than none"),
        ("margin = 0.1", "margni = 0.1", "no key 'margni'"),
        ('model = "m"\nquant = "fp32"', 'model = "other"\nquant = "fp32"', "differ in model, quant"),
        ('quant = "fp32"', 'quant = "int8"', "differ in nothing"),
        ('metric = "energy_j_per_output_token"', 'metric = "accuracy"', "does not go with kind"),
        ("2026-11-25T00:00:00Z", "2026-11-25", "registered_utc must be a time"),
        ("2026-11-25T00:00:00Z", "yesterday", "registered_utc must be a time"),
        ('kind = "ratio"', 'kind = "front"', "does not go with kind 'front'|needs quality.accuracy"),
        ("time_budget_s = 60.0", "time_budget_s = 0.0", "must be above 0"),
        ('name = "mine"', 'name = "../mine"', "must be lower case"),
        ('[b]\nsaid = "B"\nmodel = "m"\nquant = "fp32"\n', "", "two sides"),
    ],
)
def test_a_claim_that_cannot_be_tested_is_refused(old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(InputError, match=said) as caught:
        parse(GOOD.replace(old, new, 1), "mine.toml")
    assert "mine.toml" in caught.value.message
    assert caught.value.hint


def test_what_is_no_toml_and_what_is_not_there() -> None:
    with pytest.raises(InputError, match="not TOML"):
        parse("name = ", "mine.toml")
    with pytest.raises(UsageError, match="unknown claim") as caught:
        load_claim("qwen-low-powr")
    assert "qwen-low-power" in caught.value.hint
    with pytest.raises(InputError, match="No such file"):
        load_claim("not-there.toml")


def test_a_side_wins_by_less_or_by_more() -> None:
    claim = parse(GOOD, "mine.toml")
    assert claim.less
    assert not msgspec.structs.replace(claim, metric="decode_tokens_per_s").less
    assert isinstance(claim, Claim)


def test_every_metric_of_a_claim_has_words():
    assert frozenset().union(*ALLOWED.values()) == SAID.keys()
