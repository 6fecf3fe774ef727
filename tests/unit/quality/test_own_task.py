from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import InputError
from perjoule.quality.item import Choice, Exact, Fields, Number
from perjoule.quality.own_task import load_items
from perjoule.quality.scoring import score

GOOD = '{"prompt": "2 + 2?", "answer": 4, "match": "number"}'


def write(tmp_path, *lines: str) -> str:
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_each_kind_of_answer(tmp_path):
    found = load_items(
        write(
            tmp_path,
            GOOD,
            "",
            '{"prompt": "Price?", "answer": "$1,250.50", "match": "number", "id": "p", "language": "en", "level": 3}',
            '{"prompt": "As JSON", "answer": {"name": "Ann", "age": 0.1}, "match": "json", "system": "Be short."}',
            '{"prompt": "A or B?", "answer": "A", "match": "choice"}',
            '{"prompt": "B or A?", "answer": "B", "match": "choice"}',
            '{"prompt": "Which?", "answer": "x", "match": "choice", "choices": ["x", "y", "z"]}',
            '{"prompt": "Capital?", "answer": "서울", "match": "exact"}',
        )
    )
    assert [item.key for item in found] == [
        Number(value="4"),
        Number(value="1250.50"),
        Fields(texts={"name": "Ann"}, numbers={"age": "0.1"}),
        Choice(text="A", choices=("A", "B")),
        Choice(text="B", choices=("A", "B")),
        Choice(text="x", choices=("x", "y", "z")),
        Exact(text="서울"),
    ]
    assert [(i.id, i.level) for i in found[:3]] == [("own/1", 1), ("p", 3), ("own/4", 1)]
    assert found[2].system == "Be short."
    assert score(found[2], '{"age": 0.1, "name": "Ann"}').correct


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "own.jsonl:3: "),
        ("[]", "own.jsonl:3: "),
        ("nonsense", "own.jsonl:3: "),
        ('{"prompt": "x", "answer": 1}', "match"),
        ('{"prompt": "x", "match": "number"}', "answer"),
        ('{"answer": 1, "match": "number"}', "prompt"),
        ('{"prompt": "x", "answer": 1, "match": "fuzzy"}', "fuzzy"),
        ('{"prompt": "x", "answer": 1, "match": "number", "weight": 2}', "weight"),
        ('{"prompt": " ", "answer": 1, "match": "number"}', "prompt is empty"),
        ('{"prompt": "x", "answer": "four", "match": "number"}', "not a number"),
        ('{"prompt": "x", "answer": NaN, "match": "number"}', "own.jsonl:3: "),
        ('{"prompt": "x", "answer": true, "match": "number"}', "text or a number"),
        ('{"prompt": "x", "answer": null, "match": "exact"}', "text or a number"),
        ('{"prompt": "x", "answer": "", "match": "exact"}', "one line"),
        ('{"prompt": "x", "answer": "a\\nb", "match": "exact"}', "one line"),
        ('{"prompt": "x", "answer": "a", "match": "json"}', "object"),
        ('{"prompt": "x", "answer": {}, "match": "json"}', "at least one key"),
        ('{"prompt": "x", "answer": {"a": [1]}, "match": "json"}', "answer.a"),
        ('{"prompt": "x", "answer": "A", "match": "choice"}', "two choices"),
        ('{"prompt": "x", "answer": "A", "match": "choice", "choices": ["B", "C"]}', "none of the choices"),
        ('{"prompt": "x", "answer": "A", "match": "exact", "choices": ["A", "B"]}', "choices belong"),
        ('{"prompt": "2 + 2?", "answer": 5, "match": "number"}', "same prompt as line 1"),
        ('{"prompt": "x", "answer": 5, "match": "number", "id": "own/1"}', "same id as line 1"),
        ('{"prompt": "x", "answer": 1e999999999999999999999, "match": "number"}', "own.jsonl:3: "),
        ("[" * 4000, "own.jsonl:3: "),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, line, said):
    with pytest.raises(InputError, match=r"own\.jsonl:3: ") as error:
        load_items(write(tmp_path, GOOD, GOOD.replace("2 + 2", "3 + 1"), line))
    assert said in error.value.message


@pytest.mark.parametrize(
    ("lines", "said"), [((), "no question"), (("", " "), "no question"), ((GOOD,), "one question")]
)
def test_too_few_questions_are_refused(tmp_path, lines, said):
    with pytest.raises(InputError, match=said) as error:
        load_items(write(tmp_path, *lines))
    assert "interval" in error.value.hint


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        load_items(str(tmp_path / "none.jsonl"))
    path = tmp_path / "b.jsonl"
    path.write_bytes(b'{"prompt": "\xff", "answer": 1, "match": "number"}')
    with pytest.raises(InputError, match=r"b\.jsonl:1"):
        load_items(str(path))


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=6))
def test_numbers_are_read_as_they_are_written(value: Decimal):
    import tempfile  # noqa: PLC0415 - a folder for each example
    from pathlib import Path  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "n.jsonl"
        path.write_text(f'{GOOD}\n{{"prompt": "n", "answer": {value:f}, "match": "number"}}\n', encoding="utf-8")
        key = load_items(str(path))[1].key
    assert isinstance(key, Number)
    assert Decimal(key.value) == value


@given(st.binary(max_size=200))
def test_no_file_breaks_the_reader(data: bytes):
    import tempfile  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "n.jsonl"
        path.write_bytes(json.dumps({"prompt": "a"}).encode() + b"\n" + data)
        with pytest.raises(InputError):
            load_items(str(path))
