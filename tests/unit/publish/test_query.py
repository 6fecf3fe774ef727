from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from published_results import process, publishable

from perjoule import store
from perjoule.cli import main
from perjoule.errors import HostError, UsageError
from perjoule.publish.rows import rows_of
from perjoule.store.flat import flat
from perjoule.store.query import column_types, query

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n in (3, 4):
        runs = tuple(process(p, requests=n) for p in range(5))
        store.save(publishable(runs=runs), tmp_path / "results" / "deep")
    return tmp_path / "results"


def test_types_are_those_of_the_values():
    rows = [{"a": 1, "b": None, "c": "x", "d": 1}, {"a": 1.5, "b": True, "c": "y", "d": 2}]
    assert column_types(rows) == {"a": "DOUBLE", "b": "BOOLEAN", "c": "VARCHAR", "d": "BIGINT"}
    assert column_types([]) == {"id": "VARCHAR"}


def test_a_row_holds_facts_metrics_intervals_and_labels():
    row = flat(publishable())
    assert row["model"] == "Tiny-0.5B-Instruct"
    assert float(str(row["ttft_s_low"])) <= float(str(row["ttft_s"])) <= float(str(row["ttft_s_high"]))
    assert {row["energy_label"], row["energy_j_per_output_token_label"]} == {"utilisation-modelled"}
    assert row["e2e_latency_p99_s"] is None


def test_without_duckdb_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(HostError) as error:
        query("SELECT 1", [])
    assert error.value.hint == "pip install 'perjoule[query]'"


def test_sql_over_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("duckdb")
    (folder / "bad.json").write_text("{")
    sql = "SELECT model, count(*) AS n, max(ttft_s) < 10 AS fast FROM results GROUP BY model"
    assert main(["query", sql, str(folder), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == {"model": "Tiny-0.5B-Instruct", "n": 2, "fast": True}
    assert "not read" in told.err
    assert main(["query", "SELECT scenario, threads FROM results", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines() == ["scenario    threads", *["quickstart  2"] * 2]


@pytest.mark.parametrize(
    "sql", ["SELECT nothing FROM results", "SELEC", "SELECT * FROM read_text('/etc/passwd')", "COPY results TO 'x.csv'"]
)
def test_what_does_not_work_or_reaches_out_is_refused_in_one_line(sql: str):
    pytest.importorskip("duckdb")
    with pytest.raises(UsageError, match="the query does not work") as error:
        query(sql, [flat(publishable())])
    assert "\n" not in error.value.message


def test_an_index_spares_reading_what_did_not_change(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    to = tmp_path / "to"
    assert main(["publish", str(folder), "--to", str(to)]) == 0
    monkeypatch.setattr("perjoule.store.load", lambda path: pytest.fail(f"{path} was read again"))
    rows, problems = rows_of([str(to)])
    assert problems == []
    assert [row["scenario"] for row in rows] == ["quickstart"] * 2
