"""`perjoule models`: the list says what can be done here, and errors are lines with what to do instead."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from reference import tiny_folder

from perjoule.cli import main
from perjoule_backends.checkpoints import catalogue, resolve

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))


def test_the_list_names_every_row_once_with_what_can_be_done(capsys: pytest.CaptureFixture[str]):
    cached = resolve.cached_path(catalogue.find("smollm2"))
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert main(["models", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["NAME", "OR", "VENDOR"]
    by_name = {line.split()[0]: line for line in lines[1:] if not line.startswith(" ")}
    assert len(by_name) == len(catalogue.rows()) + len(catalogue.models())
    assert "cached, mirror" in by_name["smollm2-135m-instruct:q4_1"]
    assert by_name["smollm2-135m-instruct:q4_1"].split()[1] == "smollm2"
    assert "cached" not in by_name["qwen3-4b:q4_k_m"]
    assert "hub, synthetic:qwen3-8b" in by_name["qwen3-8b"]
    assert "not here" in by_name["gpt-oss-20b"]
    assert sum("mixture of experts" in line for line in lines) == 1


def test_random_weights_have_no_fidelity(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["models", "info", "synthetic:qwen3-8b", "--fidelity"]) == 2
    assert "no quality to measure" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_info_says_how_the_matrices_of_a_folder_are_kept(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    pytest.importorskip("onnxruntime")
    folder = tiny_folder.write_folder(tmp_path / "tiny", "qwen2", shards=2)
    assert main(["models", "info", str(folder), "--quant", "int8"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["ref"], told["source_format"], told["source_quantization"]) == ("tiny", "safetensors", "BF16")
    kept = {row["matrix"]: row for row in told["import"]}
    assert kept.keys() >= {"embedding", "head", "qkv", "attn_output", "gate", "up", "down"}
    assert kept["qkv"]["count"] == 2
    assert kept["qkv"]["exact"] == 0
    assert 0 < kept["qkv"]["largest_relative_error"] < 0.01
    assert str(tmp_path) not in json.dumps(told)


def test_the_list_needs_neither_numpy_nor_an_engine(tmp_path: Path):
    import subprocess  # noqa: PLC0415

    code = (
        "import sys; from perjoule.cli import main; main(['models', 'list']); "
        "print([m for m in ('numpy', 'scipy', 'onnxruntime', 'gguf') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr.strip() == "[]"
