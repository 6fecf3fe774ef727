"""A real checkpoint measured with a made-up counter of known power: that power comes out, and is never publishable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from simulated import WRAP_UJ

from perjoule import store
from perjoule.cli import main
from perjoule.records import Energy, RunResult
from perjoule.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator

WATTS = 47.0
SMOLLM2 = "smollm2-135m-instruct:q4_1"
DRIVER = Path(__file__).parents[1] / "counter_driver.py"


@pytest.fixture
def driven_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tree with one package whose counter moves, and a psys domain that must be in no sum."""
    tree = tmp_path / "sys"
    drivers = []
    for folder, name, watts in (("intel-rapl:0", "package-0", WATTS), ("intel-rapl:1", "psys", 3 * WATTS)):
        domain = tree / "class" / "powercap" / folder
        domain.mkdir(parents=True)
        (domain / "name").write_text(f"{name}\n")
        (domain / "max_energy_range_uj").write_text(f"{WRAP_UJ}\n")
        counter = domain / "energy_uj"
        counter.write_text("0" * 18 + "\n")
        drivers.append(subprocess.Popen([sys.executable, str(DRIVER), str(counter), str(watts)]))
    monkeypatch.setenv("PERJOULE_SYSFS", str(tree))
    yield tree
    for driver in drivers:
        driver.kill()
        driver.wait()


def measured(tmp_path: Path, *options: str) -> RunResult:
    out = tmp_path / "results"
    assert main(["run", "quickstart", "--out", str(out), "--time-budget", "1", *options]) == 0
    [path] = out.glob("*.json")
    result = store.load(path)
    assert verify(result) == []
    return result


@pytest.mark.checkpoint
def test_a_known_wattage_comes_out_within_two_percent(driven_tree: Path, tmp_path: Path):
    result = measured(tmp_path, "--model", SMOLLM2, "--set", "requests_per_process=1", "--set", "max_warmup_requests=2")
    power = result.metric("power_w")
    assert isinstance(power, Energy)
    assert (power.label, power.scope, power.convention) == ("measured", "package", "gross")
    assert power.value == pytest.approx(WATTS, rel=0.02)
    assert power.low is not None
    assert power.high is not None
    assert power.low <= WATTS <= power.high
    idle = result.metric("idle_power_w")
    assert isinstance(idle, Energy)
    assert idle.value == pytest.approx(WATTS, rel=0.02)
    assert result.idle.loaded is not None
    codes = {check.code: check.severity for check in result.checks}
    assert codes["simulated_sensors"] == "invalid"
    assert codes["reader_never_on_hardware"] == "note"
    assert not result.publishable
    assert driven_tree.exists()


def test_prefill_is_repeated_in_a_block_until_the_sensor_can_see_it(driven_tree: Path, tmp_path: Path):
    assert driven_tree.exists()
    result = measured(
        tmp_path, "--backend", "null", "--set", "backend.ttft_s=0.05", "--set", "backend.itl_s=0.002",
        "--set", "new_tokens=16", "--set", "prompt_tokens=32", "--set", "requests_per_process=1",
    )  # fmt: skip
    assert len(result.blocks) == len(result.processes)
    assert all(b.requests >= 15 and b.prompt_tokens == 32 * b.requests for b in result.blocks)
    per_token = result.metric("energy_j_per_prompt_token")
    assert isinstance(per_token, Energy)
    assert per_token.value == pytest.approx(WATTS * 0.05 / 32, rel=0.05)
    decode = result.metrics["energy_j_per_decode_token_missing"]
    assert "needs" in str(decode)


@pytest.mark.parametrize("gone", ["unplugged", "EACCES"])
def test_a_counter_that_vanishes_leaves_a_reason_and_the_run_goes_on(
    driven_tree: Path, tmp_path: Path, gone: str, monkeypatch: pytest.MonkeyPatch
):
    """The file is taken away (or its reading refused) once the first process has been measured."""
    counter = driven_tree / "class" / "powercap" / "intel-rapl:0" / "energy_uj"
    from perjoule import runner  # noqa: PLC0415

    measure = runner.measure_process

    def then_lost(**given: object) -> object:
        run = measure(**given)  # type: ignore[arg-type]
        if gone == "unplugged":
            counter.unlink(missing_ok=True)
        else:
            counter.unlink(missing_ok=True)
            counter.mkdir()  # reading a folder fails, as a refused file does; tests run as root
            monkeypatch.setattr(runner, "measure_process", measure)
        return run

    monkeypatch.setattr(runner, "measure_process", then_lost)
    result = measured(
        tmp_path, "--backend", "null", "--set", "backend.ttft_s=0.05", "--set", "backend.itl_s=0.002",
        "--set", "new_tokens=16", "--set", "prompt_tokens=32",
    )  # fmt: skip
    assert len(result.processes) >= 5
    assert result.energy.headline is None
    assert "package-0 could not be read in window" in str(result.energy.headline_missing)
    assert any("package-0" in r.reason for r in result.meters_refused)
    psys = next(d for d in result.energy.domains if d.domain == "psys")
    assert psys.energy is not None, "the other domain was read all along"
