"""llama-bench's real output becomes records; what is broken, hostile or something else is refused in one line."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import InputError
from perjoule.interchange import ImportedRecord, load_imported, save_imported, strict
from perjoule.interchange.llama_bench import read_llama_bench
from perjoule.interchange.record import Figure
from perjoule.interchange.shown import lines

DATA = Path(__file__).parents[2] / "data" / "interchange"
TEST = {
    "build_commit": "8cf427ff", "build_number": 5163, "backends": "CPU", "model_filename": "m.gguf",
    "model_type": "tiny", "n_prompt": 0, "n_gen": 16, "avg_ts": 10.0, "stddev_ts": 0.5,
}  # fmt: skip


def read(folder: Path, *tests: dict[str, Any] | str) -> list[ImportedRecord]:
    path = folder / "bench.json"
    text = tests[0] if tests and isinstance(tests[0], str) else json.dumps(tests)
    path.write_text(text, encoding="utf-8")
    return read_llama_bench(path)


def figure(record: ImportedRecord, name: str) -> Figure:
    found = record.metrics[name]
    assert isinstance(found, Figure)
    return found


@pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
def test_real_files_give_a_record_for_each_test(form: str):
    pp, tg = read_llama_bench(DATA / f"llama-bench.{form}")
    assert (pp.test, tg.test) == ("pp512", "tg128")
    assert (pp.tool.name, pp.tool.version, pp.tool.commit) == ("llama-bench", "b5163", "8cf427ff")
    assert (pp.source.form, pp.source.position, tg.source.position) == (form, 0, 1)
    assert pp.model.name == "Qwen2.5-7B-Instruct-Q4_K_M.gguf"
    assert pp.model.weights_bytes == 4_677_120_000
    assert pp.facts["cpu_info"] == "AMD Ryzen 7 7800X3D 8-Core Processor"
    assert pp.metrics["decode_tokens_per_s"] is None
    assert "generates nothing" in str(pp.metrics["decode_tokens_per_s_missing"])
    assert tg.metrics["energy_j_per_output_token"] is None
    assert figure(tg, "decode_tokens_per_s").value == pytest.approx(119.5, rel=0.01)


def test_the_deviation_is_named_as_what_it_is():
    pp, _ = read_llama_bench(DATA / "llama-bench.json")
    rate = figure(pp, "prefill_tokens_per_s")
    assert (rate.value, rate.spread, rate.n) == (7100.002165, 140.341520, 5)
    assert rate.spread == pytest.approx(statistics.stdev(rate.values), rel=1e-4)
    assert rate.spread_kind == "standard deviation of the values (divisor n - 1)"
    assert pp.intervals is None
    assert "one process" in pp.intervals_missing


def test_a_csv_does_not_say_how_often_it_was_repeated():
    rate = figure(read_llama_bench(DATA / "llama-bench.csv")[0], "prefill_tokens_per_s")
    assert rate.n is None
    assert "CSV" in str(rate.n_missing)
    assert "values are not in it" in rate.spread_kind


def test_one_repetition_has_no_deviation(tmp_path: Path):
    [record] = read(tmp_path, TEST | {"stddev_ts": 0.0, "samples_ts": [10.0]})
    assert figure(record, "decode_tokens_per_s").spread is None


def test_samples_that_contradict_the_mean_are_told(tmp_path: Path):
    [record] = read(tmp_path, TEST | {"stddev_ts": 3.0, "samples_ts": [20.0, 21.0]})
    assert record.remarks == ("avg_ts is not the mean of samples_ts",)
    assert "does not follow" in figure(record, "decode_tokens_per_s").spread_kind


def test_prompt_and_generation_together_are_neither(tmp_path: Path):
    [record] = read(tmp_path, TEST | {"n_prompt": 512})
    assert record.test == "pp512+tg16"
    assert record.metrics["decode_tokens_per_s"] is None
    assert record.metrics["prefill_tokens_per_s"] is None
    assert list(record.other) == ["prompt_and_generated_tokens_per_s"]


def test_a_prefill_behind_a_filled_cache_is_no_prefill_of_ours(tmp_path: Path):
    deep, decode = read(tmp_path, TEST | {"n_prompt": 64, "n_gen": 0, "n_depth": 4096}, TEST | {"n_depth": 4096})
    assert deep.test == "pp64 @ d4096"
    assert deep.metrics["prefill_tokens_per_s"] is None
    assert decode.load["depth_tokens"] == 4096
    assert figure(decode, "decode_tokens_per_s").value == 10.0


def test_folders_of_a_model_are_cut_off(tmp_path: Path):
    posix, windows = read(
        tmp_path, TEST | {"model_filename": "/srv/ann/m.gguf"}, TEST | {"model_filename": "C:\\Users\\ann\\m.gguf"}
    )
    assert posix.model.name == windows.model.name == "m.gguf"
    assert "ann" not in json.dumps([posix.facts, windows.facts])


def test_a_record_is_written_once_and_read_back(tmp_path: Path):
    [record] = read(tmp_path, TEST)
    path = save_imported(record, tmp_path / "out")
    assert load_imported(path) == record
    with pytest.raises(InputError, match="exists already"):
        save_imported(record, tmp_path / "out")
    path.write_text(path.read_text(encoding="utf-8").replace("10.0", "99.0"), encoding="utf-8")
    with pytest.raises(InputError, match="it was changed"):
        load_imported(path)


REFUSED = {
    "empty": ("", "is empty"),
    "no test": ("[]", "no test"),
    "truncated": (json.dumps([TEST])[:-9], "not strict JSON"),
    "NaN": (json.dumps([TEST]).replace("10.0", "NaN"), "NaN is not allowed"),
    "nan as C prints it": (json.dumps([TEST]).replace("10.0", "-nan"), "not strict JSON"),
    "infinite": (json.dumps([TEST]).replace("10.0", "1e999"), "too large"),
    "a key twice": ('[{"avg_ts": 1, "avg_ts": 2}]', "given twice"),
    "deep": ("[" * 50_000, "nested deeper|not strict JSON"),
    "deep and whole": ("[" * 40 + "]" * 40, "nested deeper"),
    "Markdown": ("| model | size |\n| --- | --- |\n", "Markdown"),
    "SQL": ("CREATE TABLE IF NOT EXISTS test (\n", "SQL"),
    "HTML": ("<html><body>404</body></html>", "not a file of llama-bench"),
    "a list of something": ("[1, 2]", "not a list of tests"),
    "another tool": ('{"config": {}, "report": {}}', "there is no n_prompt"),
    "no rate": (json.dumps([{k: v for k, v in TEST.items() if k != "avg_ts"}]), "test 1: there is no avg_ts"),
    "a rate of 0": (json.dumps([TEST | {"avg_ts": 0}]), "nothing was measured"),
    "a negative rate": (json.dumps([TEST | {"avg_ts": -1}]), "not a number from 0 up"),
    "a rate of text": (json.dumps([TEST | {"avg_ts": "fast"}]), "not a number"),
    "a rate of truth": (json.dumps([TEST | {"avg_ts": True}]), "not a number"),
    "half a token": (json.dumps([TEST | {"n_gen": 1.5}]), "not a count"),
    "no tokens": (json.dumps([TEST | {"n_gen": 0}]), "neither prompt nor"),
    "cells without a column": ("n_prompt,n_gen,avg_ts\n1,2\n", "2 cells under 3 columns"),
    "a column twice": ("n_prompt,avg_ts,avg_ts\n1,2,3\n", "named twice"),
    "nan in CSV": ("n_prompt,n_gen,avg_ts\n0,2,nan\n", "'nan', not a number"),
    "a quote that never ends": ('n_prompt,n_gen,avg_ts\n0,2,"1\n', "not CSV"),
    "a bad line": (json.dumps(TEST) + "\n{", "line 2: not strict JSON"),
}


@pytest.mark.parametrize(("text", "why"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_such_a_file_is_refused_with_a_hint(text: str, why: str, tmp_path: Path):
    with pytest.raises(InputError, match=why) as refused:
        read(tmp_path, text)
    assert refused.value.hint


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="No such file"):
        read_llama_bench(tmp_path / "none.json")
    with pytest.raises(InputError, match="Is a directory"):
        read_llama_bench(tmp_path)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe[")
    with pytest.raises(InputError, match="not UTF-8"):
        read_llama_bench(tmp_path / "bytes")
    monkeypatch.setattr(strict, "MAX_BYTES", 4)
    with pytest.raises(InputError, match="larger than"):
        read(tmp_path, TEST)


def test_too_many_tests_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="1001 tests"):
        read(tmp_path, *([TEST] * 1001))


def test_names_that_a_terminal_would_obey_are_shown(tmp_path: Path):
    [record] = read(tmp_path, TEST | {"model_filename": "\x1b[31m<b>m\u202e\n.gguf", "backends": "\ud800"})
    path = save_imported(record, tmp_path / "out")
    shown = lines(load_imported(path))
    assert not any("\x1b" in line or "\u202e" in line or "\n" in line for line in shown)
    assert "\\u001b" in shown[1]
    assert shown[0] == "imported from llama-bench (b5163 commit 8cf427ff), not measured by perjoule"


def test_integers_that_json_cannot_hold_are_kept_as_text(tmp_path: Path):
    [record] = read(tmp_path, TEST | {"seed": 2**64})
    assert record.facts["seed"] == str(2**64)


@given(st.dictionaries(st.sampled_from([*TEST, "samples_ts", "n_depth", "model_size", "odd"]), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=6,
)))  # fmt: skip
def test_any_object_is_a_record_or_a_clear_refusal(tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]):
    folder = tmp_path_factory.mktemp("any")
    try:
        [record] = read(folder, TEST | changes)
    except InputError:
        return
    assert load_imported(save_imported(record, folder)) == record
    assert lines(record)
