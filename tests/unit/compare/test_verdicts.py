"""Verdicts over results: directions, pairs or not, noise floor, joules that must not be compared, ties, fronts."""

from __future__ import annotations

import math

import msgspec
import pytest
from builders import make_host, make_model, make_quality
from compared import measured, options

from perjoule.by_process import WORSE_IS_MORE, values
from perjoule.compare import compare, joules
from perjoule.compare.family import PRIMARY, named, primary
from perjoule.compare.outcome import encode, exit_code
from perjoule.compare.pareto import front
from perjoule.compare.ranking import rank
from perjoule.compare.runs import interleaved, split_controls
from perjoule.compare.verdicts import Judgement, Pair, judge_pairs, noise_floor
from perjoule.compare.verdicts import Values as Known
from perjoule.errors import NotComparableError, UsageError
from perjoule.records import Energy, Missing, RunSettings
from perjoule.render.comparison import sentences
from perjoule.stats.paired import higher_is_better

FAMILY = primary("single-stream")
NAME = "energy_j_per_output_token"
SLOW = options(extra={"spinning": False})


def verdicts(base, *others, **kinds):
    outcome = compare([base, *others], ["base", *"bcdef"[: len(others)]], **kinds)
    return [{j.metric: j.verdict for j in pair.judgements} for pair in outcome.pairs], outcome


@pytest.mark.parametrize("place", [0, 1], ids=["separate", "interleaved"])
def test_slower_is_worse_and_faster_is_better(place):
    [told], outcome = verdicts(measured(), measured(1.1, place=place, options=SLOW))
    assert told["ttft_s"] == told["decode_tokens_per_s"] == told[NAME] == "worse"
    assert told["peak_memory_bytes"] == "not distinguishable"
    assert outcome.pairs[0].paired == bool(place)
    assert outcome.exit_code == 1
    [told], outcome = verdicts(measured(1.1, options=SLOW), measured(place=place))
    assert told["ttft_s"] == told["decode_tokens_per_s"] == "better"
    assert outcome.exit_code == 0


def test_the_same_twice_is_not_distinguishable():
    [told], outcome = verdicts(measured(), measured(place=1))
    assert set(told.values()) == {"not distinguishable"}
    assert outcome.gate.question is None
    assert outcome.exit_code == 0


def test_more_memory_is_worse():
    [told], _ = verdicts(measured(), measured(place=1, memory=1.01, options=SLOW))
    assert told["peak_memory_bytes"] == "worse"


def test_false_verdicts_stay_rare_and_five_per_cent_is_found():
    wrong = found = 0
    for seed in range(60):
        base = measured(spread=0.01, seed=seed)
        [told], _ = verdicts(base, measured(place=1, spread=0.01, seed=seed))
        wrong += "worse" in told.values() or "better" in told.values()
        [told], _ = verdicts(base, measured(1.05, place=1, spread=0.01, seed=seed, options=SLOW))
        found += told["decode_tokens_per_s"] == "worse"
    assert wrong <= 6  # 5 % of 60 is 3; 7 or more have a chance of 3 %
    assert found >= 54


def test_worse_by_less_than_the_threshold_is_not_worse():
    pair = measured(), measured(1.03, place=1, options=SLOW)
    assert verdicts(*pair)[1].exit_code == 1
    [told], outcome = verdicts(*pair, threshold=0.05)
    assert told["ttft_s"] == "not distinguishable"
    assert outcome.exit_code == 0


def test_a_named_metric_is_judged_but_sets_no_exit_code():
    slower = measured(place=1, options=SLOW)
    slower = msgspec.structs.replace(
        slower, processes=tuple(msgspec.structs.replace(p, load_s=2 * p.load_s) for p in slower.processes)
    )
    [told], outcome = verdicts(measured(), slower, named=("load_s",))
    assert told["load_s"] == "worse"
    assert outcome.exit_code == 0


def test_few_pairs_are_tested_as_if_apart():
    base, other = measured(processes=5), measured(1.2, place=1, processes=5, options=SLOW)
    [told], outcome = verdicts(base, other)
    assert not outcome.pairs[0].paired
    assert told["decode_tokens_per_s"] == "worse"
    assert any("too few for a test of pairs" in c for c in outcome.caveats)


def test_three_processes_decide_nothing_and_say_so():
    pair = [measured(1.0, processes=3), measured(1.5, place=1, processes=3, options=SLOW)]
    [told], outcome = verdicts(*pair, allow_invalid=True)
    assert told["ttft_s"] == "not distinguishable"
    assert "cannot show a difference" in outcome.pairs[0].of("ttft_s").note
    assert outcome.pairs[0].of("ttft_s").ratio.p is None


