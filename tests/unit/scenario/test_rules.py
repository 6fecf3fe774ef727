"""What does not go together in a scenario is refused with its key's name, from a file and from --set alike."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from perjoule.errors import InputError, UsageError
from perjoule.scenario import Scenario, list_scenarios, load_scenario, sweep_points, with_overrides

if TYPE_CHECKING:
    from pathlib import Path

COMPUTED = ("corpus_sha256", "questions_sha256")
EARLY, LATE = [0.0, 1.0, 2.0], [0.0, 2.0, 1.0]

# A shipped scenario, what is changed in it, and what the error has to name.
IMPOSSIBLE: list[tuple[str, dict[str, Any], str]] = [
    ("quickstart", {"prompt_tokens": 0}, "prompt_tokens"),
    ("quickstart", {"new_tokens": 0}, "new_tokens"),
    ("quickstart", {"min_processes": 0}, "min_processes"),
    ("quickstart", {"requests_per_process": 0}, "requests_per_process"),
    ("quickstart", {"clients": 0}, "clients"),
    ("quickstart", {"batch": 0}, "batch"),
    ("quickstart", {"batch": -1}, "batch"),
    ("quickstart", {"new_tokens": -3}, "new_tokens"),
    ("quickstart", {"target_half_width": 0.0}, "target_half_width"),
    ("quickstart", {"target_half_width": 1.0}, "target_half_width"),
    ("quickstart", {"time_budget_s": 0}, "time_budget_s"),
    ("quickstart", {"time_budget_s": -1}, "time_budget_s"),
    ("quickstart", {"min_measured_s": -1}, "min_measured_s"),
    ("quickstart", {"max_warmup_requests": 0}, "max_warmup_requests"),
    ("quickstart", {"shape": "burst"}, "shape"),
    ("quickstart", {"duration_s": 0}, "duration_s"),
    ("quickstart", {"duration_s": -5}, "duration_s"),
    ("quickstart", {"duration_s": 1e9}, "duration_s"),
    ("quickstart", {"clients": 2}, "clients"),
    ("quickstart", {"batch": 2}, "batch"),
    ("quickstart", {"arrivals": "poisson"}, "arrivals"),
    ("quickstart", {"rate_per_s": 1}, "rate_per_s"),
    ("quickstart", {"find_rate": True}, "find_rate"),
    ("quickstart", {"arrival_times_s": EARLY}, "arrival_times_s"),
    ("quickstart", {"page_cache": "dropped"}, "page_cache"),
    ("quickstart", {"page_cache": "hot"}, "page_cache"),
    ("sustained", {"clients": 2}, "clients"),
    ("multi-stream", {"requests_per_process": 3}, "requests_per_process"),
    ("multi-stream", {"clients": 13}, "requests_per_process"),
    ("multi-stream", {"rate_per_s": 1}, "rate_per_s"),
    ("multi-stream", {"page_cache": "dropped"}, "page_cache"),
    ("offline", {"duration_s": 10}, "duration_s"),
    ("offline", {"clients": 4}, "clients"),
    ("offline", {"arrivals": "constant"}, "arrivals"),
    ("offline", {"slo": {"ttft_s": 1}}, "slo"),
    ("idle", {"duration_s": None}, "duration_s"),
    ("idle", {"batch": 2}, "batch"),
    ("idle", {"slo": {"ttft_s": 1}}, "slo"),
    ("idle", {"page_cache": "dropped"}, "page_cache"),
    ("cold-start", {"requests_per_process": 2}, "requests_per_process"),
    ("cold-start", {"max_warmup_requests": 1}, "max_warmup_requests"),
    ("cold-start", {"duration_s": 10}, "duration_s"),
    ("cold-start", {"batch": 2}, "batch"),
    ("server", {"duration_s": None}, "duration_s"),
    ("server", {"arrivals": None}, "arrivals"),
    ("server", {"arrivals": "weekly"}, "arrivals"),
    ("server", {"rate_per_s": 0}, "rate_per_s"),
    ("server", {"rate_per_s": -2}, "rate_per_s"),
    ("server", {"rate_per_s": 0.001}, "rate_per_s"),
    ("server", {"rate_per_s": 1e9}, "rate_per_s"),
    ("server", {"rate_per_s": None}, "rate_per_s"),
    ("server", {"rate_per_s": 2, "find_rate": True}, "find_rate"),
    ("server", {"arrivals": "recorded"}, "arrival_times_s"),
    ("server", {"arrivals": "recorded", "arrival_times_s": EARLY}, "rate_per_s"),
    ("server", {"arrivals": "recorded", "rate_per_s": None, "arrival_times_s": LATE}, "arrival_times_s"),
    ("server", {"arrivals": "recorded", "rate_per_s": None, "arrival_times_s": []}, "arrival_times_s"),
    ("server", {"arrivals": "recorded", "rate_per_s": None, "arrival_times_s": [-1.0, 1.0]}, "arrival_times_s"),
    ("server", {"arrivals": "recorded", "rate_per_s": None, "arrival_times_s": [0.0, 60.0]}, "arrival_times_s"),
    ("server", {"arrival_times_s": EARLY}, "arrival_times_s"),
    ("server", {"clients": 2}, "clients"),
    ("server", {"slo": {"ttft_s": 0, "share": 0.9}}, "slo.ttft_s"),
    ("server", {"slo": {"ttft_s": 1, "tpot_s": -1}}, "tpot_s"),
    ("server", {"slo": {"ttft_s": 1, "share": 1.5}}, "slo.share"),
    ("server", {"slo": {"share": 0.9}}, "slo needs ttft_s or tpot_s"),
    ("server-max", {"slo": None}, "slo"),
    ("server-max", {"arrivals": "recorded", "arrival_times_s": EARLY}, "find_rate"),
    ("batch-sweep", {"sweep": {"key": "batch", "values": [2]}}, "sweep.values"),
    ("batch-sweep", {"sweep": {"key": "batch", "values": []}}, "sweep.values"),
    ("batch-sweep", {"sweep": {"key": "batch", "values": [1, 2, 2]}}, "sweep.values"),
    ("batch-sweep", {"sweep": {"key": "batch", "values": [1, 2.5]}}, "sweep.values"),
    ("batch-sweep", {"sweep": {"key": "batch", "values": [0, 1]}}, "sweep.values"),
    ("batch-sweep", {"sweep": {"key": "batch", "values": [-1, 1]}}, "sweep.values"),
    ("batch-sweep", {"sweep": {"key": "corpus", "values": [1, 2]}}, "sweep.key"),
]


def toml(spec: dict[str, Any]) -> str:
    """Return the text of a scenario file; what is null is left out."""
    plain = {k: v for k, v in spec.items() if not isinstance(v, dict) and v is not None}
    tables = {k: v for k, v in spec.items() if isinstance(v, dict)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items() if value is not None)]
    return "\n".join(lines)


def spec_of(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = msgspec.to_builtins(load_scenario(name))
    return {key: value for key, value in spec.items() if key not in COMPUTED}


def from_file(folder: Path, spec: dict[str, Any]) -> Scenario:
    path = folder / "s.toml"
    path.write_text(toml(spec), encoding="utf-8")
    return load_scenario(str(path))


@pytest.mark.parametrize(("name", "changes", "named"), IMPOSSIBLE)
def test_a_file_that_is_impossible_is_refused_by_its_key(
    tmp_path: Path, name: str, changes: dict[str, Any], named: str
):
    with pytest.raises(InputError) as caught:
        from_file(tmp_path, spec_of(name) | changes)
    assert named.rpartition(".")[2] in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def flat(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the settings as --set gives them: tables by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in changes.items():
        found |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return found


# A table is changed key by key, so what is left of it may make a whole.
@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [case for case in IMPOSSIBLE if "slo needs" not in case[2] and case[1] != {"slo": None}
     and case[1] != {"rate_per_s": 2, "find_rate": True}],
)  # fmt: skip
def test_a_setting_that_is_impossible_is_refused_by_its_key(name: str, changes: dict[str, Any], named: str):
    with pytest.raises(UsageError) as caught:
        with_overrides(load_scenario(name), flat(changes))
    assert named.rpartition(".")[2] in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("key", ["rate", "ratepers", "clients_", "slo.ttft", "sweep.step", "slo", "sweep", "a.b.c", ""])
def test_an_unknown_key_is_refused_by_its_name(tmp_path: Path, key: str):
    with pytest.raises(UsageError, match="no such key") as caught:
        with_overrides(load_scenario("server"), {key: 1})
    assert key in caught.value.message
    spec = spec_of("server")
    table, dot, inner = key.partition(".")
    wrong = {**spec, table: {**(spec.get(table) or {}), inner: 1}} if dot else {**spec, key or "empty": 1}
    with pytest.raises(InputError) as refused:
        from_file(tmp_path, wrong)
    assert table in refused.value.message or inner in refused.value.message


def test_every_shipped_scenario_is_read_back_from_its_own_spec(tmp_path: Path):
    for name in list_scenarios():
        assert from_file(tmp_path, spec_of(name)) == load_scenario(name)


@pytest.mark.parametrize(("key", "rate", "find"), [("rate_per_s", 2.0, False), ("find_rate", None, True)])
def test_a_rate_that_is_given_need_not_be_found_and_the_other_way_round(key: str, rate: float | None, find: bool):
    for name in ("server", "server-max"):
        changed = with_overrides(load_scenario(name), {key: rate or True})
        assert (changed.rate_per_s, changed.find_rate) == (rate, find)


def test_recorded_arrivals_say_their_rate():
    scenario = with_overrides(
        load_scenario("server"),
        {"arrivals": "recorded", "rate_per_s": None, "arrival_times_s": [0.0, 1.0, 1.0, 9.9], "duration_s": 10.0},
    )
    assert scenario.offered_rate_per_s == pytest.approx(0.4)
    assert load_scenario("server").offered_rate_per_s == 1
    assert load_scenario("server-max").offered_rate_per_s is None
    assert load_scenario("quickstart").offered_rate_per_s is None


@pytest.mark.parametrize(
    ("name", "sweep", "named"),
    [
        ("quickstart", {"key": "clients", "values": [1, 2]}, "clients"),
        ("quickstart", {"key": "batch", "values": [1, 2]}, "batch"),
        ("quickstart", {"key": "rate_per_s", "values": [1, 2]}, "rate_per_s"),
        ("multi-stream", {"key": "clients", "values": [1, 99]}, "requests_per_process"),
        ("server", {"key": "rate_per_s", "values": [0.001, 1]}, "rate_per_s"),
    ],
)
def test_a_sweep_over_what_the_shape_does_not_have_is_refused(
    tmp_path: Path, name: str, sweep: dict[str, Any], named: str
):
    scenario = from_file(tmp_path, spec_of(name) | {"sweep": sweep})
    with pytest.raises(UsageError) as caught:
        sweep_points(scenario)
    assert named in caught.value.message


def test_a_sweep_gives_one_scenario_a_value():
    points = sweep_points(load_scenario("batch-sweep"))
    assert [(value, s.batch) for value, s in points] == [(1, 1), (2, 2), (4, 4), (8, 8)]
    assert [s.batch for _value, s in sweep_points(load_scenario("server"))] == [4]
    sweep = {"sweep.key": "rate_per_s", "sweep.values": [0.5, 2]}
    rates = sweep_points(with_overrides(load_scenario("server-max"), sweep))
    assert [(s.rate_per_s, s.find_rate) for _value, s in rates] == [(0.5, False), (2.0, False)]
    threads = sweep_points(load_scenario("thread-sweep"))
    assert len({s for _value, s in threads}) == 1, "threads belong to the engine's options"
