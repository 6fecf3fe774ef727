"""An answer keeps its verdict in whatever noise models put around it."""

# ruff: noqa: RUF001 - signs of full width are what is meant

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.quality.answer_text import opened_thought
from perjoule.quality.item import Choice, Exact, Fields, Item, Key, Number, Order
from perjoule.quality.scoring import UNFINISHED, score
from perjoule.quality.task_file import items, list_tasks, load_task


def item(key: Key) -> Item:
    return Item(id="t/1", task="t", language="en", level=1, prompt="?", key=key)


def right(key: Key, output: str, **options) -> bool:
    return score(item(key), output, **options).correct


def number(value: object) -> Number:
    return Number(value=str(value))


# What stands around an answer and holds no answer itself.
BEFORE = st.sampled_from(
    [
        "",
        " ",
        "\n\n",
        "Answer: ",
        "Answer:\n",
        "**Answer:** ",
        "The answer is ",
        "The final answer is: ",
        "答案：",
        "答案是",
        "答案: ",
        "最终答案：",
        "정답: ",
        "정답은: ",
        "답: ",
        "# Answer: ",
        '<think>\nIs it 17? No, 999 {"x": 1} weather.\n</think>\n\n',
        "it is 3, or 4\n</think>\n",
        "<think></think>",
        "<THINK>a > b</THINK>Answer: ",
    ]
)
AFTER = st.sampled_from(
    [
        "",
        "\n",
        ".",
        "。",
        "\n\nThat is all I found.",
        '\nIt was 5 before, and 12,000 or {"order": 9} later.',
        "<|im_end|>",
        "</s>",
        "<end_of_turn>\n1234",
        "\n<|endoftext|>Question: 3 + 4?\nAnswer: 7",
        ". Let me know if I can help.",
    ]
)
DIGITS = ["0123456789", "０１２３４５６７８９", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९"]


def fenced(draw, text: str) -> str:
    return draw(st.sampled_from([text, text, f"```\n{text}\n```", f"```json\n{text}\n```", f"```{text}```"]))


@st.composite
def said_number(draw, values):
    value = draw(values)
    form = draw(st.sampled_from(["{}", "{:,}"])).format(value)
    if draw(st.booleans()):
        form = form.translate(str.maketrans(DIGITS[0], draw(st.sampled_from(DIGITS))))
    sign = draw(st.sampled_from(["", "$", "€", "¥", "￥", "₩", "USD ", "US$", "Rs "]))
    form = (f"-{sign}{form[1:]}" if len(sign) == 1 else form) if sign and form[0] == "-" else sign + form
    if draw(st.booleans()):
        form = draw(
            st.sampled_from(
                ["**{}**", "\\boxed{{{}}}", "({})", "3 + 4 = {}", "1.50 × 2 = 3.00 + 5 = {}", "9 / 3 = **{}**"]
            )
        ).format(form)
    unit = draw(st.sampled_from(["", " dollars", "元", "달러", " 美元", " km", "원", "%", "개"]))
    return value, draw(BEFORE) + fenced(draw, form + unit) + draw(AFTER)


VALUES = st.decimals(min_value=-999_999, max_value=9_999_999, places=2).map(
    lambda d: d.to_integral_value() if d == d.to_integral_value() else d
)


@given(said_number(VALUES))
def test_a_right_number_is_right_in_any_noise(case):
    value, output = case
    found = score(item(number(value)), output)
    assert found.correct, (output, found)
    assert Decimal(found.parsed) == value


@given(said_number(VALUES), VALUES)
def test_a_wrong_number_is_wrong_in_any_noise(case, other):
    value, output = case
    if value != other:
        assert not right(number(other), output), output


@pytest.mark.parametrize(
    "output",
    [
        "12,5",
        "1/2",
        "3-4",
        "12:30",
        "1e5",
        "5 thousand",
        "5k",
        "5万",
        "5천원",
        "5 百万",
        "five",
        "HX-5",
        "x5",
        "1st",
        "",
        "  ",
        "<think>5</think>",
        "<think>5",
        "5<think>",
        "3 + 5",
        "1.2.3",
        "5,00",
        "12,34",
        "5²7",
        "-5",
        "负5",
        "minus 5",
        "2031-05-05",
        "9" * 50,
        "<|im_end|>5",
        "Answer:",
        "```\n```",
        "NaN",
        "∞",
        "½",
    ],
)
def test_what_is_no_plain_number_is_wrong(output):
    for value in ("5", "12", "12.5", "0.5", "5000", "50000", "100000", "57", "3", "1", "34", "8"):
        if value == "5" and output == "5²7":
            continue
        assert not right(number(value), output), (value, output)


def test_the_first_number_counts():
    assert right(number(5), "5, no, 6")
    assert not right(number(6), "5, no, 6")
    assert not right(number(17), "First 3 × 4, then add.\n3 × 4 = 12\n12 + 5 = 17")
    assert right(number("12.50"), "12.5")
    assert not right(number("12.50"), "12.51")
    assert right(number(1234567), "1,234,567 km") == right(number(1234567), "1'234'567") is True
    assert right(number(123456), "1,23,456")
    assert right(number(-5), "−5")
    assert right(number(5), "答案是5")
    assert right(number(5), "- 5")
    assert not right(number(5), "5千")
    assert right(number(5), "5千米")


@pytest.mark.parametrize(
    ("key", "output", "correct"),
    [
        (number(12), "12", False),
        (number(12), "12.", False),
        (number(12), "12\n", True),
        (number(12), "12 km", True),
        (Exact(text="apple pie"), "apple pie", False),
        (Exact(text="apple pie"), "apple pie\nand", True),
        (Choice(text="staff", choices=("staff", "weather")), "staff", False),
        (Choice(text="staff", choices=("staff", "weather")), "staff is", True),
        (Fields(texts={"a": "x"}, numbers={}), '{"a": "x"}', True),
        (Fields(texts={"a": "x"}, numbers={}), '{"a": "x"', False),
        (Order(names=("bank", "park"), start="home"), "bank > park", False),
        (Order(names=("bank", "park"), start="home"), "bank > park.", True),
    ],
)
def test_an_answer_that_the_limit_may_have_cut_is_wrong(key, output, correct):
    found = score(item(key), output, finished=False)
    assert found.correct == correct
    assert correct or found.reason == UNFINISHED


def test_thinking_that_did_not_end_is_wrong_and_says_so():
    assert score(item(number(5)), "<think>5").reason == "thinking did not end"
    assert score(item(number(5)), "", finished=False).reason == UNFINISHED
    assert score(item(number(5)), "").reason == "no answer"


LINES = st.sampled_from(
    [
        i.key
        for la in ("en", "zh", "ko")
        for lv in (1, 3, 4, 5)
        for i in items(load_task("copying"), language=la, level=lv, count=4)
    ]
)


@st.composite
def said_line(draw, lines):
    text = draw(lines).text
    text = draw(st.sampled_from(["{}", '"{}"', "“{}”", "**{}**", "`{}`", "「{}」", "'{}'"])).format(text)
    return draw(BEFORE) + fenced(draw, text) + draw(AFTER)


@given(LINES, st.data())
def test_a_copied_line_is_right_in_any_noise(key, data):
    output = data.draw(said_line(st.just(key)))
    assert right(key, output), (key, output)


@given(LINES, LINES, st.data())
def test_another_line_is_wrong_in_any_noise(key, other, data):
    if key != other:
        assert not right(key, data.draw(said_line(st.just(other))))


def test_a_copy_is_the_whole_line():
    assert right(Exact(text="St. Louis"), "St. Louis")
    assert right(Exact(text="HX 5"), "ｈx ５")
    assert not right(Exact(text="St. Louis"), "St. Paul")
    for output in ("apple pie", "the apple", "apple,", "apple\u0301", "I would say apple", "Copy: apple"):
        assert not right(Exact(text="apple"), output), output


CHOICES = [i.key for la in ("en", "zh", "ko") for i in items(load_task("delay-reason"), language=la, level=5, count=10)]


@given(st.sampled_from(CHOICES), BEFORE, AFTER, st.data())
def test_a_choice_keeps_its_verdict(key, before, after, data):
    said = data.draw(st.sampled_from(key.choices))
    spoken = data.draw(
        st.sampled_from(
            [said, said.upper(), f"**{said}**", f'"{said}"', f"({said})", f"1. {said}", f"{said}, not snow"]
        )
    )
    assert right(key, before + spoken + after) == (said == key.text)


def test_the_first_choice_counts_and_words_stand_alone():
    key = Choice(text="staff", choices=("staff", "staff on strike", "weather"))
    assert right(key, "staff, or the weather")
    assert not right(key, "weather, or staff")
    assert not right(key, "staff  on strike")
    assert not right(key, "staffing")
    assert not right(key, "snow")
    letters = Choice(text="A", choices=("A", "B"))
    for output in ("A", "A.", "(A)", "**A**", "Answer: A", "A\n", "答案：A。", "A) traffic", "The choice is A."):
        assert right(letters, output), output
    for output in ("B. A", "A driver is ill: B", "a", "BA", "", "A or B"):
        assert not right(letters, output), output
    assert right(Choice(text="Straße", choices=("Straße", "Weg")), "STRAßE.")


ROUTES = [
    i.key for la in ("en", "zh", "ko") for i in items(load_task("shortest-route"), language=la, level=5, count=10)
]


@given(st.sampled_from(ROUTES), st.permutations(range(4)), st.booleans(), BEFORE, AFTER, st.data())
def test_a_route_keeps_its_verdict(key, order, start, before, after, data):
    between = data.draw(st.sampled_from([" > ", " -> ", "→", ", ", "、", "\n", " - "]))
    names = [key.start] * start + [key.names[i] for i in order]
    assert right(key, before + between.join(names) + after) == (list(order) == [0, 1, 2, 3])


def test_a_route_has_every_stop_once():
    key = Order(names=("bank", "park", "hotel"), start="home")
    assert not right(key, "bank > park")
    assert not right(key, "bank > bank > park > hotel")
    assert not right(key, "home > bank > home > park > hotel")
    assert right(key, "Home to BANK to park to hotel, then bank again")


OBJECTS = [
    i.key
    for t in ("order-fields", "address-fields")
    for la in ("en", "zh", "ko")
    for lv in (2, 3, 5)
    for i in items(load_task(t), language=la, level=lv, count=4)
]


def as_json(draw, key: Fields) -> str:
    found: dict[str, object] = dict(key.texts)
    for name, value in key.numbers.items():
        found[name] = draw(st.sampled_from([float(value), value, f"${value}", f"{Decimal(value):,}"]))
    found = dict(draw(st.permutations(list(found.items()))))
    return json.dumps(found, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 2])))


