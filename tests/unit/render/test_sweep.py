"""Points of a sweep are one table and one curve, and what their intervals do not tell apart is said."""

from __future__ import annotations

import itertools
import re
from io import StringIO

import msgspec
import pytest
from builders import make_result
from hypothesis import given
from hypothesis import strategies as st
from load_builders import make_offline, make_server, make_sweep
from rich.console import Console

from perjoule.assemble import derive
from perjoule.records import Energy, Missing, Quantity, RunResult
from perjoule.render import sweep
from perjoule.render.charts import sweep_charts
from perjoule.render.html import report
from perjoule.render.text import summary
from perjoule.scenario import facts, load_scenario, sweep_points, with_overrides

SPEEDS = {1: 0.4, 2: 0.8, 4: 1.5, 8: 1.52, 16: 1.3, 32: 1.29}


def shown(results: list[RunResult], width: int = 80) -> str:
    console = Console(width=width, file=StringIO(), color_system=None)
    console.print(summary(results))
    return console.file.getvalue()  # type: ignore[attr-defined]


def one(results: list[RunResult]) -> sweep.Swept:
    sweeps, rest = sweep.split(results)
    assert rest == []
    assert len(sweeps) == 1
    return sweeps[0]


def quantity(value: float, half: float, unit: str = "tokens/s") -> Quantity:
    return Quantity(value=value, low=value - half, high=value + half, unit=unit, n=5, statistic="m", interval="95 % t")


def joules(value: float, random: float, **changes: object) -> Energy:
    energy = Energy(
        value=value, low=0.4 * value, high=2 * value, unit="J", n=5, statistic="m", interval="x", grade="g",
        label="measured", scope="package", convention="gross", random=(value - random, value + random),
        systematic=(0.4 * value, 2 * value),
    )  # fmt: skip
    return msgspec.structs.replace(energy, **changes)


def rate_sweep() -> list[RunResult]:
    """Return a server at 1/s and 2/s that keeps up, and at 4/s that does not."""
    swept = with_overrides(load_scenario("server"), {"sweep.key": "rate_per_s", "sweep.values": [1, 2, 4]})
    results = [make_server(), make_server(rate_per_s=2), make_server(saturated=True)]
    points = [scenario for _, scenario in sweep_points(swept)]
    return [derive(msgspec.structs.replace(r, scenario=facts(point))) for r, point in zip(results, points, strict=True)]


def test_points_are_rows_in_order_of_the_value_whatever_order_they_come_in():
    found = one(list(reversed(make_sweep(speeds=SPEEDS))))
    ((name, rows),) = sweep.cells(found)
    assert name == "Tiny-0.5B-Instruct"
    assert [first for first, _ in rows] == ["1", "2", "4", "8", "16", "32"]
    assert [c.head for c in sweep.columns(found)] == ["Decode tokens/s", "TTFT", "J/token", "Peak memory"]
    assert rows[0][1][0].startswith("19.6 \u00b1")
    assert re.fullmatch(r"350 mJ \(\d+-\d+\)", rows[0][1][2])


def test_the_terminal_shows_one_table_and_no_column_a_point():
    text = shown(make_sweep(speeds=SPEEDS))
    assert "thread-sweep: 6 values of threads" in text
    assert text.count("Peak memory") == 1
    assert max(map(len, text.splitlines())) <= 80


def test_the_fastest_point_comes_with_those_that_it_cannot_be_told_apart_from():
    told = sweep.remarks(one(make_sweep(speeds=SPEEDS)))
    assert told[0].startswith("fastest: 8 threads, 74.5 tokens/s \u00b1")
    assert told[0].endswith("but 4 threads cannot be told apart from it: their intervals overlap.")
    assert "modelled from CPU time, share of a server" in told[1]
    neighbours = next(line for line in told if line.startswith("neighbours"))
    assert "4 and 8, 16 and 32 in decoding speed" in neighbours
    assert "1 and 2" not in neighbours


def test_points_that_differ_in_nothing_are_said_to():
    told = sweep.remarks(one(make_sweep("context-sweep")))
    assert "but no other point can be told apart from it" in told[0]
    assert any("all of them in decoding speed" in line for line in told)


def test_several_models_are_several_curves_in_one_table_and_one_picture():
    found = one(make_sweep("batch-sweep") + make_sweep("batch-sweep", ref="b", name="Other-1B"))
    assert [c.name for c in found.curves] == ["Tiny-0.5B-Instruct", "Other-1B"]
    first = sweep_charts(found)[0]
    assert first.svg.count("<polyline") == 2
    assert [name for _, name in first.legend] == ["Tiny-0.5B-Instruct", "Other-1B"]
    assert all(line.startswith(("Tiny", "Other", "J/token")) for line in sweep.remarks(found))


def test_a_sweep_beside_other_results_leaves_them_side_by_side():
    sweeps, rest = sweep.split([make_result(), *make_sweep(), make_offline()])
    assert len(sweeps) == 1
    assert [r.scenario.name for r in rest] == ["quickstart", "offline"]


def test_a_single_point_is_no_sweep():
    sweeps, rest = sweep.split(make_sweep()[:1])
    assert sweeps == []
    assert len(rest) == 1


def test_a_sweep_that_was_run_twice_is_two_curves():
    found = one(make_sweep() + make_sweep())
    assert [len(c.points) for c in found.curves] == [6, 6]
    assert found.curves[1].name == "Tiny-0.5B-Instruct #2"


