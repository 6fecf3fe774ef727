"""Every mistake of a user gets one line, a hint, and the right exit code, before anything is measured."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from perjoule.cli import COMMANDS, main

if TYPE_CHECKING:
    from pathlib import Path

RUN = ["run", "quickstart", "--backend", "null"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["run", "quickstrat"], "quickstart"),
        ([*RUN, "--threads", "0"], "--threads"),
        ([*RUN, "--threads", "10000"], "--threads"),
        (["run", "--backend", "onnxruntim"], "onnxruntime"),
        ([*RUN, "--quant", "int3"], "faithful"),
        ([*RUN, "--device", "cuda:0"], "cpu"),
        ([*RUN, "--meter", "rapl"], "rapl-powercap"),
        ([*RUN, "--set", "prompt_tokens"], "KEY=VALUE"),
        ([*RUN, "--set", "prompt_tokns=4"], "prompt_tokens"),
        ([*RUN, "--set", "prompt_tokens=0"], "prompt_tokens"),
        ([*RUN, "--set", "prompt_tokens=many"], "prompt_tokens"),
        ([*RUN, "--set", "run.speed=4"], "run.stall_s"),
        ([*RUN, "--time-budget", "-1"], "--time-budget"),
        ([*RUN, "--tdp", "0"], "--tdp"),
        (["show", "no-such-file.json"], "no-such-file.json"),
        (["scenarios", "show", "nope"], "quickstart"),
        (["models", "info", "qwne"], "qwen"),
    ],
)
def test_mistakes_get_one_line_and_a_hint(
    arguments: list[str], names: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("perjoule: error: ")
    assert lines[1].startswith("hint: ")
    assert names in "".join(lines)
    assert "Traceback" not in "".join(lines)


def test_outputs_that_exist_are_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    page = tmp_path / "page.html"
    page.write_text("mine")
    assert main([*RUN, "--out", str(tmp_path), "--html", str(page)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert page.read_text() == "mine"


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "file"
    file.write_text("x")
    assert main([*RUN, "--out", str(file)]) == 2
    assert "--out" in capsys.readouterr().err


def test_control_characters_of_arguments_are_shown_not_obeyed(capsys: pytest.CaptureFixture[str]):
    assert main(["run", "\x1b[2Jevil\u202e"]) == 2
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_help_is_light():
    code = (
        "import sys; from perjoule.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'onnxruntime', 'scipy', 'rich', 'gguf', 'onnx', 'tokenizers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)
