"""Disks that are full or cannot be written, for real: small file systems in memory, mounted where a test may."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from fixtures_checkpoints import checkpoint_path
from reference.tiny_checkpoint import write_tiny

from perjoule import runner, store
from perjoule.cli import main
from perjoule.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from perjoule.records import RunResult

FAST = [
    "run", "--backend", "null", "--set", "backend.ttft_s=0.004", "--set", "backend.itl_s=0.001",
    "--set", "new_tokens=16", "--set", "prompt_tokens=32", "--set", "min_processes=2", "--time-budget", "1",
]  # fmt: skip


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MB."""
    with mounted(tmp_path / "disk", 40) as folder:
        yield folder


@contextmanager
def mounted(folder: Path, megabytes: int) -> Iterator[Path]:
    folder.mkdir()
    size = f"size={megabytes}m"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no test may mount here: {done.stderr.decode(errors='replace').strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> None:
    done = subprocess.run(["dd", "if=/dev/zero", f"of={folder}/filler", "bs=64k"], capture_output=True, check=False)
    assert b"No space left" in done.stderr


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Run a command that must fail; return its error and its hint."""
    assert main(arguments) == 2
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert error.startswith("perjoule: error: ")
    assert hint.startswith("hint: ")
    return error, hint


def test_a_cache_too_small_for_a_model_is_said_before_it_is_fetched(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PERJOULE_CACHE", str(disk))
    error, hint = refused(["models", "pull", "smollm2"], capsys)
    assert "197 MB are needed" in error
    assert "PERJOULE_CACHE" in hint
    assert [p.name for p in disk.rglob("*") if p.is_file()] == [".lock"]


@pytest.mark.checkpoint
def test_a_cache_too_small_for_a_conversion_is_said_before_it_starts(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = checkpoint_path("smollm2")
    monkeypatch.setenv("PERJOULE_CACHE", str(disk))
    error, hint = refused(["run", "--model", str(path), "--out", str(tmp_path / "out")], capsys)
    assert "no space for the converted" in error
    assert "PERJOULE_CACHE" in hint
    assert [p.name for p in disk.rglob("*") if p.is_file()] == [".lock"]


@pytest.mark.checkpoint
def test_a_disk_that_fills_while_converting_keeps_no_half_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = checkpoint_path("smollm2")
    convert = pytest.importorskip("perjoule_backends.onnxruntime.convert")
    backend = pytest.importorskip("perjoule_backends.onnxruntime").OnnxRuntimeBackend()
    with mounted(tmp_path / "cache", 100) as cache:
        monkeypatch.setenv("PERJOULE_CACHE", str(cache))
        monkeypatch.setattr(convert, "need_space", lambda *_args: None)  # somebody else takes the space afterwards
        monkeypatch.setattr("perjoule.registry.backend", lambda _name: backend)
        error, hint = refused(["models", "info", str(path)], capsys)
        assert "cannot write the converted model: No space left on device" in error
        assert "PERJOULE_CACHE" in hint
        assert [p.name for p in cache.rglob("*") if p.is_file()] == [".lock"]


def test_a_full_disk_for_results_is_said_before_anything_is_measured(disk: Path, capsys: pytest.CaptureFixture[str]):
    fill(disk)
    error, _ = refused([*FAST, "--out", str(disk / "results")], capsys)
    assert "no space" in error


def test_a_disk_that_fills_while_measuring_gets_no_half_report_and_the_results_are_named(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    save = store.save

    def save_when_full(result: RunResult, folder: str) -> Path:
        fill(disk)
        return save(result, folder)

    monkeypatch.setattr(runner.store, "save", save_when_full)
    wanted = ["--html", str(disk / "page.html"), "--json", str(disk / "lines.jsonl"), "--out", str(tmp_path / "out")]
    assert main([*FAST, *wanted]) == 2
    shown = capsys.readouterr()
    assert "cannot write" in shown.err.splitlines()[-2]
    [path] = (tmp_path / "out").glob("*.json")
    assert f"written: {path}" in shown.out
    assert [p.name for p in disk.iterdir()] == ["filler"]


def test_a_disk_that_fills_while_measuring_does_not_lose_the_measurement(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    save = store.save

    def save_when_full(result: RunResult, folder: str) -> Path:
        if folder == str(disk):
            fill(disk)
        return save(result, folder)

    monkeypatch.setattr(runner.store, "save", save_when_full)
    assert main([*FAST, "--out", str(disk)]) == 2
    error = next(line for line in capsys.readouterr().err.splitlines() if "error:" in line)
    [path] = tmp_path.glob("perjoule-*/*.json")
    assert "No space left" in error
    assert str(path) in error
    assert verify(store.load(path)) == []


@pytest.mark.parametrize("option", ["--out", "--html", "--json"])
def test_a_disk_that_can_only_be_read_takes_no_output(
    option: str, disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    place = disk if option == "--out" else disk / "file"
    out = [] if option == "--out" else ["--out", str(tmp_path / "out")]
    error, _ = refused([*FAST, option, str(place), *out], capsys)
    assert str(disk) in error


def test_a_cache_that_can_only_be_read_is_no_place_for_a_conversion(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    monkeypatch.setenv("PERJOULE_CACHE", str(disk))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    error, hint = refused(["models", "info", str(path)], capsys)
    assert "Read-only file system" in error
    assert "PERJOULE_CACHE" in hint


def test_a_cache_that_can_only_be_read_serves_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    with mounted(tmp_path / "cache", 100) as cache:
        monkeypatch.setenv("PERJOULE_CACHE", str(cache))
        assert main(["models", "info", str(path)]) == 0
        first = capsys.readouterr().out
        subprocess.run(["mount", "-o", "remount,ro", cache], check=True)
        assert main(["models", "info", str(path)]) == 0
    assert capsys.readouterr().out == first