def test_sweeps_on_two_machines_are_not_one():
    there = [
        msgspec.structs.replace(r, host=msgspec.structs.replace(r.host, machine_id="b" * 12)) for r in make_sweep()
    ]
    assert len(sweep.split(make_sweep() + there)[0]) == 2


def test_a_sweep_of_offered_rates_says_where_the_engine_stops_keeping_up():
    found = one(rate_sweep())
    ((_, rows),) = sweep.cells(found)
    assert [first for first, _ in rows] == ["1", "2", "4 saturated"]
    told = sweep.remarks(found)
    assert told[0].startswith("cannot keep up at 4 requests/s")
    assert "no rate met the service level." in told
    assert "Met the SLO" in [c.head for c in sweep.columns(found)]


def test_a_point_without_an_interval_can_be_told_apart_from_nothing():
    single = [
        derive(msgspec.structs.replace(
            r, processes=r.processes[:1], samples=tuple(s for s in r.samples if s.process == 0),
            windows=tuple(w for w in r.windows if w.process == 0), memory=tuple(m for m in r.memory if m.process == 0),
        ))
        for r in make_sweep(speeds=SPEEDS)
    ]  # fmt: skip
    told = sweep.remarks(one(single))
    assert told[0].startswith("6 of 6 points are INVALID")
    assert "without an interval nothing can be told apart" in told[1]
    assert "INVALID" in sweep.cells(one(single))[0][1][0][0]
    assert "points have no interval" in sweep_charts(one(single))[0].note


def test_joules_of_one_meter_are_compared_by_their_random_parts():
    assert sweep.apart(joules(1.0, 0.05), joules(1.2, 0.05))
    assert not sweep.apart(joules(1.0, 0.15), joules(1.2, 0.15))


def test_joules_of_a_model_need_more_and_those_of_two_kinds_their_whole_intervals():
    modelled = {"label": "utilisation-modelled"}
    assert not sweep.apart(joules(1.0, 0.05, **modelled), joules(1.3, 0.05, **modelled))
    assert sweep.apart(joules(1.0, 0.05, **modelled), joules(1.5, 0.05, **modelled))
    assert not sweep.apart(joules(1.0, 0.01), joules(2.0, 0.01, **modelled))


@given(st.floats(1, 1e3), st.floats(0.01, 10), st.floats(1, 1e3), st.floats(0.01, 10))
def test_telling_apart_is_symmetric_and_never_from_itself(a: float, da: float, b: float, db: float):
    left, right = quantity(a, da), quantity(b, db)
    assert sweep.apart(left, right) == sweep.apart(right, left) == (abs(a - b) > da + db)
    assert not sweep.apart(left, left)
    assert not sweep.apart(left, Missing(reason="none"))


def test_the_page_has_a_curve_for_speed_joules_and_memory_and_none_a_point():
    text = report(make_sweep(speeds=SPEEDS))
    assert text.count("<svg") == 3
    assert "Decode tokens/s against threads" in text
    assert "Side by side" not in text
    assert text.count("<details>") >= 6


def test_a_curve_reads_every_point_to_a_screen_reader_and_doublings_are_as_far():
    chart = sweep_charts(one(make_sweep(speeds=SPEEDS)))[0]
    assert "at 8 74.5 tokens/s, " in chart.svg
    assert 'role="img" aria-label="Decode tokens/s against threads. ' in chart.svg
    xs = [float(x) for x in re.findall(r'<circle class="s0" cx="([0-9.]+)"', chart.svg)]
    steps = [b - a for a, b in itertools.pairwise(xs)]
    assert max(steps) - min(steps) < 0.2
    assert "scale of doublings" in chart.svg


def test_bars_that_the_dots_hide_are_counted_in_the_caption():
    memory = next(c for c in sweep_charts(one(make_sweep(speeds=SPEEDS))) if c.title.startswith("Peak memory"))
    assert "At each point the bar is narrower than the mark of the value, which hides it." in memory.note


@pytest.mark.parametrize(("key", "value", "words"), [("threads", 1, "1 thread"), ("batch", 8, "batch 8"),
                                                     ("rate_per_s", 0.5, "0.5 requests/s"),
                                                     ("prompt_tokens", 4096, "4,096 prompt tokens")])  # fmt: skip
def test_a_point_in_words(key: str, value: float, words: str):
    assert sweep._in_words(key, value) == words


def test_a_check_of_several_points_is_one_line_that_quotes_the_first():
    results = make_sweep(speeds=SPEEDS)
    wide = [
        msgspec.structs.replace(r, checks=tuple(
            msgspec.structs.replace(c, code="target_missed", message=f"known to {i} %") for c in r.checks[:1]
        ))
        for i, r in enumerate(results)
    ]  # fmt: skip
    text = " ".join(shown(wide).split())
    assert "Tiny-0.5B-Instruct, 1 thread: known to 0 % (and 5 more of the sweep)" in text
    assert "known to 1 %" not in text


def test_a_check_that_every_result_has_is_said_once_of_a_sweep_and_what_stands_beside_it():
    text = " ".join(shown([*make_sweep(), make_offline()]).split())
    assert text.count("joules are utilisation-modelled") == 1
    assert "note: joules are utilisation-modelled" in text


def test_invalid_points_of_a_sweep_are_one_banner_on_the_page():
    invalid = [derive(msgspec.structs.replace(r, processes=r.processes[:3])) for r in make_sweep(speeds=SPEEDS)]
    page = report(invalid)
    assert page.count('class="banner"') == 1
    assert "thread-sweep" in page
