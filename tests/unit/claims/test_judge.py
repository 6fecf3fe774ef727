"""From results to a verdict: which results are taken, what is refused, and what the verdict says."""

from __future__ import annotations

import msgspec
import pytest
from builders import make_model, make_quality
from compared import measured, options

from perjoule.claims.choose import choose, missing_sides
from perjoule.claims.claim import Stopping, load_claim
from perjoule.claims.judge import exit_code, judge
from perjoule.errors import InputError, NotComparableError
from perjoule.render.claim import not_shown, two_sentences
from perjoule.render.claim_page import page

# The builders' results are of January 2026 and of the quickstart scenario.
CLAIM = msgspec.structs.replace(
    load_claim("quantization-saves-energy"), registered_utc="2026-01-01T00:00:00Z", scenario="quickstart",
    stopping=Stopping(rigor="quick", time_budget_s=60.0, quick_time_budget_s=60.0),
)  # fmt: skip
REF = CLAIM.a.model


def side(quant: str, pace: float, place: int, kl_nats: float = 0.005, **changes):
    model = make_model(ref=REF, runtime_quantization=quant)
    return measured(
        pace, place=place, model=model, options=options(quant=quant), quality=make_quality(kl_nats=kl_nats), **changes
    )


def verdict(pace_b: float, kl_nats: float = 0.005, claim=CLAIM):
    results = [side("faithful", 1.0, 0, kl_nats), side("fp32", pace_b, 1)]
    return judge(claim, choose(claim, results, exploratory=False))


def test_a_large_saving_holds_and_says_so_in_two_sentences() -> None:
    found = verdict(2.0)
    assert found.answer == "holds"
    assert exit_code(found) == 0
    first, second = two_sentences(found)
    assert first.startswith("The claim holds here: Running Qwen2.5-Coder-0.5B")
    assert "8 bits against fp32" in second
    assert found.effects[0].ratio.high <= 0.8
    assert "coefficients cancel" in found.effects[0].note
    assert "not measured" in found.energy_says


def test_no_saving_fails() -> None:
    found = verdict(0.7)
    assert found.answer == "fails"
    assert exit_code(found) == 1


def test_a_saving_near_the_margin_is_undecided_and_says_what_would_decide() -> None:
    found = verdict(1.25)
    assert found.answer == "undecided"
    assert exit_code(found) == 3
    assert "a sensor" in found.would_decide


def test_a_saving_that_costs_the_models_words_fails() -> None:
    found = verdict(2.0, kl_nats=0.4)
    assert found.answer == "fails"
    assert "does not have the quality" in found.why[0]


def test_quality_that_nobody_measured_leaves_it_undecided() -> None:
    results = [side("faithful", 1.0, 0), side("fp32", 2.0, 1)]
    bare = [msgspec.structs.replace(r, quality=None, quality_missing="not asked for") for r in results]
    found = judge(CLAIM, choose(CLAIM, bare, exploratory=False))
    assert found.answer == "undecided"
    assert "--quality fidelity" in found.would_decide


def test_results_older_than_the_claim_are_refused_or_marked() -> None:
    late = msgspec.structs.replace(CLAIM, registered_utc="2026-06-01T00:00:00Z")
    results = [side("faithful", 1.0, 0), side("fp32", 2.0, 1)]
    with pytest.raises(NotComparableError, match="older than the claim"):
        choose(late, results, exploratory=False)
    found = judge(late, choose(late, results, exploratory=True))
    assert found.exploratory
    assert two_sentences(found)[0].startswith("Exploratory, not a test: ")
    assert "Exploratory." in page(found)
    assert any("older than the claim" in line for line in not_shown(found))
    assert missing_sides(late, results, quick=False) == [late.a, late.b]
    assert missing_sides(CLAIM, results, quick=False) == []


def test_the_quick_scenario_only_explores() -> None:
    claim = msgspec.structs.replace(CLAIM, scenario="chat")
    results = [side("faithful", 1.0, 0), side("fp32", 2.0, 1)]
    with pytest.raises(NotComparableError, match="quick scenario quickstart"):
        choose(claim, results, exploratory=False)


def test_a_looser_stopping_rule_than_the_claims_only_explores() -> None:
    claim = msgspec.structs.replace(CLAIM, stopping=msgspec.structs.replace(CLAIM.stopping, rigor="standard"))
    results = [side("faithful", 1.0, 0), side("fp32", 2.0, 1)]
    with pytest.raises(NotComparableError, match="rigor quick"):
        choose(claim, results, exploratory=False)
    assert missing_sides(claim, results, quick=False) == [claim.a, claim.b]  # so that it is measured again
    assert missing_sides(claim, results, quick=True) == []


def test_a_side_without_a_result_is_named() -> None:
    with pytest.raises(InputError, match="no result of fp32"):
        choose(CLAIM, [side("faithful", 1.0, 0)], exploratory=False)


def test_the_page_tells_the_verdict_first_and_escapes_what_it_shows() -> None:
    hostile = msgspec.structs.replace(CLAIM, statement="<script>alert(1)</script> saves energy")
    html = page(verdict(2.0, claim=hostile))
    assert "<script>" not in html
    assert html.index("holds here") < html.index("<svg") < html.index("Method") < html.index("What this does not show")
    assert CLAIM.sha256 not in html
    assert hostile.sha256 in html
    assert "default-src 'none'" in html
