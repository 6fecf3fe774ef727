"""Runs that ended early are taken up again: nothing that was finished is measured twice, or saved twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from reference.tiny_checkpoint import write_tiny

from perjoule import runner, store
from perjoule.cli import main
from perjoule.journal import Journal, unfinished
from perjoule.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from perjoule.records import RunResult

LOAD = [
    "--set", "new_tokens=4", "--set", "prompt_tokens=8", "--set", "min_processes=3", "--set", "requests_per_process=1",
    "--set", "max_warmup_requests=1", "--time-budget", "0.01",
]  # fmt: skip
NULL = ["run", "--backend", "null", "--set", "backend.ttft_s=0.002", "--set", "backend.itl_s=0.001", *LOAD]
MATRIX = [*NULL, "--threads", "1,2"]


class Killed(BaseException):
    """As kill -9 would: nothing is saved on the way out."""


@pytest.fixture(autouse=True)
def _own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_LOCK", str(tmp_path / "lock"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def stopped(arguments: list[str], out: Path | None, after: int, by: Callable[[], BaseException] = Killed) -> int:
    """Run until some processes are finished, then end it."""
    into = [] if out is None else ["--out", str(out)]
    measure, count = runner.measure_process, 0

    def until(**given: Any) -> Any:
        nonlocal count
        if count == after:
            raise by()
        count += 1
        return measure(**given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "measure_process", until)
        try:
            return main([*arguments, *into])
        except Killed:
            return -signal.SIGKILL


def results(out: Path) -> list[RunResult]:
    return [store.load(path) for path in sorted(out.glob("*.json"))]


def journaled(out: Path) -> dict[int, dict[int, Any]]:
    """Return the samples of each finished process of each configuration."""
    [folder] = unfinished(out)
    kept, story = Journal.open(folder, pytest.fail)
    kept.close()
    return {k: {m.run.record.process: m.run.samples for m in each} for k, each in story.measured.items()}


def of_threads(found: list[RunResult], threads: int) -> RunResult:
    [result] = [r for r in found if r.backend.requested_options["threads"] == threads]
    return result


@pytest.mark.parametrize("after", [0, 1, 5])
def test_what_was_finished_is_kept_and_the_rest_is_measured(out: Path, after: int):
    assert stopped(MATRIX, out, after) == -signal.SIGKILL
    assert results(out) == []
    before = journaled(out)
    assert sum(len(each) for each in before.values()) == after
    assert main(["run", "--resume", str(out)]) == 0
    assert not (out / ".unfinished").exists()
    found = results(out)
    assert len(found) == 2
    for k, threads in ((0, 1), (1, 2)):
        result = of_threads(found, threads)
        assert verify(result) == []
        assert sorted(p.process for p in result.processes) == [0, 1, 2]
        assert len(result.settings.resumed_at_s) == 1
        samples = {p.process: tuple(s for s in result.samples if s.process == p.process) for p in result.processes}
        assert {n: samples[n] for n in before[k]} == before[k], "not measured again"
        later = [s.start_s for n, each in samples.items() if n not in before[k] for s in each]
        assert all(at > result.settings.resumed_at_s[0] for at in later)


def test_a_run_may_end_early_more_than_once(out: Path):
    assert stopped(MATRIX, out, 1) == -signal.SIGKILL
    assert stopped(["run", "--resume", str(out)], None, 2) == -signal.SIGKILL
    assert stopped(["run", "--resume", str(out)], None, 1) == -signal.SIGKILL
    assert sum(len(each) for each in journaled(out).values()) == 4
    assert main(["run", "--resume", str(out)]) == 0
    for result in results(out):
        assert verify(result) == []
        times = result.settings.resumed_at_s
        assert len(times) == 3
        assert list(times) == sorted(times)


def test_ctrl_c_saves_what_there_is_and_the_rest_can_follow(out: Path, capsys: pytest.CaptureFixture[str]):
    assert stopped(MATRIX, out, 4, KeyboardInterrupt) == 130
    hint = capsys.readouterr().err.splitlines()[-1]
    assert hint.startswith("hint: `perjoule run --resume ")
    partial = {r.id: len(r.processes) for r in results(out)}
    assert sorted(partial.values()) == [2, 2]
    assert main(["run", "--resume", str(out)]) == 0
    found = results(out)
    assert set(partial) < {r.id for r in found}, "partial results stay"
    whole = [r for r in found if r.id not in partial]
    assert [len(r.processes) for r in whole] == [3, 3]
    assert not any(verify(r) for r in found)


def test_a_configuration_that_was_complete_is_not_saved_again(out: Path, capsys: pytest.CaptureFixture[str]):
    assert stopped(MATRIX, out, 5, KeyboardInterrupt) == 130
    [complete] = [r for r in results(out) if len(r.processes) == 3]
    capsys.readouterr()
    assert main(["run", "--resume", str(out), "--json", "-"]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {len(r["processes"]) for r in shown} == {3}
    assert complete.id in {r["id"] for r in shown}, "shown with the others"
    assert [r.id for r in results(out) if len(r.processes) == 3].count(complete.id) == 1
    assert len(results(out)) == 3, "two, and the partial one of Ctrl-C"


def test_ctrl_c_before_anything_was_finished_leaves_nothing(out: Path, capsys: pytest.CaptureFixture[str]):
    assert stopped(MATRIX, out, 0, KeyboardInterrupt) == 130
    assert list(out.iterdir()) == []
    assert "run the same command again" in capsys.readouterr().err


def test_a_crash_between_the_results_and_the_end_saves_none_twice(out: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "remove", Journal.close)
        assert main([*MATRIX, "--out", str(out)]) == 0
    before = {r.id for r in results(out)}
    assert len(unfinished(out)) == 1
    assert main(["run", "--resume", str(out)]) == 0
    assert {r.id for r in results(out)} == before
    assert not (out / ".unfinished").exists()


@pytest.mark.parametrize("after", [0, 1])
def test_a_crash_between_two_results_saves_the_missing_one(out: Path, after: int):
    save, count = store.save, 0

    def until(result: RunResult, folder: str) -> Path:
        nonlocal count
        if count == after:
            raise Killed
        count += 1
        return save(result, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner.store, "save", until)
        with pytest.raises(Killed):
            main([*MATRIX, "--out", str(out)])
    before = {r.id for r in results(out)}
    assert len(before) == after
    assert main(["run", "--resume", str(out)]) == 0
    found = results(out)
    assert before <= {r.id for r in found}
    assert len(found) == 2
    assert not any(verify(r) for r in found)


def test_an_engine_that_failed_may_be_tried_again(out: Path, capsys: pytest.CaptureFixture[str]):
    assert stopped(NULL, out, 2, lambda: runner.EngineError("it died", hint="x")) == 4
    assert "perjoule run --resume" in capsys.readouterr().err
    assert [len(r.processes) for r in results(out)] == [2]
    assert main(["run", "--resume", str(out)]) == 0
    assert sorted(len(r.processes) for r in results(out)) == [2, 3]


def test_a_damaged_process_is_said_and_measured_again(out: Path, capsys: pytest.CaptureFixture[str]):
    stopped(NULL, out, 2)
    [folder] = unfinished(out)
    (folder / "0-0.json").write_bytes((folder / "0-0.json").read_bytes()[:-200])
    assert main(["run", "--resume", str(out)]) == 0
    assert "0-0.json is damaged" in capsys.readouterr().err
    [result] = results(out)
    assert [p.process for p in result.processes] == [1, 0, 2], "in the order in which they were measured"
    assert verify(result) == []


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["run", *arguments]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in said[-2:]] == ["perjoule", "hint"]
    return " ".join(said)


def test_what_cannot_be_taken_up_is_refused(out: Path, capsys: pytest.CaptureFixture[str]):
    assert "no such folder" in refused(["--resume", str(out)], capsys)
    stopped(NULL, out, 1)
    [first] = unfinished(out)
    plan = first / "plan.json"
    whole = plan.read_text()
    for change, says in (
        ({"version": 99}, "update perjoule"),
        ({"tool_version": "0.0.1"}, "resume it with that version"),
        ({"machine_id": "another"}, "begun on machine another"),
    ):
        plan.write_text(json.dumps(json.loads(whole) | change))
        assert says in refused(["--resume", str(out)], capsys)
    plan.write_text(whole)
    kept, _story = Journal.open(first, pytest.fail)
    assert "still going on" in refused(["--resume", str(out)], capsys)
    kept.close()
    for given in (["--seed", "1"], ["--model", "x"], ["chat"], ["--out", "x"], ["--control"], ["--set", "a=1"]):
        option = given[0] if given[0].startswith("--") else "SCENARIO"
        assert f"{option} cannot be changed" in refused(["--resume", str(out), *given], capsys)
    stopped(NULL, out, 1)
    assert "2 unfinished runs" in refused(["--resume", str(out)], capsys)
    assert main(["run", "--resume", str(first)]) == 0
    assert len(results(out)) == 1


def test_a_run_into_the_same_folder_says_what_is_unfinished_there(out: Path, capsys: pytest.CaptureFixture[str]):
    stopped(NULL, out, 1)
    [folder] = unfinished(out)
    capsys.readouterr()
    assert main([*NULL, "--out", str(out)]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "unfinished" in line]
    assert len(notes) == 1
    assert f"--resume {folder}" in notes[0]
    assert unfinished(out) == [folder]


def test_another_model_under_the_same_name_is_refused(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    stopped(["run", "--model", str(path), *LOAD], out, 1)
    path.unlink()
    write_tiny(path, "qwen2")
    assert "tiny.gguf has changed since the run was begun" in refused(["--resume", str(out)], capsys)
    path.unlink()
    write_tiny(path, "llama")
    assert main(["run", "--resume", str(out)]) == 0


def test_relative_names_start_where_the_run_was_begun(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    write_tiny(tmp_path / "tiny.gguf", "llama")
    monkeypatch.chdir(tmp_path)
    stopped(["run", "--model", "tiny.gguf", *LOAD], out, 1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["run", "--resume", "../out", "--html", "page.html"]) == 0
    assert "<svg" in (elsewhere / "page.html").read_text(encoding="utf-8")
    assert str(tmp_path) not in next(out.glob("*.json")).read_text(encoding="utf-8")
    assert "damaged" not in capsys.readouterr().err


def test_a_journal_goes_on_after_a_real_reboot_of_the_clock(out: Path):
    """The monotonic clock of another boot may be anything: stamps follow the wall clock."""
    stopped(NULL, out, 1)
    [folder] = unfinished(out)
    plan = folder / "plan.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"boot": "another", "epoch_ns": 10**18}))
    assert main(["run", "--resume", str(out)]) == 0
    [result] = results(out)
    starts = [p.start_s for p in result.processes]
    assert starts == sorted(starts)
    assert starts[-1] < 600


def test_a_clock_that_was_set_back_is_said(out: Path, capsys: pytest.CaptureFixture[str]):
    stopped(NULL, out, 1)
    [folder] = unfinished(out)
    plan = folder / "plan.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"created": "2999-01-01T00:00:00Z"}))
    assert main(["run", "--resume", str(out)]) == 0
    assert "set back" in capsys.readouterr().err
    [result] = results(out)
    assert verify(result) == []
    assert [p.process for p in result.processes] == [0, 1, 2]


def test_the_command_line_resumes_in_a_process_of_its_own(out: Path):
    stopped(NULL, out, 1)
    command = [sys.executable, "-m", "perjoule", "run", "--resume", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert len(results(out)) == 1
