"""perjoule calibrate: says what to run, refuses what must not be fitted, stores what it prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import msgspec
import pytest
from builders import make_host, make_result
from calibrated import LARGE, LONG_ANSWER, LONG_PROMPT, SMALL, measured, rapl

from perjoule import runner
from perjoule.assemble import derive
from perjoule.cli import build_parser, calibrate, main
from perjoule.cli.run import make_plan
from perjoule.meters import calibration
from perjoule.meters.calibration import load_calibration
from perjoule.store.write import encode

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule.records import MeterFact, RunResult

HERE = make_host()


@pytest.fixture(autouse=True)
def _made_up_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "machine-id").write_text("0123456789abcdef" * 2)
    monkeypatch.setattr(calibration, "MACHINE_ID_FILES", (tmp_path / "machine-id",))
    monkeypatch.setattr("perjoule.host.read_host", lambda _libraries: HERE)
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def results(**changes: Any) -> list[RunResult]:
    return [measured(m, load, **changes) for m in (SMALL, LARGE) for load in (LONG_ANSWER, LONG_PROMPT)]


def written(folder: Path, found: list[RunResult]) -> list[str]:
    paths = [folder / f"{i}.json" for i in range(len(found))]
    for path, result in zip(paths, found, strict=True):
        path.write_bytes(encode(result))
    return [str(p) for p in paths]


def test_a_fit_is_printed_and_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["calibrate", *written(tmp_path, results())]) == 0
    shown = capsys.readouterr().out
    for part in (
        "P0  12.0 W", "150 pJ per byte", "0.0% mean, 0.0% max", "GB/s streamed, 2.00-2.00 cores busy",
        "20 processes of 4 configurations, 2 models", "for package, against rapl-package", "+-18% inside", "stored: ",
    ):  # fmt: skip
        assert part in shown
    stored = load_calibration(HERE)
    assert stored is not None
    assert stored.p0_w == pytest.approx(12.0, rel=1e-4)


def test_without_results_it_says_exactly_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["calibrate"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    runs = [line.split()[1:] for line in lines if line.startswith("perjoule run")]
    configurations = [
        (c.model_ref, c.scenario.prompt_tokens, c.scenario.new_tokens)
        for words in runs
        for c in make_plan(build_parser("run").parse_args([*words, "--backend", "null"])).configurations
    ]
    assert configurations == [("null", 32, 128), ("null", 384, 16)]
    assert all(words.count("--model") == 2 for words in runs)
    assert "perjoule calibrate perjoule-results/*.json" in lines
    assert main(["calibrate", *written(tmp_path, results())]) == 0
    capsys.readouterr()
    assert main(["calibrate"]) == 0
    assert "Stored for this machine" in capsys.readouterr().out


def edited() -> RunResult:
    result = results()[0]
    return msgspec.structs.replace(result, overhead=msgspec.structs.replace(result.overhead, harness_share=0.5))


def disturbed() -> RunResult:
    result = results()[0]
    windows = tuple(msgspec.structs.replace(w, rejected="others worked", foreign_cpu_s=1.0) for w in result.windows)
    return derive(msgspec.structs.replace(result, windows=windows))


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([make_result()], "not measured"),
        ([measured(SMALL, LONG_ANSWER, host=make_host(machine_id="ba9876543210"))], "ba9876543210"),
        (results(meter=rapl(simulated=True)), "--allow-simulated"),
        (results()[:2], "2 configurations of 1 models"),
        ([results()[0], results()[0]], "the same result"),
        ([edited()], "does not hold"),
        ([disturbed()], "disturbed"),
    ],
)
def test_what_must_not_be_fitted_is_refused_with_a_hint(
    found: list[RunResult], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["calibrate", *written(tmp_path, found)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("perjoule: error: ")
    assert lines[1].startswith("hint: ")
    assert says in "".join(lines)
    assert load_calibration(HERE) is None


def test_simulated_sensors_are_accepted_on_request_and_stay_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    files = written(tmp_path, results(meter=rapl(simulated=True)))
    assert main(["calibrate", "--allow-simulated", *files]) == 0
    assert "(SIMULATED)" in capsys.readouterr().out
    stored = load_calibration(HERE)
    assert stored is not None
    assert stored.simulated


class Meters:
    """Stands for the opened meters of a machine."""

    def __init__(self, *facts: MeterFact) -> None:
        self.facts, self.refusals = facts, ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return


def test_run_measures_every_model_under_every_load_and_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("onnxruntime")
    asked: list[Any] = []

    def measure(plan: Any, listener: Any) -> None:
        for c in plan.configurations:
            truth = measured(
                SMALL if "135m" in c.model_ref else LARGE, LONG_PROMPT if c.scenario.new_tokens == 16 else LONG_ANSWER
            )
            path = tmp_path / f"{len(asked)}.json"
            path.write_bytes(encode(truth))
            asked.append((c.model_ref, c.scenario.name, plan.meters, plan.out_dir))
            listener.finished(path, truth)

    monkeypatch.setattr(runner, "run", measure)
    monkeypatch.setattr("perjoule.meters.open_meters", lambda _names: Meters(rapl()))
    assert main(["calibrate", "--run", "--out", "here", "--meter", "rapl-powercap"]) == 0
    assert asked == [(m, "quickstart", ("rapl-powercap",), "here") for m in calibrate.MODELS] * 2
    assert "P0  12.0 W" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("meters", "words", "says"),
    [
        (Meters(), ["--run"], "no sensor to fit against"),
        (Meters(rapl(simulated=True)), ["--run"], "--allow-simulated"),
        (Meters(rapl()), ["--run", "a.json"], "--run"),
        (Meters(rapl()), ["a.json"], "a.json"),
    ],
)
def test_nothing_is_measured_where_no_fit_can_come_of_it(
    meters: Meters, words: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr("perjoule.meters.open_meters", lambda _names: meters)
    assert main(["calibrate", *words]) == 2
    assert says in capsys.readouterr().err