def test_runs_are_interleaved_only_if_claims_and_stamps_agree():
    a, b = measured(), measured(place=1)
    assert interleaved(a, b)
    assert not interleaved(a, measured(seed=2))  # the same stamps: two processes at once
    assert not interleaved(a, msgspec.structs.replace(b, created_utc="2026-01-02T03:04:06Z"))
    assert not interleaved(a, msgspec.structs.replace(b, reproduce="perjoule run else"))
    assert not interleaved(a, msgspec.structs.replace(b, settings=RunSettings(seed=1)))
    later = msgspec.structs.replace(
        b,
        processes=tuple(msgspec.structs.replace(p, start_s=p.start_s + 1e5) for p in b.processes),
        windows=tuple(msgspec.structs.replace(w, start_s=w.start_s + 1e5, end_s=w.end_s + 1e5) for w in b.windows),
    )
    assert not interleaved(a, later)


def halves(seed=1, pace=1.0, place=0, **raw):
    return [
        measured(pace * f, place=place + n, seed=seed + n, settings=RunSettings(seed=0, control=c), **raw)
        for n, (c, f) in enumerate((("A", 1.0), ("A'", 1.01)))
    ]


def test_controls_are_set_aside_and_widen_what_is_known():
    a, a2 = halves()
    other = measured(1.03, place=1, seed=9, options=SLOW, settings=RunSettings(seed=0, control="A"))
    assert split_controls([a, a2]) == ([0, 1], [])
    assert split_controls([a, a2, other]) == ([0, 2], [(0, 1)])
    floor = noise_floor(Known([a, a2]), [(0, 1)], FAMILY)
    assert math.sqrt(floor["ttft_s"].variance) == pytest.approx(0.01, rel=0.3)
    alone, _ = verdicts(a, other)
    [told], outcome = verdicts(a, a2, other)
    assert alone[0]["ttft_s"] == "worse"
    assert told["ttft_s"] == "not distinguishable"  # one control has one degree of freedom
    assert [e.control for e in outcome.results] == [False, True, False]
    assert not any("no A-A control" in c for c in outcome.caveats)


def test_only_a_pair_of_one_configuration_is_called_noise():
    a, a2 = halves()
    other = measured(1.03, place=1, seed=9, options=SLOW, settings=RunSettings(seed=0, control="A'"))
    said = "one configuration measured twice"
    assert any(said in c for c in verdicts(a, a2)[1].caveats)
    for pair in ((a, other), (measured(1.0), other)):
        assert not any(said in c for c in verdicts(*pair)[1].caveats)


INT4 = make_model(runtime_quantization="int4")


def test_modelled_joules_of_another_precision_keep_a_quarter_unknown():
    [told], outcome = verdicts(measured(1.15), measured(place=1, model=INT4))
    assert told["decode_tokens_per_s"] == "better"
    assert told[NAME] == "not distinguishable"
    energy = outcome.pairs[0].of(NAME)
    assert energy.ratio.low < energy.ratio.ratio / 1.25
    assert energy.ratio.high > energy.ratio.ratio * 1.25
    assert "1.25" in energy.note
    [told], _ = verdicts(measured(1.5), measured(place=1, model=INT4))
    assert told[NAME] == "better"
    [told], _ = verdicts(measured(), measured(1.5, place=1, model=INT4))
    assert told[NAME] == "worse"


def test_a_precision_is_never_better_without_naming_the_unknown_quality():
    _, outcome = verdicts(measured(1.15), measured(place=1, model=INT4))
    assert outcome.caveats[0].startswith("not comparable in quality")
    assert "nobody asked for it" in outcome.caveats[0]
    assert "perjoule run --quality fidelity" in outcome.caveats[0]
    assert outcome.quality == ()
    assert not any("quality" in c for c in verdicts(measured(), measured(place=1))[1].caveats)


