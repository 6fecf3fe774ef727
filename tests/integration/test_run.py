"""Runs from end to end: what is written can be verified, and what breaks is said and loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from fixtures_checkpoints import checkpoint_path
from reference.tiny_checkpoint import CONTEXT, write_tiny

from perjoule import messages, store
from perjoule.child import Child
from perjoule.cli import main
from perjoule.errors import EngineError
from perjoule.placement import usable_cpus
from perjoule.protocols import EngineOptions, Prepared
from perjoule.records import Energy, ModelFacts
from perjoule.verify import verify
from perjoule_backends.null import NullBackend

if TYPE_CHECKING:
    from collections.abc import Callable

FAST = [
    "--set", "backend.ttft_s=0.004", "--set", "backend.itl_s=0.001", "--set", "new_tokens=16",
    "--set", "prompt_tokens=32", "--time-budget", "1",
]  # fmt: skip
SMOLLM2 = "smollm2-135m-instruct:q4_1"


@pytest.fixture(autouse=True)
def _own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_LOCK", str(tmp_path / "machine.lock"))


def results(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def test_a_paced_engine_is_measured_as_it_is_paced(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    page = tmp_path / "page.html"
    assert main(["run", "quickstart", "--backend", "null", "--out", str(tmp_path), "--html", str(page), *FAST]) == 0
    [path] = results(tmp_path)
    result = store.load(path)
    assert verify(result) == []
    assert len({s.process for s in result.samples}) >= 5
    assert len({s.prompt_ids_sha256 for s in result.samples}) == len(result.samples)
    ttft = result.metric("ttft_s")
    assert getattr(ttft, "value", 0) >= 0.004
    assert "written:" in capsys.readouterr().out
    assert "<svg" in page.read_text(encoding="utf-8")
    private = [os.uname().nodename, str(Path.home()), str(tmp_path)]
    assert not [p for p in private if len(p) > 3 and p in path.read_text(encoding="utf-8")]


@pytest.mark.checkpoint
def test_a_real_checkpoint_is_measured_with_joules(tmp_path: Path):
    settings = ["--set", "requests_per_process=1", "--set", "max_warmup_requests=2", "--set", "new_tokens=8"]
    assert main(["run", "--model", SMOLLM2, "--out", str(tmp_path), "--time-budget", "1", *settings]) == 0
    [path] = results(tmp_path)
    result = store.load(path)
    assert verify(result) == []
    assert result.model.architecture == "llama"
    assert result.model.weights == "trained"
    energy = result.metric("energy_j_per_output_token")
    if result.meters or result.host.virtualization:
        assert isinstance(energy, Energy)
        assert energy.value > 0
        assert energy.label in ("measured", "utilisation-modelled")
    peaks = {m.phase: m.rss_peak_bytes for m in result.memory}
    assert set(peaks) == {"load", "requests", "prefill", "decode"}


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_a_local_gguf_file_is_measured_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str):
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "tiny.gguf"
    write_tiny(path, architecture)
    out = tmp_path / "out"
    settings = ["--set", "prompt_tokens=16", "--set", "new_tokens=4", "--time-budget", "1"]
    assert main(["run", "--model", str(path), "--out", str(out), *settings]) == 0
    text = results(out)[0].read_text(encoding="utf-8")
    assert str(tmp_path) not in text


def null_job(**changes: float) -> messages.MeasureJob:
    options = EngineOptions(extra={"ttft_s": 0.01, "itl_s": 0.01} | changes)
    prepared: Prepared = NullBackend().prepare("null", options, lambda _text, _share: None)
    assert isinstance(prepared.model, ModelFacts)
    return messages.MeasureJob(
        backend="null", prepared=prepared, options=options, process=0, corpus="udhr-en", seed=0, prompt_tokens=8,
        new_tokens=4, requests=1, max_warmup_requests=1, min_span_s=0,
    )  # fmt: skip


def drain(child: Child) -> None:
    while True:
        child.receive("running a request")


def test_a_killed_worker_is_reported_with_its_signal():
    with Child(null_job(), stall_s=30) as child:
        assert isinstance(child.receive("loading"), messages.Loaded)
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match=r"SIGKILL while running") as caught:
            drain(child)
    assert "memory" in caught.value.hint


def test_a_hung_engine_is_stopped_and_named():
    with Child(null_job(ttft_s=60.0), stall_s=0.5) as child:
        assert isinstance(child.receive("loading"), messages.Loaded)
        child.go()
        with pytest.raises(EngineError, match=r"said nothing for 0\.5 s"):
            drain(child)
    assert not psutil.pid_exists(child.pid)


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "perjoule", "run", "--backend", "null", "--out", str(folder), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_worker(parent: subprocess.Popen[str], text: str) -> psutil.Process:
    assert parent.stderr is not None
    for line in parent.stderr:
        if text in line:
            return worker_of(parent)
    pytest.fail(f"the run ended before it said {text!r}")


def worker_of(parent: subprocess.Popen[str]) -> psutil.Process:
    """Return the worker that is about to run: the run says so a moment before the new process has its own name."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for child in psutil.Process(parent.pid).children():
            with suppress(psutil.NoSuchProcess):
                if "perjoule.worker" in " ".join(child.cmdline()):
                    return child
        time.sleep(0.01)
    pytest.fail("no worker was started")


