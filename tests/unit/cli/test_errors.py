"""Every mistake of a user gets one line, a hint, and the right exit code, before anything is measured."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from builders import make_result

from perjoule.cli import COMMANDS, build_parser, main, output
from perjoule.cli.run import make_plan
from perjoule.cli.signals import interruptible
from perjoule.errors import UsageError
from perjoule.store.write import encode

RUN = ["run", "quickstart", "--backend", "null"]
SERVER = ["--set", "shape=server", "--set", "arrivals=poisson", "--set", "duration_s=30"]


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
        ([*RUN, "--set", "run.stall_s=0"], "run.stall_s"),
        ([*RUN, "--set", "run.stall_s=true"], "run.stall_s"),
        ([*RUN, "--set", "run.stall_s=Infinity"], "run.stall_s"),
        ([*RUN, "--set", "run.stall_s=1e300"], "run.stall_s"),
        ([*RUN, "--set", "prompt_tokens=" + "[" * 50_000], "prompt_tokens"),
        ([*RUN, "--set", "prompt_tokens=" + "1" * 5000], "prompt_tokens"),
        ([*RUN, "--set", "backend.ttft_s=1e999"], "finite"),
        ([*RUN, "--set", "backend.ttft_s=\udcff"], "UTF-8"),
        ([*RUN, "--seed", "9" * 26], "2^53"),
        (["run", "--model", "\udcff.gguf"], "UTF-8"),
        ([*RUN, "--time-budget", "-1"], "--time-budget"),
        ([*RUN, "--tdp", "0"], "--tdp"),
        (["show", "no-such-file.json"], "no-such-file.json"),
        (["scenarios", "show", "nope"], "quickstart"),
        (["models", "info", "qwne"], "qwen"),
        (["models", "info", "smollm2", "--threads", "0"], "--threads"),
        ([], "COMMAND"),
        (["rnu"], "run"),
        ([*RUN, "--rigor", "fast"], "quick"),
        ([*RUN, "--thread", "1"], "--thread"),
        ([*RUN, "--threads", "two"], "--threads"),
        ([*RUN, "--tdp", "nan"], "--tdp"),
        ([*RUN, "--time-budget", "inf"], "--time-budget"),
        ([*RUN, "--html", "x", "--json", "x"], "twice"),
        ([*RUN, "--threads", "1,1"], "--threads"),
        ([*RUN, "--threads", "1,,2"], "empty"),
        ([*RUN, "--threads", "1," + "9" * 5000], "--threads"),
        ([*RUN, "--quant", "faithful,int3"], "int3"),
        ([*RUN, "--quant", ""], "--quant"),
        ([*RUN, "--backend", "null"], "the same configuration twice"),
        (["run", "quickstart", "quickstrat", "--backend", "null"], "quickstart"),
        ([*RUN, "--pin", "0-"], "--pin"),
        ([*RUN, "--pin", "4000"], "may not use CPU 4000"),
        ([*RUN, "--pin", "0", "--threads", "2"], "--threads 2: this process may use 1 to 1"),
        ([*RUN, "--nice", "20"], "--nice"),
        ([*RUN, "--set", "clients=2"], "clients"),
        ([*RUN, *SERVER, "--set", "rate_per_s=0"], "rate_per_s"),
        ([*RUN, *SERVER, "--set", "rate_per_s=-1"], "rate_per_s"),
        ([*RUN, *SERVER, "--set", "rate_per_s=1", "--set", "duration_s=0"], "duration_s"),
        (
            [*RUN, *SERVER, "--set", "rate_per_s=1", "--set", "duration_s=600"],
            "time_budget_s 60 is smaller than one repeat of 600 s",
        ),
        (["run", "--resume", "nowhere"], "nowhere"),
        (["run", "--resume", "nowhere", "--seed", "1"], "--seed"),
        (["verify", "no-such-file.json"], "no-such-file.json"),
        (["models", "pull", "smollm"], "smollm2-135m-instruct:q4_1"),
        (["models", "pull", "one\ntwo.gguf"], "one\\ntwo.gguf"),
        (["models", "pull", "a" * 5000 + ".gguf"], "path"),
    ],
)
def test_mistakes_get_one_line_and_a_hint(
    arguments: list[str], names: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said, lines = capsys.readouterr()
    assert said == ""
    lines = lines.splitlines()
    assert lines[0].startswith("perjoule: error: ")
    assert lines[1].startswith("hint: ")
    assert len(lines) == 2
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
    assert str(file) in capsys.readouterr().err


def test_a_link_to_nowhere_is_an_output_that_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    page = tmp_path / "page.html"
    page.symlink_to(tmp_path / "nowhere")
    assert main([*RUN, "--out", str(tmp_path), "--html", str(page)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_no_space_for_results_is_said_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    usage = output.shutil.disk_usage(".")
    monkeypatch.setattr(output.shutil, "disk_usage", lambda _path: usage._replace(free=1_000_000))
    assert main([*RUN, "--out", str(tmp_path)]) == 2
    assert "1.0 MB of the disk are left" in capsys.readouterr().err


def test_a_file_that_could_not_be_finished_is_removed(tmp_path: Path):
    with pytest.raises(UnicodeEncodeError):
        output.write_new(tmp_path / "half.html", "\udcff")
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageError):
        output.write_new(tmp_path / "mine", "theirs")
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "stream", "code"),
    [(["schema"], "stdout", 2), (["models", "pull", "nope"], "stderr", 2)],
)
def test_a_stream_that_cannot_be_written_is_no_crash(arguments: list[str], stream: str, code: int):
    command = [sys.executable, "-m", "perjoule", *arguments]
    with Path("/dev/full").open("wb") as full:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {stream: full}
        done = subprocess.run(command, text=True, check=False, **streams)  # type: ignore[call-overload]
    assert done.returncode == code
    assert "Traceback" not in (done.stderr or "")
    assert "bug" not in (done.stderr or "")


def test_signals_are_handled_once_and_handed_back():
    before = signal.getsignal(signal.SIGTERM)
    with interruptible():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)  # impatience while results are saved costs none
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


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


def test_no_path_of_this_machine_is_in_the_command_that_repeats_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    words = [*RUN, "--set", f"backend.folder={tmp_path}/a b", "--meter", f"csv:{tmp_path}/watts.csv"]
    plan = make_plan(build_parser("run").parse_args(words))
    assert str(tmp_path) not in plan.reproduce
    assert "'backend.folder=a b'" in plan.reproduce
    assert "--meter csv:..." in plan.reproduce


def test_a_disk_that_says_no_is_not_called_a_bug(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    page = tmp_path / "folder" / "page.html"
    (tmp_path / "folder").write_text("a file where a folder should be")
    result = tmp_path / "result.json"
    result.write_bytes(encode(make_result()))
    assert main(["show", str(result), "--html", str(page)]) == 2
    assert "bug" not in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error():
    code = "import sys; from perjoule.cli import main; sys.exit(main(['schema']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_a_reader_of_a_table_that_leaves_is_no_error_either(tmp_path: Path):
    result = tmp_path / "result.json"
    result.write_bytes(encode(make_result()))
    command = [sys.executable, "-m", "perjoule", "show", str(result)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_a_terminal_without_the_signs_gets_their_codes(tmp_path: Path):
    result = tmp_path / "result.json"
    result.write_bytes(encode(make_result()))
    command = [sys.executable, "-m", "perjoule", "show", str(result)]
    plain = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, env=plain, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_show_writes_a_report_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    result = tmp_path / "result.json"
    result.write_bytes(encode(make_result()))
    page = tmp_path / "page.html"
    assert main(["show", str(result), "--html", str(page)]) == 0
    assert "<svg" in page.read_text(encoding="utf-8")
    assert main(["show", str(result), "--html", str(page)]) == 2
    assert capsys.readouterr().out == ""
