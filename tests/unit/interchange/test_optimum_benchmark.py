"""optimum-benchmark's reports become records whose joules are not taken for more than they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perjoule.errors import InputError
from perjoule.interchange import ImportedRecord, load_imported, save_imported
from perjoule.interchange.optimum_benchmark import read_optimum_benchmark
from perjoule.interchange.record import Figure, Joules
from perjoule.interchange.shown import lines

DATA = Path(__file__).parents[2] / "data" / "interchange"


def content(name: str = "optimum-benchmark") -> Any:
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


def read(folder: Path, tree: Any) -> ImportedRecord:
    path = folder / "benchmark.json"
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree), encoding="utf-8")
    [record] = read_optimum_benchmark(path)
    return record


def value(record: ImportedRecord, name: str) -> float:
    found = record.metrics[name]
    assert isinstance(found, Figure), record.metrics.get(f"{name}_missing")
    return found.value


def missing(record: ImportedRecord, name: str) -> str:
    assert record.metrics[name] is None
    return str(record.metrics[f"{name}_missing"])


def test_times_are_those_of_one_request(tmp_path: Path):
    record = read(tmp_path, content())
    report = content()["report"]
    assert value(record, "ttft_s") == report["prefill"]["latency"]["mean"]
    assert value(record, "prefill_tokens_per_s") == pytest.approx(128 / report["prefill"]["latency"]["mean"])
    assert value(record, "decode_tokens_per_s") == pytest.approx(report["decode"]["throughput"]["value"])
    assert value(record, "load_s") == 4.5
    ttft = record.metrics["ttft_s"]
    assert isinstance(ttft, Figure)
    assert (ttft.n, ttft.spread_kind) == (5, "standard deviation of the values (divisor n)")
    assert "counts the gaps" in missing(record, "itl_s")


def test_joules_are_kwh_over_what_was_done_and_say_what_they_are(tmp_path: Path):
    record = read(tmp_path, content())
    energy = {phase: content()["report"][phase]["energy"]["total"] * 3.6e6 for phase in ("prefill", "decode")}
    assert value(record, "energy_j_per_request") == pytest.approx(energy["prefill"] + energy["decode"])
    assert value(record, "energy_j_per_output_token") == pytest.approx((energy["prefill"] + energy["decode"]) / 65)
    assert value(record, "energy_j_per_prompt_token") == pytest.approx(energy["prefill"] / 128)
    assert value(record, "energy_j_per_decode_token") == pytest.approx(energy["decode"] / 64)
    for name in ("energy_j_per_request", "energy_j_per_decode_token"):
        joules = record.metrics[name]
        assert isinstance(joules, Joules)
        assert (joules.label, joules.scope, joules.spread) == ("imported", "cpu + ram + gpu", None)
        assert "codecarbon" in joules.obtained
        assert "guessed constant" in joules.obtained


def test_memory_of_a_gpu_is_ours_and_resident_size_is_not(tmp_path: Path):
    record = read(tmp_path, content())
    assert value(record, "peak_gpu_memory_bytes") == 3100e6
    assert "resident size" in missing(record, "peak_memory_bytes")
    assert record.other["decode_max_ram_bytes"].value == 1400e6


def test_generated_tokens_that_are_not_fixed_give_no_joules_per_token():
    [record] = read_optimum_benchmark(DATA / "optimum-benchmark-energy-star.json")
    energy = content("optimum-benchmark-energy-star")["report"]
    total = (energy["prefill"]["energy"]["total"] + energy["decode"]["energy"]["total"]) * 3.6e6
    assert value(record, "energy_j_per_request") == pytest.approx(total / 1000)
    assert "not fixed" in missing(record, "energy_j_per_output_token")
    assert "whole data set" in missing(record, "ttft_s")


def test_a_report_without_its_configuration_has_no_rates():
    [record] = read_optimum_benchmark(DATA / "optimum-benchmark-report.json")
    assert "import benchmark.json" in missing(record, "decode_tokens_per_s")
    assert "import benchmark.json" in missing(record, "energy_j_per_request")
    assert record.tool.version is None
    assert value(record, "ttft_s") == 0.05


def test_a_batch_has_no_prefill_rate_of_a_request(tmp_path: Path):
    tree = content()
    tree["config"]["scenario"]["input_shapes"]["batch_size"] = 4
    record = read(tmp_path, tree)
    assert "4 prompts at once" in missing(record, "prefill_tokens_per_s")
    assert value(record, "decode_tokens_per_s") == pytest.approx(50.0)


def test_a_negative_difference_is_no_energy(tmp_path: Path):
    tree = content()
    tree["report"]["decode"]["energy"]["total"] = -1e-6
    assert "no energy above 0" in missing(read(tmp_path, tree), "energy_j_per_decode_token")


def test_folders_and_addresses_stay_at_home(tmp_path: Path):
    tree = content()
    tree["config"]["backend"] |= {
        "model": "/srv/ann/tiny", "volumes": {"/srv/ann": {"bind": "/data"}}, "ports": {"80/tcp": ["10.0.0.7", 80]}
    }  # fmt: skip
    record = read(tmp_path, tree)
    assert record.model.name == "tiny"
    text = save_imported(record, tmp_path / "out").read_text(encoding="utf-8")
    assert "ann" not in text.replace("channel", "")
    assert "10.0.0.7" not in text


def test_a_record_is_shown_as_what_it_is(tmp_path: Path):
    path = save_imported(read(tmp_path, content()), tmp_path / "out")
    shown = lines(load_imported(path))
    assert shown[0] == "imported from optimum-benchmark (0.5.0), not measured by perjoule"
    assert all("imported" in line for line in shown if " J" in line and "energy_j" in line and ": " in line[:40])
    assert sum(line.startswith("  joules: ") for line in shown) == 1


def changed(path: str, new: Any) -> str:
    tree = content()
    *folders, last = path.split(".")
    at = tree
    for key in folders:
        at = at[key]
    at[last] = new
    return json.dumps(tree)


REFUSED = {
    "empty": ("\n", "is empty"),
    "truncated": (json.dumps(content())[:-40], "not strict JSON"),
    "a list": ("[]", "not a file of optimum-benchmark"),
    "nothing": ("{}", "no prefill and no decode"),
    "HTML": ("<html>", "not strict JSON"),
    "the configuration alone": (json.dumps(content()["config"]), "its configuration alone"),
    "no text": ((DATA / "optimum-benchmark-no-text.json").read_text(encoding="utf-8"), "targets: load, forward"),
    "NaN": (json.dumps(content()).replace("0.05,", "NaN,", 1), "NaN is not allowed"),
    "a report that is text": ('{"config": {}, "report": "none"}', "no report of it"),
    "minutes": (changed("report.prefill.latency.unit", "min"), "not in seconds"),
    "a negative time": (changed("report.decode.latency.mean", -1), "decode.latency.mean is '-1'"),
    "a time of text": (changed("report.decode.latency.mean", "1 s"), "not such a number"),
    "GiB": (changed("report.decode.memory.unit", "GiB"), "not in MB"),
    "joules": (changed("report.decode.energy.unit", "J"), "not in kWh"),
}


@pytest.mark.parametrize(("text", "why"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_such_a_file_is_refused_with_a_hint(text: str, why: str, tmp_path: Path):
    with pytest.raises(InputError, match=why) as refused:
        read(tmp_path, text)
    assert refused.value.hint
    assert "\n" not in refused.value.message