@given(st.sampled_from(OBJECTS), BEFORE, AFTER, st.data())
def test_a_right_object_is_right_in_any_noise(key, before, after, data):
    output = before + fenced(data.draw, as_json(data.draw, key)) + after
    found = score(item(key), output)
    assert found.correct, (output, found)


@given(st.sampled_from(OBJECTS), BEFORE, AFTER, st.data())
def test_an_object_with_one_thing_wrong_is_wrong(key, before, after, data):
    found = json.loads(as_json(data.draw, key))
    name = data.draw(st.sampled_from(sorted(found)))
    how = data.draw(st.sampled_from(["missing", "other", "null", "extra", "list", "renamed"]))
    value = found.pop(name)
    found |= {
        "missing": {},
        "other": {name: f"{value}1"},
        "null": {name: None},
        "extra": {name: value, "note": ""},
        "list": {name: [value]},
        "renamed": {name.upper(): value},
    }[how]
    assert not right(key, before + json.dumps(found, ensure_ascii=False) + after)


@pytest.mark.parametrize(
    "output",
    [
        '{"a": "x", "n": 5',
        '{"a": "x", "n": NaN}',
        "{'a': 'x', 'n': 5}",
        '{"a": "x", "a": "x", "n": 5}',
        '{"a": "x", "n": true}',
        '{"answer": {"a": "x", "n": 5}}',
        '{"z": {"a": "x", "n": 5}',
        "{" * 5000,
        '{"a":' * 5000,
        '{"a": "x", "n": 5e}',
        '{"a": "x", "n": 1e999999999999999999999}',
        '{"a": "x", "n": 5,}',
        '{"z": 1} {"a": "x", "n": 5}',
        '{"a": x, "n": 5}',
        '{"a": "{\\"a\\": \\"x\\"}", "n": 5}',
        "{}",
        "a: x, n: 5",
        '{"a": "x {"a": "x", "n": 5}',
        '{"a": 5, "n": "x"}',
    ],
)
def test_a_broken_or_later_object_is_wrong(output):
    assert not right(Fields(texts={"a": "x"}, numbers={"n": "5"}), output)


