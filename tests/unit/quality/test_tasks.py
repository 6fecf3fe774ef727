"""Every question of every shipped task, against answers worked out another way."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal

import msgspec
import pytest
from task_solvers import SOLVERS, solve

from perjoule.errors import InputError, UsageError
from perjoule.quality.draw import Draw
from perjoule.quality.item import Choice, Fields, Number, Order
from perjoule.quality.task_file import items, items_sha256, list_tasks, load_task, task_sha256

CASES = [(t, la, lv) for t in list_tasks() for la in load_task(t).languages for lv in load_task(t).levels]


def test_the_tasks_that_ship():
    assert set(list_tasks()) == set(SOLVERS)
    assert {(t.name, *t.languages) for t in map(load_task, list_tasks())} == {
        (name, "en", "zh", "ko") for name in SOLVERS
    }


@pytest.mark.parametrize(("name", "language", "level"), CASES)
@pytest.mark.parametrize("seed", [1, 99])
def test_every_answer_is_right(name: str, language: str, level: int, seed: int):
    task = load_task(name)
    questions = items(task, language=language, level=level, seed=seed)
    assert len({q.prompt for q in questions}) == len({q.id for q in questions}) == task.items
    for question in questions:
        found, key = solve(question), question.key
        if isinstance(key, Number):
            assert isinstance(found, Number)
            assert Decimal(found.value) == Decimal(key.value) > 0, question.prompt
        else:
            assert found == key, question.prompt


@pytest.mark.parametrize("name", list_tasks())
def test_all_languages_ask_the_same(name: str):
    task = load_task(name)
    for level in task.levels:
        sets = [items(task, language=language, level=level) for language in task.languages]
        for same in zip(*sets, strict=True):
            assert len({q.id for q in same}) == 1
            assert len({places(q.key, task.text[q.language]) for q in same}) == 1, [q.key for q in same]
            assert len({q.chance for q in same}) == 1


def places(key, text) -> str:
    """Return the key with each word as its place in the lists of its language."""
    numbers = {w: f"{name}:{i}" for name, ws in text.items() if isinstance(ws, tuple) for i, w in enumerate(ws)}
    if isinstance(key, Fields):
        digits = {"postcode"}  # of as many digits as the country has
        texts = {k: numbers.get(v, v[:5] if k in digits else v) for k, v in key.texts.items()}
        return str((texts, key.numbers))
    if isinstance(key, Order):
        return str([numbers[n] for n in key.names])
    if isinstance(key, Choice):
        return str([numbers[key.text], [numbers[c] for c in key.choices]])
    said = key.value if isinstance(key, Number) else key.text
    return " ".join(numbers.get(w, w) for w in said.split(" "))


def test_questions_are_those_of_the_seed_and_fewer_are_the_first_of_more():
    task = load_task("order-total")
    many = items(task, language="en", level=3)
    assert items(task, language="en", level=3, count=5) == many[:5]
    assert items(task, language="en", level=3, seed=2) != many
    assert items_sha256(many) == items_sha256(items(task, language="en", level=3))


def test_digests_are_pinned():
    """The same on every machine and in every version of Python; a change of one needs a new version of the task."""
    assert {name: task_sha256(load_task(name))[:16] for name in list_tasks()} == PINNED


def test_another_process_makes_the_same_questions():
    code = (
        "from perjoule.quality.task_file import *;"
        "print(items_sha256(items(load_task('shortest-route'), language='ko', level=5)))"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert seen == items_sha256(items(load_task("shortest-route"), language="ko", level=5))


def test_levels_are_harder_to_guess_or_longer():
    for name in ("delay-reason", "shortest-route"):
        chances = [items(load_task(name), language="en", level=level)[0].chance for level in (1, 5)]
        assert chances[0] > chances[1] > 0
    lengths = [len(items(load_task("report-figure"), language="en", level=level)[0].prompt) for level in (1, 3, 5)]
    assert lengths == sorted(lengths)
    assert lengths[-1] < 5000  # fits a context of 2048 tokens in English


def test_no_answer_of_a_choice_or_route_prefers_a_place():
    for name in ("delay-reason", "shortest-route"):
        task = load_task(name)
        first = 0
        questions = items(task, language="en", level=1, count=200)
        for question in questions:
            key = question.key
            assert isinstance(key, Choice | Order)
            if isinstance(key, Choice):
                first += key.choices[0] == key.text
            else:
                stops = question.prompt.split("every stop once: ")[1].split(". ")[0].split(", ")
                first += stops[0] == key.names[0]
        expected = questions[0].chance * len(questions)
        assert abs(first - expected) < 4 * (expected * (1 - questions[0].chance)) ** 0.5


def test_too_many_questions_are_refused():
    with pytest.raises(UsageError, match="different questions") as error:
        items(load_task("arithmetic"), language="en", level=1, count=82)
    assert "at most" in error.value.hint
    assert len(items(load_task("copying"), language="en", level=1, count=48)) == 48


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"language": "tlh"}, "tlh"), ({"level": 6}, "level 6"), ({"count": 1}, "1 questions"), ({"count": 0}, "0")],
)
def test_what_a_task_has_not_is_refused(changes, said):
    with pytest.raises(UsageError, match=said):
        items(load_task("arithmetic"), **{"language": "en", "level": 1, **changes})


def test_an_unknown_task_gets_the_nearest():
    with pytest.raises(UsageError) as error:
        load_task("order-totals")
    assert "order-total" in error.value.hint


def toml(tmp_path, **changes) -> str:
    """Write the arithmetic task with some keys changed; None leaves one out."""
    task = msgspec.to_builtins(load_task("arithmetic"))
    task = {k: v for k, v in {**task, **changes}.items() if v is not None}
    texts = task.pop("text", {})
    lines = [f"{k} = {json.dumps(v)}" for k, v in task.items()]
    for language, text in texts.items():
        lines += [f"[text.{language}]", *(f"{k} = {json.dumps(v)}" for k, v in text.items())]
    path = tmp_path / "own.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_a_task_of_ones_own_by_path(tmp_path):
    task = load_task(toml(tmp_path, name="sums", languages=["fr"], text={"fr": {"question": "Calcule {expression}."}}))
    assert items(task, language="fr", level=1)[0].prompt.startswith("Calcule ")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "Über"}, "name"),
        ({"version": 0}, "version"),
        ({"items": 1}, "items"),
        ({"items": 0}, "items"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"levels": [6]}, "levels"),
        ({"levels": []}, "levels"),
        ({"levels": [1, 1]}, "levels"),
        ({"languages": []}, "languages"),
        ({"languages": ["en", "zh"]}, "text.ko"),
        ({"languages": ["en", "zh", "ko", "fr"]}, "text.fr"),
        ({"languages": ["en;", "zh", "ko"]}, "languages"),
        ({"generator": "os"}, "generator"),
        ({"seed": "one"}, "seed"),
        ({"seed": None}, "seed"),
        ({"colour": "red"}, "colour"),
        ({"languages": ["en"], "text": {"en": {}}}, "text.en.question"),
        ({"languages": ["en"], "text": {"en": {"question": "x", "answer": "y"}}}, "text.en.answer"),
        ({"languages": ["en"], "text": {"en": {"question": ["x"]}}}, "text.en.question"),
    ],
)
def test_a_wrong_key_is_named(tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        load_task(toml(tmp_path, **changes))


def test_a_phrase_without_its_place_is_named(tmp_path):
    task = load_task(toml(tmp_path, languages=["en"], text={"en": {"question": "Calculate {sum}."}}))
    with pytest.raises(InputError, match=r"text\.en\.question: places must be expression, are sum"):
        items(task, language="en", level=1)


@pytest.mark.parametrize("data", [b"\xff", b"name = ", b"x = " + b"[" * 5000, b" " * 300_000])
def test_a_file_that_is_no_task_is_refused(tmp_path, data):
    path = tmp_path / "t.toml"
    path.write_bytes(data)
    with pytest.raises(InputError):
        load_task(str(path))
    with pytest.raises(InputError, match="No such file"):
        load_task(str(tmp_path / "none.toml"))


def test_lists_must_be_as_long_and_all_different(tmp_path):
    base = msgspec.to_builtins(load_task("copying"))
    for words, said in ((["a"], "at least 8"), ([*"abcdefgh"], "as many"), (["a"] * 48, "different")):
        text = {**base["text"], "ko": {**base["text"]["ko"], "words": words}}
        with pytest.raises(InputError, match=rf"text\.ko\.words: .*{said}"):
            load_task(toml(tmp_path, **{**base, "text": text}))


def test_draws_are_even_and_pinned():
    draw = Draw("key")
    seen = [draw.below(6) for _ in range(6000)]
    assert all(850 < seen.count(face) < 1150 for face in range(6))
    assert seen[:8] == [Draw("key").below(6), *seen[1:8]]
    assert sorted(draw.some(50, 50)) == list(range(50))
    assert len({tuple(Draw(f"k{i}").some(2, 3)) for i in range(100)}) == 6
    assert len(set(draw.some(49, 10**12))) == 49
    with pytest.raises(ValueError, match="3 different"):
        draw.some(3, 2)
    orders = {tuple(Draw(f"k{i}").shuffled("abc")) for i in range(100)}
    assert len(orders) == 6
    assert [Draw("a").between(1, 10**9), Draw("b").below(2**64)] == DRAWN
    with pytest.raises(ValueError, match="below 0"):
        draw.below(0)


DRAWN = [381117803, 770482745491775077]
PINNED = {
    "address-fields": "ac8f7da961376bbc",
    "arithmetic": "93ecc49b664ac1eb",
    "copying": "779b4246c734af1c",
    "delay-reason": "5c91ed9cee29eb74",
    "order-fields": "d6b3078326d66430",
    "order-total": "6badb9395b2557fa",
    "report-figure": "9be3f7f5482a1d38",
    "shortest-route": "17c1b5bacf3da537",
}
