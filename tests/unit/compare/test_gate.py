"""What may be compared: every field that differs is the question, harmless or fatal."""

from __future__ import annotations

import msgspec
import pytest
from builders import make_result, make_scenario
from compared import measured, options

from perjoule.compare.fields import FIELDS, KEYS, QUESTIONS
from perjoule.compare.gate import judge
from perjoule.errors import NotComparableError
from perjoule.scenario import Sweep, facts, load_scenario

OTHER = "cd" * 32
BASE = make_result()


def changed(**paths):
    """Return the base result with fields of its parts changed: ``host__machine_id="x"``."""
    result = BASE
    for path, value in paths.items():
        part, _, name = path.partition("__")
        inner, _, deep = name.partition("__")
        owner = getattr(result, part)
        new = msgspec.structs.replace(getattr(owner, inner), **{deep: value}) if deep else value
        result = msgspec.structs.replace(result, **{part: msgspec.structs.replace(owner, **{inner: new})})
    return result


def asked(**options_):
    return changed(backend__requested_options={**BASE.backend.requested_options, **options_})


def scenario(**keys):
    return msgspec.structs.replace(BASE, scenario=facts(make_scenario(**keys)))


def roles(*results, **kinds):
    return {d.field: d.role for d in judge(results, **kinds).differences}


def test_thinking_on_and_off_is_a_question_of_its_own():
    asks = {"tasks": ("arithmetic",), "items": 2, "languages": ("en",)}
    on, off, unsaid = (scenario(**asks, **more) for more in ({"thinking": "on"}, {"thinking": "off"}, {}))
    for pair in ((on, off), (on, unsaid)):
        gate = judge(pair)
        assert gate.question == "thinking"
        assert [d.field for d in gate.of("question")] == ["scenario.thinking"]
    with pytest.raises(NotComparableError, match="thinking"):
        judge((on, off), "threads").refuse()
    other_ids = msgspec.structs.replace(
        off, samples=tuple(msgspec.structs.replace(s, prompt_ids_sha256=OTHER, output_tokens=1) for s in off.samples)
    )
    judge((on, other_ids)).refuse()  # the template puts the question in another way, and answers differ in length


@pytest.mark.parametrize(
    ("other", "field", "question"),
    [
        (changed(model__file_sha256=OTHER, model__name="Other"), "model.file_sha256", "model"),
        (changed(model__file_sha256=OTHER), "model.file_sha256", "model"),
        (changed(model__file_sha256=OTHER, model__parameters=7), "model.identity", "model"),
        (changed(model__file_sha256=OTHER, model__source_quantization="Q8_0"), "model.file_sha256", "quant"),
        (changed(model__tokenizer_sha256=OTHER), "model.tokenizer_sha256", "model"),
        (changed(model__runtime_quantization="int4"), "model.runtime_quantization", "quant"),
        (asked(quant="int4"), "backend.quant", "quant"),
        (changed(backend__name="null"), "backend.name", "backend"),
        (changed(backend__version="9"), "backend.version", "backend"),
        (changed(backend__engine_version="9"), "backend.engine_version", "backend"),
        (changed(backend__device="cuda:0"), "backend.device", "backend"),
        (asked(threads=1), "backend.threads", "threads"),
        (asked(extra={"spinning": False}), "backend.extra", "options"),
        (changed(settings__pin=(0,)), "settings.pin", "placement"),
        (changed(settings__nice=5), "settings.nice", "placement"),
        (changed(host__machine_id="ffff"), "host.machine_id", "host"),
        (changed(host__os="FreeBSD"), "host.os", "host"),
        (changed(host__cpu__quota_cores=1.5), "host.quota_cores", "host"),
    ],
)  # fmt: skip
def test_one_thing_that_differs_is_the_question(other, field, question):
    gate = judge([BASE, other])
    assert gate.question == question
    assert not gate.declared
    assert gate.of("fatal") == []
    assert field in {d.field for d in gate.of("question")}
    gate.refuse()