def test_braces_of_prose_are_no_object():
    assert right(Fields(texts={"a": "x"}, numbers={"n": "5"}), 'Keys {a, n}: [{"a": " X ", "n": 5.0}]')


@given(st.text(max_size=300), st.booleans())
def test_no_output_breaks_the_scoring(output, finished):
    for key in (number(5), Exact(text="a"), CHOICES[0], ROUTES[0], OBJECTS[0]):
        found = score(item(key), output, finished=finished)
        assert found.correct == (not found.reason)


@given(st.text(alphabet="<think/>0123456789 -+=.,{}\"':`*$\n", max_size=60))
def test_no_run_of_signs_breaks_the_scoring(output):
    for key in (number(5), OBJECTS[0], Exact(text="5")):
        assert score(item(key), output).correct in (True, False)


@pytest.mark.parametrize("name", list_tasks())
def test_the_answer_as_the_prompt_asks_for_it_is_right(name):
    task = load_task(name)
    for language in task.languages:
        for level in task.levels:
            for question in items(task, language=language, level=level, count=10):
                assert score(question, said(question.key)).correct
                assert not score(question, "").correct


def said(key: Key) -> str:
    match key:
        case Number():
            return key.value
        case Exact() | Choice():
            return key.text
        case Order():
            return " > ".join(key.names)
        case Fields():
            return json.dumps({**key.texts, **{k: float(v) for k, v in key.numbers.items()}})


@pytest.mark.parametrize(
    ("prompt", "tag"),
    [
        ("6 x 7?<|assistant|>\n<think>\n", "<think>\n"),
        ("6 x 7?<THINKING>", "<THINKING>"),
        ("6 x 7?<think>\n\n</think>\n\n", ""),
        ("what does <think> mean?\nassistant\n", ""),
        ("6 x 7?", ""),
        ("", ""),
    ],
)
def test_a_thought_that_the_prompt_opens_is_seen(prompt: str, tag: str):
    assert opened_thought(prompt) == tag


def test_a_cut_off_thought_that_the_prompt_opened_is_never_right():
    begun = "42, no wait, let me"
    opened = opened_thought("6 x 7?<think>\n")
    assert not right(number(42), opened + begun, finished=False)
    assert right(number(42), f"{opened}{begun} see</think>42")
