"""perjoule scenarios: what ships is listed, and one is explained with everything that its numbers depend on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perjoule.cli import main
from perjoule.render.scenario import explained, seconds
from perjoule.scenario import Scenario, Slo, Sweep, facts, list_scenarios, load_scenario, with_overrides

DOCS = (Path(__file__).parents[3] / "docs" / "scenarios.md").read_text(encoding="utf-8")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["scenarios", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", list_scenarios())
def test_show_names_load_length_rigor_and_hash_and_fits_the_page(name: str, capsys: pytest.CaptureFixture[str]):
    text, scenario = said(capsys, "show", name), load_scenario(name)
    words = " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100
    assert f"{scenario.shape}: " in words
    assert f"{scenario.rigor}: at least {scenario.min_processes} fresh process" in words
    assert facts(scenario).sha256 in words
    for value in scenario.sweep.values if scenario.sweep else ():
        assert f"{value:,.0f}" in words


def test_list_has_every_scenario_with_its_shape(capsys: pytest.CaptureFixture[str]):
    text = said(capsys, "list")
    for name in list_scenarios():
        line = next(line for line in text.splitlines() if line.startswith(f"{name} "))
        assert load_scenario(name).shape in line
    assert max(map(len, text.splitlines())) <= 100


def test_json_is_what_a_result_records_and_the_same_words(capsys: pytest.CaptureFixture[str]):
    found = json.loads(said(capsys, "show", "server", "--json"))
    scenario = load_scenario("server")
    assert found["sha256"] == facts(scenario).sha256
    assert found["spec"]["slo"] == {"ttft_s": 2.0, "tpot_s": 0.1, "share": 0.99}
    assert found["explained"] == explained(scenario)
    assert "goodput_requests_per_j" in found["judged_by"]
    assert [one["name"] for one in json.loads(said(capsys, "list", "--json"))] == list_scenarios()


def test_a_file_of_ones_own_is_explained_and_what_it_says_is_not_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nversion = 3\ndescription = "a\\u001b[2Jb [red]c"\nshape = "single-stream"\ncorpus = "udhr-en"\n'
        'prompt_tokens = 64\nnew_tokens = 8\nrigor = "strict"\n',
        encoding="utf-8",
    )
    text = said(capsys, "show", str(path))
    assert "mine (version 3)" in text
    assert "\x1b" not in text
    assert "[red]" in text
    assert "10 min of load" in text


@pytest.mark.parametrize(
    ("name", "changes", "title", "words"),
    [
        ("server", {}, "Load", "1 a second on average"),
        ("server", {"arrivals": "constant"}, "Load", "at equal distances"),
        ("server", {}, "Latency", "counts from when a request was due"),
        ("server", {}, "Service level", "TTFT at most 2 s and TPOT at most 100 ms, for 99 %"),
        ("server", {}, "Takes", "at least 5 min of load (5 x 60 s)"),
        ("server-max", {}, "Load", "looks for the highest rate"),
        ("server-max", {}, "Takes", "up to 10 min for the search"),
        ("multi-stream", {}, "Load", "4 clients at once"),
        ("offline", {}, "Batch", "up to 8 requests are worked on together"),
        ("offline", {}, "Latency", "is not given"),
        ("cold-start", {}, "Load", "dropped from the page cache"),
        ("cold-start", {"page_cache": "warm"}, "Load", "stay in the page cache"),
        ("idle", {}, "Load", "nobody asks for 10 s"),
        ("sustained", {}, "Load", "more until 10 min are over"),
        ("tasks-quick", {}, "Load", "one client asks 60 questions"),
        ("tasks", {}, "Load", "one client asks 288 questions"),
        ("tasks-quick", {}, "Prompts", "order-total, in en, zh, ko, levels 1, 2; 2 of each"),
        ("tasks-quick", {}, "You get", "joules and tokens a right answer takes"),
        ("languages", {}, "Load", "reads 12 passages"),
        ("languages", {}, "Prompts", "the same passage in en, zh, ko"),
        ("languages", {}, "Takes", "as long as 5 processes take for it"),
        ("quickstart", {}, "Takes", "as long as 15 requests (5 processes with 3)"),
        ("quickstart", {"rigor": "strict"}, "Rigor", "12 fresh processes and 10 min of load"),
        ("context-sweep", {}, "Sweep", "prompt_tokens = 128, 512, 1,024, 2,048, 4,096"),
    ],
)
def test_what_matters_is_said(name: str, changes: dict[str, object], title: str, words: str):
    assert words in explained(with_overrides(load_scenario(name), changes))[title]


@pytest.mark.parametrize(
    ("value", "words"), [(0.03, "30 ms"), (1.5, "1.5 s"), (90, "90 s"), (600, "10 min"), (7200, "2 h"), (630, "630 s")]
)
def test_durations_as_people_say_them(value: float, words: str):
    assert seconds(value) == words


def test_the_page_names_every_scenario_with_its_shape_and_every_key():
    for name in list_scenarios():
        row = next(line for line in DOCS.splitlines() if line.startswith(f"| `{name}` |"))
        assert row.split("|")[2].split(",")[0].strip() == load_scenario(name).shape
    keys = {*Scenario.__struct_fields__} - {"slo", "sweep"}
    keys |= {f"slo.{k}" for k in Slo.__struct_fields__} | {f"sweep.{k}" for k in Sweep.__struct_fields__}
    assert {key for key in keys if f"`{key}`" not in DOCS} == set()


@pytest.mark.parametrize("rigor", ["quick", "standard", "strict"])
def test_the_page_shows_what_each_rigor_sets(rigor: str):
    scenario = with_overrides(load_scenario("quickstart"), {"rigor": rigor})
    row = next(line for line in DOCS.splitlines() if line.startswith(f"| `{rigor}` |"))
    cells = [cell.strip() for cell in row.split("|")[2:6]]
    assert cells == [
        f"{scenario.min_processes}", f"{scenario.target_half_width:.0%}".replace("%", " %"),
        f"{scenario.time_budget_s:g}", f"{scenario.min_measured_s:g}",
    ]  # fmt: skip