def scenario_is_fatal(key, value):
    return scenario(**{key: value}), f"scenario.{key}", "run the same scenario"


@pytest.mark.parametrize(
    ("other", "field", "hint"),
    [
        scenario_is_fatal("prompt_tokens", 512),
        scenario_is_fatal("new_tokens", 512),
        scenario_is_fatal("name", "else"),
        scenario_is_fatal("version", 99),
        scenario_is_fatal("corpus_sha256", OTHER),
        scenario_is_fatal("requests_per_process", 9),
        scenario_is_fatal("max_warmup_requests", 9),
        (asked(context_tokens=4096), "backend.context_tokens", "same scenario"),
        (changed(backend__effective_options={"threads": 1}), "backend.effective_threads", "--threads"),
        (changed(backend__effective_options={"threads": 2, "context_tokens": 9}), "backend.effective_context_tokens",
         "same scenario"),
        (changed(backend__effective_options={"threads": 2, "batch": 9}), "backend.effective_batch", "batch"),
        (changed(backend__effective_options={"threads": 2, "kernel": "x"}), "backend.other_effective", "one machine"),
        (msgspec.structs.replace(BASE, samples=tuple(
            msgspec.structs.replace(s, prompt_text_sha256=OTHER) for s in BASE.samples)),
         "samples.prompt_text_sha256", "--seed"),
        (msgspec.structs.replace(BASE, samples=tuple(
            msgspec.structs.replace(s, prompt_ids_sha256=OTHER) for s in BASE.samples)),
         "samples.prompt_ids_sha256", "tokenizer"),
        (msgspec.structs.replace(BASE, samples=tuple(
            msgspec.structs.replace(s, output_tokens=s.output_tokens - 1) for s in BASE.samples)),
         "samples.tokens", "new_tokens"),
        (msgspec.structs.replace(BASE, samples=tuple(
            msgspec.structs.replace(s, index=s.index + 100) for s in BASE.samples)),
         "samples.prompt_text_sha256", "--seed"),
        (msgspec.structs.replace(BASE, publishable=False), "publishable", "--allow-invalid"),
    ],
)  # fmt: skip
def test_what_makes_it_another_measurement_is_fatal(other, field, hint):
    gate = judge([BASE, other])
    assert field in {d.field for d in gate.of("fatal")}
    with pytest.raises(NotComparableError, match="not comparable") as refused:
        gate.refuse()
    assert refused.value.exit_code == 3
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (changed(host__kernel="6.2"), "host.kernel"),
        (changed(host__container="docker"), "host.container"),
        (changed(host__libraries={"numpy": "9"}), "host.libraries"),
        (changed(tool__version="9"), "tool.version"),
        (changed(settings__resumed_at_s=(5.0,)), "settings.resumed_at_s"),
        (scenario(rigor="strict"), "scenario.rigor"),
        (scenario(min_processes=9), "scenario.min_processes"),
        (scenario(target_half_width=0.3), "scenario.target_half_width"),
        (scenario(time_budget_s=9.0), "scenario.time_budget_s"),
        (scenario(min_measured_s=9.0), "scenario.min_measured_s"),
        (scenario(description="else"), "scenario.description"),
    ],
)
def test_what_moves_no_number_is_listed_with_the_reason(other, field):
    gate = judge([BASE, other])
    assert [(d.field, d.role) for d in gate.differences] == [(field, "harmless")]
    assert gate.differences[0].why
    assert gate.question is None
    gate.refuse()


def test_a_point_of_a_sweep_is_named_as_one():
    sweep = Sweep(key="prompt_tokens", values=(256, 512))
    points = [scenario(sweep=sweep, prompt_tokens=n) for n in (256, 512)]
    [fatal] = judge(points).of("fatal")
    assert fatal.said == "point of the sweep (prompt_tokens)"
    assert fatal.values == ("256", "512")
    assert "same point" in fatal.hint