def test_a_precision_that_lost_its_fidelity_is_never_better_without_naming_it():
    lost, kept = make_quality(kl_nats=0.42, perplexity_ratio=1.27), make_quality(kl_nats=0.008)
    [told], outcome = verdicts(measured(1.5, quality=kept), measured(place=1, model=INT4, quality=lost))
    assert told[NAME] == "better"
    [line] = sentences(outcome)
    assert "QUALITY LOST: mean KL 0.42 nats" in line
    assert any(c.startswith("quality lost") and "x1.27" in c for c in outcome.caveats)
    assert [k.faithful for k in outcome.quality] == [True, False]
    _, outcome = verdicts(measured(1.5, quality=kept), measured(place=1, model=INT4, quality=kept))
    assert "QUALITY" not in sentences(outcome)[0]
    assert not any("quality" in c for c in outcome.caveats)
    assert sum(c.startswith("fidelity: ") for c in outcome.caveats) == 2


def test_tokenizers_are_named_where_they_differ():
    other = make_model(name="Other", file_sha256="cd" * 32, tokenizer_sha256="ef" * 32)
    _, outcome = verdicts(measured(), measured(place=1, model=other))
    assert any("256 tokens" in c and "not the same stretch of text" in c for c in outcome.caveats)


def relabelled(result, **changes):
    """Return the result with its energies given another label, scope or interval."""
    metrics = {k: msgspec.structs.replace(v, **changes) if isinstance(v, Energy) else v
               for k, v in result.metrics.items()}  # fmt: skip
    return msgspec.structs.replace(result, metrics=metrics)


@pytest.mark.parametrize("changes", [{"label": "measured"}, {"scope": "package"}, {"convention": "gross"}])
def test_joules_of_another_kind_are_not_compared_and_all_else_is(changes):
    [told], outcome = verdicts(measured(), relabelled(measured(1.1, place=1, options=SLOW), **changes))
    assert told[NAME] == "not comparable"
    assert told["decode_tokens_per_s"] == "worse"
    assert next(iter(changes)) in outcome.pairs[0].of(NAME).why
    assert outcome.exit_code == 3  # before 1


OTHER_HOST = make_host(machine_id="ffff00000000")


def test_between_hosts_modelled_joules_are_ranked_only_if_disjoint():
    base = measured()
    [told], outcome = verdicts(base, measured(1.2, host=OTHER_HOST))
    assert outcome.gate.question == "host"
    assert told[NAME] == "not comparable"
    assert told["ttft_s"] == "worse"
    [told], _ = verdicts(base, measured(9.0, host=OTHER_HOST))
    assert told[NAME] == "worse"
    assert any("two machines" in c for c in outcome.caveats)


def test_between_hosts_measured_joules_keep_both_tolerances():
    sides = []
    for result in (measured(), measured(1.07, host=OTHER_HOST)):
        value = result.metrics[NAME].value
        sides.append(relabelled(result, label="measured", systematic=(0.95 * value, 1.05 * value)))
    apart = joules.systematic(*sides, NAME)
    assert apart.down == pytest.approx(math.log(1.05 / 0.95), rel=0.1)
    [told], _ = verdicts(*sides)
    assert told[NAME] == "not distinguishable"


def test_one_sensor_cancels_and_two_do_not():
    same = [relabelled(measured(), label="measured"), relabelled(measured(place=1), label="measured")]
    assert joules.systematic(*same, NAME).down == 0
    graded = [same[0], relabelled(same[1], grade="another")]
    assert joules.systematic(*graded, NAME).down > 0


def test_other_coefficients_on_one_host_do_not_cancel():
    other = measured(place=1, settings=RunSettings(seed=0, tdp_w=65.0))
    told = joules.systematic(measured(), other, NAME)
    assert isinstance(told, str)
    assert "not common" in told


def without_energy(result, reason):
    metrics = {k: v for k, v in result.metrics.items() if k != NAME} | {NAME: None, f"{NAME}_missing": reason}
    return msgspec.structs.replace(result, metrics=metrics)


def test_what_neither_side_has_was_not_measured_and_what_one_has_is_not_comparable():
    a, b = measured(), measured(place=1, options=SLOW)
    [told], outcome = verdicts(without_energy(a, "no sensor"), without_energy(b, "no sensor"))
    assert told[NAME] == "not measured"
    assert outcome.exit_code == 0
    [told], outcome = verdicts(without_energy(a, "no sensor"), b)
    assert told[NAME] == "not comparable"
    assert "the baseline: no sensor" in outcome.pairs[0].of(NAME).why
    assert outcome.exit_code == 3


def test_nothing_to_compare_is_refused():
    def bare(result):
        names = [n for n in result.metrics if not n.endswith("_missing")]
        metrics = dict.fromkeys(names) | {f"{n}_missing": "gone" for n in names}
        return msgspec.structs.replace(result, metrics=metrics)

    with pytest.raises(NotComparableError, match="no metric can be compared"):
        verdicts(bare(measured()), bare(measured(place=1, options=SLOW)))


