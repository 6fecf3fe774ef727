from __future__ import annotations

import json

import msgspec
import pytest
from builders import make_model, make_result
from hypothesis import given
from hypothesis import strategies as st
from regenerate import ROOT, schema_text

from perjoule import store
from perjoule.errors import HostError, InputError
from perjoule.records import SCHEMA_VERSION
from perjoule.store.read import MAX_DEPTH, decode
from perjoule.store.write import encode


def test_a_saved_result_comes_back_equal(tmp_path):
    result = make_result()
    path = store.save(result, tmp_path / "new" / "folder")
    assert store.load(path) == result
    assert path.name == f"2026-01-02-quickstart-tiny-0.5b-instruct-onnxruntime-{result.id[7:15]}.json"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_file_is_sorted_strict_json_with_a_newline(tmp_path):
    data = store.save(make_result(), tmp_path).read_bytes()
    content = json.loads(data)
    assert list(content) == sorted(content)
    assert data.endswith(b"}\n")
    assert b"NaN" not in data


def test_nothing_is_overwritten(tmp_path):
    store.save(make_result(), tmp_path)
    with pytest.raises(InputError, match="exists already"):
        store.save(make_result(), tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_is_a_file_is_a_host_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((HostError, InputError)):
        store.save(make_result(), tmp_path / "file")


def test_a_hostile_model_name_stays_inside_the_folder(tmp_path):
    path = store.save(make_result(model=make_model(name="../../../etc/Ünsafe name")), tmp_path)
    assert path.parent == tmp_path
    assert len(path.name) < 200


def test_the_id_covers_everything_but_itself():
    result = make_result()
    assert store.canonical_id(result) == result.id
    other = msgspec.structs.replace(result, reproduce="perjoule run chat")
    assert store.canonical_id(other) != result.id
    assert store.canonical_id(msgspec.structs.replace(result, id="sha256:0")) == result.id


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not strict JSON"),
        (b"\xff\xfe", "not strict JSON"),
        (b'{"a": NaN}', "NaN is not allowed"),
        (b'{"a": -Infinity}', "not allowed"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": 1, "a": 2}', "given twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not strict JSON"),
        (b"[" * 200_000 + b"]" * 200_000, "nested deeper"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper"),
        (b"[]", "no schema"),
        (b'{"schema": "perjoule.run"}', "schema_version None"),
        (b'{"schema": "perjoule.run", "schema_version": true}', "schema_version True"),
        (b'{"schema": "perjoule.run", "schema_version": 1}', "missing required field"),
    ],
)
def test_hostile_files_are_refused_in_one_line(data, says):
    with pytest.raises(InputError, match=says) as error:
        decode(data, "x.json")
    assert "\n" not in error.value.message
    assert error.value.message.startswith("x.json: ")


def test_a_newer_version_says_update():
    data = json.dumps({"schema": "perjoule.run", "schema_version": SCHEMA_VERSION + 1}).encode()
    with pytest.raises(InputError) as error:
        decode(data, "x.json")
    assert error.value.hint == "update perjoule"


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_cleanly(data):
    with pytest.raises(InputError):
        decode(data, "x.json")


@given(st.data())
def test_a_damaged_result_is_read_or_refused_cleanly(data):
    whole = bytearray(_WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(whole), "x.json")
    except InputError as error:
        assert error.message.startswith("x.json: ")  # noqa: PT017 - either outcome is right


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        store.load(tmp_path / "none.json")


@pytest.mark.parametrize("path", sorted((ROOT / "tests/golden").glob("run-*.json")), ids=lambda p: p.name)
def test_golden_files_load_for_ever(path):
    result = store.load(path)
    assert store.canonical_id(result) == result.id
    assert encode(result) == path.read_bytes()


def test_the_schema_in_the_repository_is_the_records():
    path = ROOT / f"results/schema/run-{SCHEMA_VERSION}.schema.json"
    assert path.read_text(encoding="utf-8") == schema_text(), "run python tests/regenerate.py"


def test_results_fit_the_schema():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert list(jsonschema.Draft202012Validator(schema).iter_errors(json.loads(_WHOLE))) == []


_WHOLE = encode(make_result())