def test_ctrl_c_saves_what_was_finished(tmp_path: Path):
    parent = start(tmp_path, *FAST[:-2])
    wait_for_worker(parent, "process 3")
    parent.send_signal(signal.SIGINT)
    _out, errors = parent.communicate(timeout=60)
    assert parent.returncode == 130
    assert "interrupted" in errors
    [path] = results(tmp_path)
    result = store.load(path)
    assert len(result.processes) >= 2
    assert not result.publishable


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_being_told_to_stop_saves_what_was_finished(tmp_path: Path, number: signal.Signals):
    parent = start(tmp_path, "--json", str(tmp_path / "lines.jsonl"), *FAST[:-2])
    worker = wait_for_worker(parent, "process 3")
    parent.send_signal(number)
    _out, errors = parent.communicate(timeout=60)
    assert parent.returncode == 130
    assert "saved: " in errors
    assert not worker.is_running()
    [path] = results(tmp_path)
    assert len(store.load(path).processes) == 2
    assert (tmp_path / "lines.jsonl").exists()


def test_impatience_costs_no_result(tmp_path: Path):
    parent = start(tmp_path, *FAST[:-2])
    wait_for_worker(parent, "process 3")
    parent.send_signal(signal.SIGINT)
    time.sleep(0.02)
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=60)
    assert parent.returncode == 130
    assert len(results(tmp_path)) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.checkpoint