def test_the_batch_of_a_throughput_scenario_may_be_asked_about():
    sides = [
        msgspec.structs.replace(r, scenario=facts(msgspec.structs.replace(load_scenario("offline"), batch=n)))
        for n, r in ((1, BASE), (4, asked(batch=4)))
    ]
    assert roles(*sides) == {"scenario.batch": "question", "backend.batch": "question"}


def test_the_same_governor_is_asked_for_on_one_machine():
    left, right = (changed(host__cpu=msgspec.structs.replace(
        BASE.host.cpu, governor=g, governor_missing=msgspec.UNSET)) for g in ("powersave", "performance"))  # fmt: skip
    assert roles(left, right) == {"host.governor": "question"}
    assert roles(left, right, varying="quant") == {"host.governor": "fatal"}


def test_two_things_at_once_are_refused_and_both_named():
    other = asked(threads=1, quant="int4")
    with pytest.raises(NotComparableError) as refused:
        judge([BASE, other]).refuse()
    assert "threads: 2 / 1" in refused.value.message
    assert "precision asked for: faithful / int4" in refused.value.message
    assert "one thing differ at a time" in refused.value.hint
    assert roles(BASE, other, varying="threads") == {"backend.threads": "question", "backend.quant": "fatal"}


def test_two_files_of_unlike_models_are_no_question_of_precision():
    other = changed(model__file_sha256=OTHER, model__name="Other", model__source_quantization="Q8_0")
    assert judge([BASE, other]).question == "model"
    assert roles(BASE, other, varying="quant")["model.identity"] == "fatal"


def test_another_name_for_the_same_file_is_no_difference():
    assert roles(BASE, changed(model__name="renamed")) == {}


def test_an_engine_may_bring_its_own_encoding_and_tokens():
    other = changed(backend__name="else", model__runtime_quantization="Q4_K_M")
    other = msgspec.structs.replace(
        other, samples=tuple(msgspec.structs.replace(s, prompt_ids_sha256=OTHER) for s in other.samples)
    )
    gate = judge([BASE, other])
    assert gate.question == "backend"
    assert gate.of("fatal") == []
    assert {d.field for d in gate.of("question")} >= {"model.runtime_quantization", "samples.prompt_ids_sha256"}


def test_models_may_answer_at_unlike_length():
    shorter = tuple(
        msgspec.structs.replace(s, output_tokens=s.output_tokens - 1, token_times_s=(s.token_times_s or ())[:-1])
        for s in BASE.samples
    )
    other = msgspec.structs.replace(changed(model__file_sha256=OTHER, model__name="Other"), samples=shorter)
    assert roles(BASE, other)["samples.tokens"] == "question"


def test_invalid_results_are_compared_only_when_asked_and_said_to_be_invalid():
    invalid = make_result(processes=BASE.processes[:2])
    assert not invalid.publishable
    with pytest.raises(NotComparableError, match="2 fresh processes were measured"):
        judge([BASE, invalid]).refuse()
    gate = judge([BASE, invalid], allow_invalid=True)
    gate.refuse()
    assert [d.said for d in gate.of("harmless")] == ["INVALID result"]


def test_prompts_are_compared_where_both_have_one():
    fewer = msgspec.structs.replace(BASE, samples=BASE.samples[:7])
    assert roles(BASE, fewer) == {}


def test_every_field_has_an_owner_or_a_reason_or_a_way_out():
    for field in FIELDS:
        assert field.harmless or field.hint, field.name
        assert set(field.questions) <= set(QUESTIONS)
    names = {f.name for f in FIELDS} | {"scenario.batch", "scenario.thinking"}
    assert {k for keys in KEYS.values() for k in keys} <= names
    assert set(KEYS) == set(QUESTIONS)


def test_a_third_result_that_differs_is_seen():
    assert roles(measured(), measured(place=1), measured(options=options(threads=1)))["backend.threads"] == "question"


def test_values_from_files_are_cut():
    [found] = judge([BASE, changed(settings__pin=tuple(range(500)))]).of("question")
    assert max(map(len, found.values)) <= 80
