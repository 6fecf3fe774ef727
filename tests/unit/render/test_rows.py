"""The summary shows the rows that fit each load, says first what was too much, and never a bare dash."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

import msgspec
import pytest
from builders import make_result
from load_builders import (
    make_cold_start,
    make_idle,
    make_multi_stream,
    make_offline,
    make_server,
    make_sustained,
)
from rich.console import Console

from perjoule.render import rows
from perjoule.render.scenario import judged_by
from perjoule.render.text import summary
from perjoule.scenario import from_facts

if TYPE_CHECKING:
    from perjoule.records import RunResult

EVERY_SHAPE = {
    "single-stream": make_result, "multi-stream": make_multi_stream, "offline": make_offline, "server": make_server,
    "cold-start": make_cold_start, "idle": make_idle, "sustained": make_sustained,
}  # fmt: skip


def shown(results: list[RunResult], width: int = 100) -> str:
    console = Console(width=width, file=StringIO(), color_system=None)
    console.print(summary(results))
    return console.file.getvalue()  # type: ignore[attr-defined]


def said(results: list[RunResult]) -> str:
    return " ".join(shown(results).split())


def titles(results: list[RunResult]) -> list[str]:
    return [row.title.strip() for row in rows.rows(results)]


def test_a_served_load_shows_offered_and_answered_rate_latencies_and_goodput():
    found = titles([make_server()])
    wanted = ["Offered load", "Answered", "Output tokens", "Time to first token", "99 % are within", "Queueing delay"]
    assert found[: len(wanted)] == wanted
    assert {"Met the service level", "Goodput", "per joule", "Energy per output token"} <= set(found)
    assert "Decode" not in found


def test_a_saturated_load_is_said_first_and_its_latencies_are_not_explained_twice():
    text = said([make_server(saturated=True)])
    assert text.startswith("Tiny-0.5B-Instruct on onnxruntime cannot keep up with this load: 4 requests/s are offered")
    assert text.count("48 wait after 16 s") == 1
    assert "--set rate_per_s=N" in text
    assert "Time to first token" not in text


def test_a_load_that_was_kept_up_with_has_no_such_line():
    assert rows.too_much(make_server(), "m") == ""


def test_a_search_for_the_highest_rate_says_what_it_ended_with():
    result = make_server(find_rate=True)
    spans = [msgspec.structs.replace(s, rate_per_s=1.5, rate_per_s_missing=msgspec.UNSET) for s in result.spans]
    trials = [msgspec.structs.replace(spans[0], phase="warmup", window=f"0.t{i}/serve") for i in range(6)]
    result = msgspec.structs.replace(result, spans=(*trials, *spans))
    assert "the search ended at 1.50 requests/s after 6 trials" in said([result])


def test_offline_is_throughput_alone():
    found = titles([make_offline()])
    assert found[:2] == ["Answered", "Output tokens"]
    assert not any("Time" in title for title in found if title != "CPU time per token")
    assert "no Time to first token" not in said([make_offline()])


def test_a_cold_start_shows_loading_the_first_token_their_sum_and_what_the_disk_gave():
    result = make_cold_start()
    found = {row.title.strip(): rows.cell(result, row, short=True) for row in rows.rows([result])}
    assert found["read from the disk"] == "379 MiB"
    total = sum(p.load_s + p.cold_ttft_s for p in result.processes if p.cold_ttft_s is not None) / 5
    assert found["and the first token"].startswith(f"{total:.2f} s")
    assert "Model load" in found


def test_bytes_that_could_not_be_counted_say_why():
    assert "no bytes read from the disk: /proc/self/io: Permission denied" in said([make_cold_start(read_bytes=None)])


def test_a_long_load_shows_how_the_last_fifth_compares_with_the_first():
    result = make_sustained()
    found = {row.title.strip(): rows.cell(result, row, short=True) for row in rows.rows([result])}
    assert found["last fifth of load to first"] == "86.8 %"
    assert "last fifth of load to first" not in titles([make_result()])


def test_an_idle_engine_shows_what_waiting_costs():
    found = titles([make_idle()])
    assert "while it waited 50 s" in said([make_idle()])
    assert found == ["Model load", "CPU while waiting", "Peak memory of the engine", "Power while waiting"]


def test_different_loads_side_by_side_leave_empty_what_does_not_apply():
    offline, cold = make_offline(), make_cold_start()
    rate = next(row for row in rows.rows([offline, cold]) if row.name == "ttft_s")
    assert rows.cell(offline, rate, short=True) == ""
    assert rows.cell(cold, rate, short=True).startswith("510 ms")
    text = shown([offline, cold])
    assert "offline" in text
    assert "cold-start" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("shape", EVERY_SHAPE)
def test_every_metric_that_a_scenario_promises_is_in_its_results(shape: str):
    result = EVERY_SHAPE[shape]()
    promised = [name for name, _ in judged_by(from_facts(result.scenario))]
    assert [name for name in promised if name not in result.metrics] == []


@pytest.mark.parametrize("shape", EVERY_SHAPE)
def test_a_dash_in_the_table_has_a_reason_below_it(shape: str):
    result = EVERY_SHAPE[shape]()
    text = said([result, make_server()])
    for row in rows.rows([result, make_server()]):
        if rows.cell(result, row, short=True) == "\u2014":
            assert row.said in text


def test_names_tell_results_apart_with_as_few_words_as_needed():
    assert rows.names([make_result()]) == ["Tiny-0.5B-Instruct"]
    assert rows.names([make_offline(), make_cold_start()]) == [
        "Tiny-0.5B-Instruct, offline", "Tiny-0.5B-Instruct, cold-start",
    ]  # fmt: skip
    assert rows.names([make_server(), make_server(rate_per_s=4)])[1] == "Tiny-0.5B-Instruct, 4/s offered"
    assert rows.names([make_result(), make_result()])[1] == "Tiny-0.5B-Instruct #2"


def test_a_share_names_both_ends_of_its_interval():
    row = next(r for r in rows.ROWS if r.name == "slo_met_share")
    assert rows.cell(make_server(), row, short=True) == "95.0 % (91.9-97.2)"
