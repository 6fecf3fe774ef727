"""Exports say no more than the result does, and nothing in them is obeyed by a spreadsheet or a browser."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from builders import make_model, make_result
from calibrated import LONG_ANSWER, SMALL, measured, rapl
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import InputError, UsageError
from perjoule.interchange import github_summary
from perjoule.interchange.github_summary import plain, summary
from perjoule.interchange.mlcommons_energy import document, documents
from perjoule.interchange.table import cell, csv_text
from perjoule.records import Energy, RunResult
from perjoule.store.flat import flat

DATA = Path(__file__).parents[2] / "data" / "interchange"
DRAFT = json.loads((DATA / "mlperf_energy_schema_v6.json").read_text(encoding="utf-8"))
PATCH = json.loads((DATA / "mlcommons-energy-extension.patch.json").read_text(encoding="utf-8"))


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for key, child in patch.items():
        if child is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), child)
    return found


EXTENDED = merged(DRAFT, PATCH)


def broken(schema: Any, instance: Any) -> set[str]:
    """Return what a document breaks: the field, or the one that is required."""
    errors = jsonschema.Draft202012Validator(schema).iter_errors(instance)
    return {str(e.path[0]) if e.path else e.message.split("'")[1] for e in errors}


def on_a_gpu() -> RunResult:
    """A result with all that the draft asks for; no such machine was there, so it is put together by hand."""
    result = measured(SMALL, LONG_ANSWER, meter=rapl(min_window_s=0.05))
    idle = Energy(
        value=8.0, low=7.5, high=8.5, unit="W", n=1, statistic="mean", interval="tolerance", label="measured",
        grade="nvml", scope="gpu", convention="gross", random=(8.0, 8.0), systematic=(7.5, 8.5),
    )  # fmt: skip
    metrics = {k: v for k, v in result.metrics.items() if k != "idle_power_w_missing"}
    return msgspec.structs.replace(
        result,
        metrics=metrics | {"idle_power_w": idle},
        backend=msgspec.structs.replace(result.backend, device="cuda:0"),
        meters=tuple(msgspec.structs.replace(m, grade="nvml", tick_s=0.1) for m in result.meters),
    )


def test_the_schemas_are_schemas():
    jsonschema.Draft202012Validator.check_schema(DRAFT)
    jsonschema.Draft202012Validator.check_schema(EXTENDED)
    assert broken(DRAFT, {}) >= {"task_type"}


def test_a_measured_result_with_everything_is_valid_in_the_draft_itself():
    made = document(on_a_gpu())
    assert broken(DRAFT, made) == set()
    assert broken(EXTENDED, made) == set()
    assert made["measurement_method"] == "nvml"
    assert made["perjoule"]["conforms_to_draft"] is True
    assert made["sampling_rate_hz"] == 10.0
    # the draft's own rules 3 and 7, which its schema does not check
    assert made["total_energy_joules"] * (1 + 1e-9) >= made["prefill_energy_joules"] + made["generation_energy_joules"]
    per_token = made["generation_energy_joules"] / made["output_token_count"]
    assert made["energy_per_token_joules"]["mean"] == pytest.approx(per_token)


def test_modelled_joules_cannot_pass_as_measured():
    made = document(make_result())
    assert made["measurement_method"] == made["perjoule"]["label"] == "utilisation-modelled"
    assert made["perjoule"]["measured"] is False
    assert "measurement_method" in broken(DRAFT, made)
    assert broken(EXTENDED, made) == set()
    assert made["perjoule"]["total_energy_low_joules"] < made["total_energy_joules"]
    made["measurement_method"] = "rapl"
    assert broken(EXTENDED, made) == {"measurement_method"}


def test_what_the_draft_requires_and_a_cpu_does_not_have_is_absent_with_a_reason():
    made = document(measured(SMALL, LONG_ANSWER))
    assert made["measurement_method"] == "rapl"
    lost = broken(DRAFT, made)
    assert lost == {"accelerator_count", "static_power_baseline_watts", "prefill_energy_joules"}
    assert lost <= set(made["perjoule"]["missing"])
    assert made["perjoule"]["conforms_to_draft"] is False
    assert broken(EXTENDED, made) == set()


def test_a_simulated_sensor_is_named_as_one():
    result = on_a_gpu()
    meters = tuple(msgspec.structs.replace(m, simulated=True) for m in result.meters)
    made = document(msgspec.structs.replace(result, meters=meters))
    assert (made["measurement_method"], made["perjoule"]["measured"]) == ("simulated", False)
    assert broken(DRAFT, made) == {"measurement_method"}
    assert broken(EXTENDED, made) == set()


@pytest.mark.parametrize(("grade", "tick_s", "lost"), [("plug", 1.0, "measurement_method"), ("csv", 2.0, None)])
def test_meters_that_the_draft_has_no_word_for(grade: str, tick_s: float, lost: str | None):
    result = on_a_gpu()
    meters = tuple(msgspec.structs.replace(m, grade=grade, tick_s=tick_s) for m in result.meters)
    made = document(msgspec.structs.replace(result, meters=meters))
    assert made["perjoule"]["conforms_to_draft"] is False
    assert broken(DRAFT, made) == ({lost} if lost else {"sampling_rate_hz"})
    assert broken(EXTENDED, made) == set()


def test_a_load_that_the_draft_does_not_know():
    result = on_a_gpu()
    spec = {**result.scenario.spec, "shape": "multi-stream"}
    made = document(msgspec.structs.replace(result, scenario=msgspec.structs.replace(result.scenario, spec=spec)))
    assert "multi-stream" in made["perjoule"]["missing"]["scenario"]


def test_several_results_are_json_lines():
    both = documents([make_result(), on_a_gpu()]).splitlines()
    assert [json.loads(line)["perjoule"]["measured"] for line in both] == [False, True]


def test_a_result_without_joules_is_refused():
    result = make_result()
    energy = msgspec.structs.replace(result.energy, headline=None, headline_missing="no sensor and no model")
    with pytest.raises(InputError, match="no sensor and no model"):
        document(msgspec.structs.replace(result, energy=energy))


def test_csv_has_the_columns_of_a_query_and_every_digit():
    result = make_result()
    text = csv_text([(Path("a.json"), result)])
    [row] = csv.DictReader(io.StringIO(text))
    assert list(row) == ["path", *flat(result)]
    assert float(row["ttft_s"]) == result.metric("ttft_s").value  # type: ignore[union-attr]
    assert row["energy_label"] == "utilisation-modelled"
    assert row["publishable"] == "true"
    assert row["e2e_latency_p99_s"] == ""


def test_no_cell_is_a_formula():
    result = make_result(model=make_model(name='=HYPERLINK("http://x","y")', vendor="@SUM(1)", country="\x1b[31m\n-1"))
    [row] = csv.DictReader(io.StringIO(csv_text([(Path("+a.json"), result)])))
    assert row["model"].startswith("'=")
    assert row["vendor"].startswith("'@")
    assert row["path"] == "'+a.json"
    assert "\x1b" not in row["country"]
    assert cell(-1.5) == "-1.5"


@given(st.text())
def test_any_text_is_one_harmless_cell(text: str):
    assert not cell(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert "\n" not in cell(text)


def test_the_summary_shows_intervals_labels_and_checks():
    text = summary([make_result()])
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 3
    assert "modelled from CPU time" in table[2]
    assert "\u00b1" in table[2]
    assert "These joules are not measured" in text
    assert "note modelled&#95;energy" in text
    assert "not measured." not in summary([on_a_gpu()])


def test_a_result_that_may_not_be_published_says_so():
    assert "**no**" in summary([msgspec.structs.replace(make_result(), publishable=False)])


def test_names_do_nothing_in_markdown_or_html():
    evil = "<img src=x onerror=alert(1)> | **b** @octocat [l](http://x) `c` \x1b[31m\n# h"
    text = summary([make_result(model=make_model(name=evil))])
    [row] = [line for line in text.splitlines() if "octocat" in line and line.startswith("|")]
    assert row.count("|") == 7
    for sign in ("<img", "**b**", "@octocat", "](", "`c`", "\x1b", "http:"):
        assert sign not in text
    assert plain("a\nb") == "a b"


def test_a_summary_that_github_would_not_take(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(github_summary, "MOST_BYTES", 100)
    with pytest.raises(UsageError, match="1 MiB"):
        summary([make_result()])
