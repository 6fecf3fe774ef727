"""Comparing what was really measured: two paces of the null engine in one interleaved run, and one pace twice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from perjoule.cli import main
from perjoule.cli.progress import listener
from perjoule.plan import Configuration, RunPlan
from perjoule.protocols import EngineOptions
from perjoule.runner import run
from perjoule.scenario import load_scenario

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule.records.facts import Control

TTFT_S, ITL_S = 0.01, 0.01


def configuration(itl_s: float, control: Control | None = None, processes: int = 8) -> Configuration:
    scenario = msgspec.structs.replace(
        load_scenario("quickstart"), prompt_tokens=16, new_tokens=8, min_processes=processes, time_budget_s=0.1,
        requests_per_process=2, max_warmup_requests=1,
    )  # fmt: skip
    extra = {"ttft_s": TTFT_S, "itl_s": itl_s}
    options = EngineOptions(threads=1, context_tokens=64, extra=extra)
    return Configuration(backend="null", model_ref="null", options=options, scenario=scenario, control=control)


def measured(folder: Path, *configurations: Configuration) -> list[str]:
    """Measure in turn, with no sensor asked; return the files, in the order of the configurations."""
    plan = RunPlan(configurations=configurations, meters=(), out_dir=str(folder))
    with listener() as progress:
        run(plan, progress)
    found = {_of(json.loads(p.read_text(encoding="utf-8"))): str(p) for p in folder.glob("*.json")}
    return [found[c.options.extra["itl_s"], c.control] for c in configurations]


def _of(result: dict[str, Any]) -> tuple[float, str | None]:
    return result["backend"]["requested_options"]["extra"]["itl_s"], result["settings"].get("control")


@pytest.fixture(autouse=True)
def _own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_LOCK", str(tmp_path / "machine.lock"))


def compared(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    # other tests run beside this one: what they disturb makes a result invalid, not its pace another one
    code = main(["compare", *words, "--allow-invalid", "--json", "-"])
    return code, json.loads(capsys.readouterr().out)


def test_a_slower_pace_in_one_run_is_worse_and_the_faster_one_better(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    fast, slow = measured(tmp_path, configuration(ITL_S), configuration(1.5 * ITL_S))
    code, told = compared(capsys, fast, slow)
    [pair] = told["pairs"]
    verdicts = {j["metric"]: j["verdict"] for j in pair["judgements"]}
    assert pair["paired"]
    assert told["gate"]["question"] == "options"
    assert verdicts["decode_tokens_per_s"] == "worse"
    assert code == (3 if "not comparable" in verdicts.values() else 1)
    back, told = compared(capsys, slow, fast)
    assert {j["metric"]: j["verdict"] for j in told["pairs"][0]["judgements"]}["decode_tokens_per_s"] == "better"
    assert back in (0, 1, 3)


def test_a_control_compares_with_itself_and_gives_the_noise_floor(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    files = measured(
        tmp_path, configuration(ITL_S, "A", 3), configuration(ITL_S, "A'", 3), configuration(1.5 * ITL_S, "A", 3)
    )
    _, alone = compared(capsys, *files[:2])
    assert alone["gate"]["question"] is None
    decode = next(j for j in alone["pairs"][0]["judgements"] if j["metric"] == "decode_tokens_per_s")
    assert abs(decode["ratio"]["ratio"] - 1) < 0.2
    _, told = compared(capsys, *files)
    assert len(told["pairs"]) == 1
    assert [r["control"] for r in told["results"]] == [False, True, False]
    assert told["noise_floor"]["decode_tokens_per_s"]["controls"] == 1
