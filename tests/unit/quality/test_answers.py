"""What was asked and answered, as a result carries it: accuracy, tokens, joules of a right answer, languages."""

from __future__ import annotations

import math

import msgspec
import pytest
from builders import make_process, make_raw, make_result
from hypothesis import given
from hypothesis import strategies as st

from perjoule.answers import answered, paired
from perjoule.asking import judged, questions_of
from perjoule.assemble import assemble
from perjoule.errors import InputError, UsageError
from perjoule.quality.questions import characters_of, share_of, task_of
from perjoule.reading import log_ratios_of
from perjoule.records import UNSET, Energy, Quantity
from perjoule.scenario import facts, load_scenario, with_overrides
from perjoule.stats.paired import log_ratio_interval
from perjoule.verify import verify

SCENARIO = with_overrides(load_scenario("tasks-quick"), {"tasks": ["arithmetic"], "items": 4, "levels": [1, 2]})
LANGUAGES = with_overrides(load_scenario("languages"), {"languages": ["en", "ko"]})


def told(process: int, said):
    """Return a process whose measured requests are the questions it is asked, answered by ``said(question)``."""
    asked = questions_of(SCENARIO, process)
    run = make_process(process, requests=len(asked))
    measured = [s for s in run.samples if s.phase == "measured"]
    questions = iter(asked)
    samples = []
    for sample in run.samples:
        question = next(questions, None) if sample in measured else None
        if question is None:
            samples.append(sample)
        else:
            samples.append(msgspec.structs.replace(
                sample, question=question.id, answer=said(question), finish_reason="stop"
            ))  # fmt: skip
    return msgspec.structs.replace(run, samples=tuple(samples))


def right(question) -> str:
    left, operator, other = question.prompt.splitlines()[0].replace("\uff1a", ":").split(":")[1].split()
    return str({"+": int(left) + int(other), "-": int(left) - int(other), "*": int(left) * int(other)}[operator])


def read(scenario, process: int):
    """Return a process whose measured requests are the passages that it reads; Korean takes twice the tokens."""
    run = make_process(process)
    asked = iter(questions_of(scenario, process))
    samples = []
    for sample in run.samples:
        question = next(asked, None) if sample.phase == "measured" else None
        samples.append(sample if question is None else msgspec.structs.replace(
            sample, question=question.id, prompt_tokens=2 * sample.prompt_tokens if question.id == "passage/ko"
            else sample.prompt_tokens,
        ))  # fmt: skip
    return msgspec.structs.replace(run, samples=tuple(samples))


def result(said):
    return assemble(make_raw(scenario=SCENARIO, runs=tuple(told(p, said) for p in range(5))))


def test_every_question_is_asked_once_and_all_kinds_in_each_process() -> None:
    scenario = load_scenario("tasks-quick")
    dealt = [questions_of(scenario, p) for p in range(5)]
    ids = [q.id for questions in dealt for q in questions]
    assert len(ids) == len(set(ids)) == 60
    assert questions_of(scenario, 5) == dealt[0]  # a process more is asked again
    assert all(len({task_of(q.id)[2] for q in questions}) == 3 for questions in dealt)
    assert share_of(["a", "b", "c"], 1, 2) == ["b"]
    assert all(q.chat and q.max_new_tokens <= scenario.new_tokens for questions in dealt for q in questions)


def test_thinking_is_put_to_the_template_and_has_room_before_the_answer() -> None:
    assert {q.thinking for q in questions_of(SCENARIO, 0)} == {None}
    off = questions_of(with_overrides(SCENARIO, {"thinking": "off"}), 0)
    on = questions_of(with_overrides(SCENARIO, {"thinking": "on", "new_tokens": 900}), 0)
    assert {(q.thinking, q.max_new_tokens) for q in on} == {(True, 900)}
    assert {q.thinking for q in off} == {False}
    assert [q.max_new_tokens for q in off] == [q.max_new_tokens for q in questions_of(SCENARIO, 0)]
    with pytest.raises(UsageError, match="thinking belongs to tasks"):
        with_overrides(load_scenario("quickstart"), {"thinking": "on"})


def test_a_scenario_that_says_nothing_of_thinking_has_the_hash_it_always_had() -> None:
    assert "thinking" not in facts(SCENARIO).spec
    assert facts(with_overrides(SCENARIO, {"thinking": "off"})).sha256 != facts(SCENARIO).sha256


def test_thoughts_are_paid_for_and_not_read() -> None:
    plain, thought = result(right), result(lambda q: f"<think>perhaps 17</think>{right(q)}")
    assert thought.metric("accuracy").value == plain.metric("accuracy").value == 1.0
    endless = result(lambda q: f"<think>perhaps {right(q)}")
    assert endless.metric("accuracy").value == 0.0


def test_right_answers_are_counted_and_cost_follows_from_its_factors() -> None:
    found = result(right)
    accuracy, tokens, cost = (
        found.metric(name) for name in ("accuracy", "output_tokens_per_answer", "energy_j_per_correct_answer")
    )
    assert isinstance(accuracy, Quantity)
    assert accuracy.value == 1.0
    assert accuracy.low < 1.0  # so few questions are no proof
    per_token = found.metric("energy_j_per_output_token")
    assert isinstance(cost, Energy)
    assert cost.value == pytest.approx(per_token.value * tokens.value / accuracy.value)
    assert cost.label == per_token.label
    assert verify(found) == []