def test_stopping_a_conversion_leaves_nothing_in_the_cache(tmp_path: Path, number: signal.Signals):
    cache = tmp_path / "cache"
    path = checkpoint_path("smollm2")
    command = [sys.executable, "-m", "perjoule", "run", "--model", str(path), "--out", str(tmp_path / "out")]
    environment = os.environ | {"PERJOULE_CACHE": str(cache)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as parent:
        wait_for_worker(parent, "converting")
        parent.send_signal(number)
        errors = parent.communicate(timeout=60)[1]
    assert parent.returncode == 130
    assert errors.splitlines()[-1] == "hint: nothing was left half written"
    assert [p.name for p in (cache / "converted").iterdir()] == [".lock"]


def test_no_worker_outlives_a_killed_parent(tmp_path: Path):
    parent = start(tmp_path, "--set", "backend.ttft_s=20")
    worker = wait_for_worker(parent, "process 1")
    parent.kill()
    parent.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    assert not results(tmp_path)


def test_a_hung_engine_is_exit_4_with_the_option_that_allows_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    slow = ["--set", "backend.ttft_s=60", "--set", "run.stall_s=0.5"]
    assert main(["run", "--backend", "null", "--out", str(tmp_path), *slow]) == 4
    assert capsys.readouterr().err.splitlines()[-1].startswith("hint: raise the limit with --set run.stall_s=")


def test_a_prompt_that_no_context_holds_is_refused_before_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    long = ["--set", f"prompt_tokens={CONTEXT}", "--set", "new_tokens=1"]
    assert main(["run", "--model", str(path), "--out", str(tmp_path / "out"), *long]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert f"{CONTEXT} tokens; the scenario needs {CONTEXT + 1}" in lines[-2]
    assert lines[-1].startswith("hint: ")
    assert not results(tmp_path / "out")


def test_an_engine_that_dies_is_exit_4_and_keeps_what_was_finished(tmp_path: Path):
    parent = start(tmp_path, *FAST[:-2])
    wait_for_worker(parent, "process 2")
    wait_for_worker(parent, "process 3").kill()
    _out, errors = parent.communicate(timeout=60)
    assert parent.returncode == 4
    assert "SIGKILL" in errors
    assert len(results(tmp_path)) == 1


BRIEF = [
    "--set", "backend.ttft_s=0.002", "--set", "backend.itl_s=0.001", "--set", "new_tokens=4", "--set",
    "prompt_tokens=8", "--set", "min_processes=2", "--set", "requests_per_process=1", "--set", "max_warmup_requests=1",
    "--time-budget", "0.01",
]  # fmt: skip


def test_a_matrix_gets_one_result_per_configuration_measured_in_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    cpus = len(usable_cpus())
    scenarios = [tmp_path / f"{name}.toml" for name in ("first", "second")]
    for path in scenarios:
        path.write_text(
            f'name = "{path.stem}"\nversion = 1\ndescription = "x"\nshape = "single-stream"\ncorpus = "udhr-en"\n'
            'prompt_tokens = 8\nnew_tokens = 4\nrigor = "quick"\n'
        )
    threads = ",".join(str(n + 1) for n in range(min(2, cpus)))
    command = ["run", *map(str, scenarios), "--backend", "null", "--threads", threads, "--out", str(tmp_path / "out")]
    assert main([*command, *BRIEF]) == 0
    found = [store.load(path) for path in results(tmp_path / "out")]
    assert len(found) == 2 * min(2, cpus)
    assert {r.scenario.name for r in found} == {"first", "second"}
    for number in (0, 1):
        rounds = [next(p.start_s for p in r.processes if p.process == number) for r in found]
        others = [p.start_s for r in found for p in r.processes if p.process != number]
        assert all(max(rounds) < at for at in others) or all(min(rounds) > at for at in others), "round by round"
    assert "first.toml" not in found[0].reproduce
    assert "null on null (faithful, first" in capsys.readouterr().err


def test_a_control_is_the_same_configuration_twice(tmp_path: Path):
    assert main(["run", "--backend", "null", "--control", "--out", str(tmp_path), *BRIEF]) == 0
    found = sorted((store.load(path) for path in results(tmp_path)), key=lambda r: str(r.settings.control))
    assert [r.settings.control for r in found] == ["A", "A'"]
    one, other = found
    assert one.backend.requested_options == other.backend.requested_options
    mine, theirs = ({(s.process, s.index): s.prompt_ids_sha256 for s in r.samples} for r in found)
    both = set(mine) & set(theirs)  # where one was disturbed it made a request more
    assert len({process for process, _ in both}) == 2
    assert all(mine[at] == theirs[at] for at in both)
    assert "--control" in one.reproduce
    assert not any(verify(r) for r in found)


def test_the_worker_runs_where_it_is_put(tmp_path: Path):
    cpu = min(usable_cpus())
    parent = start(tmp_path, "--pin", str(cpu), "--nice", "3", "--set", "backend.ttft_s=20")
    worker = wait_for_worker(parent, "process 1")
    placed = deadline_for(lambda: (worker.cpu_affinity(), worker.nice()) == ([cpu], 3))
    assert psutil.Process(parent.pid).nice() != 3
    parent.kill()
    parent.communicate(timeout=60)
    assert placed


def deadline_for(reached: Callable[[], bool]) -> bool:
    end = time.monotonic() + 30
    while not reached() and time.monotonic() < end:
        time.sleep(0.01)
    return reached()


def test_where_the_worker_ran_is_in_the_result(tmp_path: Path):
    cpu = min(usable_cpus())
    command = ["run", "--backend", "null", "--pin", str(cpu), "--nice", "3", "--out", str(tmp_path)]
    assert main([*command, *BRIEF]) == 0
    [path] = results(tmp_path)
    result = store.load(path)
    assert (result.settings.pin, result.settings.nice) == ((cpu,), 3)
    assert result.backend.requested_options["threads"] == 1
    assert f"--pin {cpu} --nice 3" in result.reproduce


def test_models_that_load_alike_are_prepared_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["run", "--backend", "null", "--control", "--out", str(tmp_path), *BRIEF]) == 0
    assert capsys.readouterr().err.count("preparing ") == 1