def three():
    return [measured(), measured(1.1, seed=2, options=SLOW), measured(1.1, seed=3, options=options(extra={"k": 1}))]


def test_three_are_ranked_with_ties_and_the_front_holds_who_is_not_surely_beaten():
    told, outcome = verdicts(*three())
    assert [t["ttft_s"] for t in told] == ["worse", "worse"]
    by_ttft = next(r for r in outcome.rankings if r.metric == "ttft_s")
    assert [(p.result, p.rank, p.tied_with) for p in by_ttft.places] == [(0, 1, ()), (1, 2, (2,)), (2, 2, (1,))]
    memory = next(r for r in outcome.rankings if r.metric == "peak_memory_bytes")
    assert {p.rank for p in memory.places} == {1}
    decode = next(f for f in outcome.fronts if f.y_metric == "decode_tokens_per_s")
    assert decode.best == [0]
    assert [p.dominated_by for p in decode.points] == [(), (0,), (0,)]
    on_memory = next(f for f in outcome.fronts if f.y_metric == "peak_memory_bytes")
    assert on_memory.best == [0, 1, 2]  # nobody surely needs less memory


def judged(metric, verdict):
    return Judgement(metric=metric, primary=True, verdict=verdict, why="why", ratio=None, ratio_missing="none")


def test_ties_are_not_transitive_and_who_has_no_value_has_no_rank():
    pairs = [
        Pair(baseline=a, candidate=b, paired=False, judgements=(judged("ttft_s", v),))
        for a, b, v in [(0, 1, "not distinguishable"), (1, 2, "not distinguishable"), (0, 2, "worse"),
                        (0, 3, "not comparable"), (1, 3, "not comparable"), (2, 3, "not comparable")]
    ]  # fmt: skip
    places = {p.result: p for p in rank("ttft_s", pairs, [0, 1, 2, 3]).places}
    assert [places[i].rank for i in range(4)] == [1, 1, 2, None]
    assert places[1].tied_with == (0, 2)
    assert places[3].rank_missing == "why"


def test_a_front_without_joules_says_why():
    results = [without_energy(r, "no sensor") for r in three()]
    found = front(NAME, "ttft_s", [], results, [0, 1, 2])
    assert found.points == ()
    assert found.without == (0, 1, 2)
    assert "fewer than two" in str(found.missing)


def test_holm_runs_over_all_pairs_of_a_call():
    results = [measured(), *(measured(1.004, seed=s, options=SLOW) for s in range(2, 6))]
    [alone] = judge_pairs(results, [(0, 1)], primary=FAMILY)
    many = judge_pairs(results, [(0, i) for i in range(1, 5)], primary=FAMILY)
    assert many[0].of("ttft_s").ratio.adjusted_p >= alone.of("ttft_s").ratio.adjusted_p


def test_exit_code_of_nothing_is_done():
    assert exit_code([]) == 0


def test_json_is_strict_and_says_which_form_it_has():
    _, outcome = verdicts(measured(), measured(1.1, place=1, options=SLOW))
    content = msgspec.json.decode(encode(outcome))
    assert content["schema"] == "perjoule.comparison"
    assert content["schema_version"] == 1
    assert content["results"][0]["values"]["ttft_s"]["unit"] == "s"
    assert content["gate"]["question"] == "options"


def test_every_metric_that_is_judged_knows_its_direction():
    family = {m for metrics in PRIMARY.values() for m in metrics}
    assert family | set(primary("server", find_rate=True)) <= set(WORSE_IS_MORE)
    assert {m: not worse for m, worse in WORSE_IS_MORE.items()} == {m: higher_is_better(m) for m in WORSE_IS_MORE}


def test_values_by_process_are_those_of_the_metrics():
    result = measured()
    for metric in WORSE_IS_MORE:
        told, by_process = result.metric(metric), values(result, metric)
        assert not isinstance(told, Missing)
        assert isinstance(by_process, dict)
        assert sum(by_process.values()) / len(by_process) == pytest.approx(told.value, rel=1e-9), metric


def test_a_metric_without_a_value_in_each_process_cannot_be_named():
    assert named(["load_s", "load_s"]) == ("load_s",)
    with pytest.raises(UsageError, match="e2e_latency_p99_s") as refused:
        named(["e2e_latency_p99_s"])
    assert "e2e_latency_s" in refused.value.hint