def test_no_right_answer_has_no_cost_and_says_why() -> None:
    found = result(lambda _question: "no idea")
    assert found.metric("accuracy").value == 0.0
    assert found.metrics["energy_j_per_correct_answer"] is None
    assert "no answer was right" in str(found.metrics["energy_j_per_correct_answer_missing"])


def test_a_changed_verdict_on_an_answer_is_found() -> None:
    found = result(lambda _question: "no idea")
    forged = tuple(
        msgspec.structs.replace(s, correct=True) if isinstance(s.correct, bool) else s for s in found.samples
    )
    lines = verify(msgspec.structs.replace(found, samples=forged))
    assert any("the file says correct True" in line for line in lines)


def test_answers_are_paired_by_question() -> None:
    good, bad = result(right), result(lambda _question: "no idea")
    pairs = paired(good, bad)
    assert not isinstance(pairs, str)
    assert all(a.question == b.question and a.correct and not b.correct for a, b in pairs)
    other = with_overrides(SCENARIO, {"items": 3})
    assert "same questions" in paired(good, assemble(make_raw(scenario=other)))
    assert answered(make_result().samples) == []


def test_samples_without_a_question_are_left_alone() -> None:
    samples = make_result().samples
    assert judged(samples, SCENARIO) == samples
    assert all(s.correct is UNSET for s in samples)


def test_a_text_of_ones_own_is_read_by_its_path(tmp_path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear all,\r\nhello.\n", encoding="utf-8")
    scenario = with_overrides(LANGUAGES, {"languages": ["en", str(path)]})
    asked = {q.id: q for q in questions_of(scenario, 0)}
    own = asked[f"passage/{path}"]
    assert (own.prompt, own.chat, own.max_new_tokens) == ("Dear all,\nhello.", False, 1)
    path.write_text("Dear all, goodbye.", encoding="utf-8")
    assert with_overrides(LANGUAGES, {"languages": ["en", str(path)]}).questions_sha256 != scenario.questions_sha256
    assert characters_of(["en", str(path)]).keys() == {"en"}


@pytest.mark.parametrize(
    ("data", "said"), [(None, "No such file"), (b"", "empty"), (b" \n", "empty"), (b"\xff\xfe\x00", "not UTF-8")]
)
def test_a_text_that_cannot_be_read_is_refused(tmp_path, data, said) -> None:
    path = tmp_path / "letter.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match=said):
        with_overrides(LANGUAGES, {"languages": ["en", str(path)]})


def test_what_a_text_of_ones_own_cost_is_told_without_its_length(tmp_path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear all, hello.", encoding="utf-8")
    scenario = with_overrides(LANGUAGES, {"languages": ["en", str(path)]})
    found = assemble(make_raw(scenario=scenario, runs=tuple(read(scenario, p) for p in range(5))))
    path.unlink()  # a stranger has not got it
    cost = {c.language: c for c in found.languages}[str(path)]
    assert cost.characters_count is cost.energy_j_per_1000_characters is None
    assert "own" in str(cost.characters_count_missing)
    assert isinstance(cost.relative_energy, Quantity)
    assert verify(found) == []


def test_passages_are_read_in_each_language_and_held_against_english() -> None:
    found = assemble(make_raw(scenario=LANGUAGES, runs=tuple(read(LANGUAGES, p) for p in range(5))))
    assert {c.language for c in found.languages} == {"en", "ko"}
    by_language = {c.language: c for c in found.languages}
    assert by_language["en"].relative_energy.value == pytest.approx(1.0)
    assert by_language["ko"].relative_tokens == pytest.approx(2.0)
    assert by_language["ko"].characters_count == characters_of(["ko"])["ko"]
    assert verify(found) == []


@given(st.lists(st.floats(0.1, 1e4), min_size=2, max_size=8), st.floats(0.2, 20))
def test_a_ratio_that_no_process_changes_has_no_width(amounts, factor) -> None:
    """Processes differ in speed, all languages alike: what they have in common cancels."""
    reference = dict(enumerate(amounts))
    logs = log_ratios_of({p: a * factor for p, a in reference.items()}, reference)
    middle, low, high = log_ratio_interval(logs)
    assert middle == pytest.approx(math.log(factor), abs=1e-9)
    assert high - low < 1e-6
    assert log_ratios_of({0: 1.0}, {1: 1.0}) == []  # no process has both


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"passages": True}, "tasks and passages"),
        ({"thinking": "maybe"}, "thinking"),
        ({"items": 0}, "tasks needs items"),
        ({"duration_s": 5.0}, "ends with its last question"),
        ({"tasks": []}, "belongs to tasks or passages"),
        ({"tasks": ["sums"]}, "unknown task 'sums'"),
        ({"languages": ["tlh"]}, "is not in 'tlh'"),
        ({"levels": [9]}, "no level 9"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(changes, said) -> None:
    with pytest.raises(UsageError, match=said):
        with_overrides(SCENARIO, changes)
