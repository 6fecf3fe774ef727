"""Money and carbon follow from the joules with their interval, and only where asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from builders import make_result

from perjoule.cli import main
from perjoule.records import Energy, RunResult
from perjoule.render.cost import DERIVED, cost_lines, find_grid, grids
from perjoule.store.write import encode

if TYPE_CHECKING:
    from pathlib import Path

PER_TOKEN = "energy_j_per_output_token"  # noqa: S105 - a metric


def with_energy(**changes: object) -> RunResult:
    """Return a result whose token costs 3.6 J (1.8-7.2): a million are 1 kWh (0.5-2)."""
    energy = Energy(
        value=3.6, low=1.8, high=7.2, unit="J", n=5, statistic="mean", interval="x", label="measured",
        grade="rapl-package", scope="package+dram", convention="gross", random=(3.5, 3.7), systematic=(1.9, 7.0),
    )  # fmt: skip
    result = make_result()
    return msgspec.structs.replace(
        result, metrics={**result.metrics, PER_TOKEN: msgspec.structs.replace(energy, **changes)}
    )


def test_a_million_tokens_of_one_kwh_cost_its_price_and_carbon_with_interval_label_and_scope():
    money, carbon = cost_lines(with_energy(), 0.30, "EUR", 381.0, source="Germany 2023, Ember")
    name = "Tiny-0.5B-Instruct: "
    about = "measured, package+dram)"
    assert money == (
        f"{name}0.300 EUR per million output tokens (0.150-0.600, {about} at 0.3 EUR/kWh; {DERIVED}"
    )  # fmt: skip
    assert carbon == (
        f"{name}381 gCO2e per million output tokens (190-762, {about} at 381 gCO2e/kWh (Germany 2023, Ember); {DERIVED}"
    )
    assert DERIVED == "derived: energy only, no hardware, no cooling"


def test_modelled_joules_have_two_digits_and_a_missing_bound_is_not_invented():
    result = with_energy(label="utilisation-modelled", high=None, high_missing="no bound")
    assert cost_lines(result, 1.234, "USD", None) == [
        "Tiny-0.5B-Instruct: 1.2 USD per million output tokens (0.62-?, utilisation-modelled, package+dram)"
        f" at 1.234 USD/kWh; {DERIVED}"
    ]


def test_without_joules_the_reason_stands_there_and_nothing_is_printed_unasked():
    result = make_result()
    metrics = {**result.metrics, PER_TOKEN: None, f"{PER_TOKEN}_missing": "no sensor"}
    without = msgspec.structs.replace(result, metrics=metrics)
    assert cost_lines(without, 0.3, "EUR", 100.0) == [
        "Tiny-0.5B-Instruct: no EUR per million output tokens: no sensor",
        "Tiny-0.5B-Instruct: no gCO2e per million output tokens: no sensor",
    ]
    absent = msgspec.structs.replace(result, metrics={})
    assert "no output tokens" in cost_lines(absent, 0.3, "EUR", None)[0]
    assert cost_lines(result, None, "EUR", None) == []


def test_the_table_of_grids_is_dated_sourced_and_found_by_code_or_name():
    assert len({g.code for g in grids()}) == len({g.name for g in grids()}) == len(grids())
    assert all(10 < g.gco2_per_kwh < 1000 and g.year >= 2023 and g.source for g in grids())
    assert find_grid("de") is find_grid(" Germany ")
    assert find_grid("nowhere") is None


def test_show_adds_the_lines_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "result.json"
    file.write_bytes(encode(with_energy()))
    assert main(["show", str(file), "--price-per-kwh", "0.3", "--currency", "CHF", "--grid", "fr"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "0.300 CHF per million output tokens (0.150-0.600" in shown
    assert "56.0 gCO2e per million output tokens (28.0-112" in shown
    assert "(France 2023, Ember via Our World in Data)" in shown
    assert main(["show", str(file)]) == 0
    assert "per million" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--price-per-kwh", "0"], "--price-per-kwh"),
        (["--price-per-kwh", "nan"], "--price-per-kwh"),
        (["--gco2-per-kwh", "-3"], "--gco2-per-kwh"),
        (["--currency", "USD"], "--price-per-kwh"),
        (["--price-per-kwh", "1", "--currency", "dollars"], "--currency"),
        (["--grid", "germny"], "Germany"),
        (["--grid", "de", "--gco2-per-kwh", "1"], "leave one out"),
        (["--grid", "de", "--html", "page.html"], "--html"),
    ],
)
def test_mistakes_are_named(options: list[str], names: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "result.json"
    file.write_bytes(encode(with_energy()))
    assert main(["show", str(file), *options]) == 2
    assert names in capsys.readouterr().err
