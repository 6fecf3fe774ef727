"""What an installed perjoule must do. CI runs this file against the built wheel, outside the repository."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, entry_points, version
from importlib.resources import files
from pathlib import Path

import pytest

from perjoule import __version__

SCRIPT = Path(sys.executable).parent / "perjoule"
HEAVY = {"numpy", "onnx", "onnxruntime", "scipy", "rich", "gguf", "tokenizers", "huggingface_hub", "jinja2"}
FAST = ["--set", "backend.ttft_s=0.004", "--set", "backend.itl_s=0.001", "--set", "new_tokens=8", "--time-budget", "1"]


def perjoule(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, check=False, cwd=folder)


def test_the_version_is_written_in_one_place():
    assert version("perjoule") == __version__
    assert perjoule("--version").stdout == f"perjoule {__version__}\n"


def test_the_command_is_the_entry_point():
    [script] = entry_points(group="console_scripts", name="perjoule")
    assert script.value == "perjoule.cli:main"
    done = perjoule("--help")
    assert done.returncode == 0, done.stderr
    assert "joules" in done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]):
    code = (
        "import sys\nfrom perjoule.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert "perjoule.cli" in done.stderr.split()
    assert HEAVY & set(done.stderr.split()) == set()


@pytest.mark.parametrize("command", [["scenarios", "list"], ["backends"], ["models", "list"], ["schema"]])
def test_what_ships_can_be_listed(command: list[str], tmp_path: Path):
    done = perjoule(*command, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_a_paced_run_needs_no_file_of_the_repository(tmp_path: Path):
    done = perjoule("run", "quickstart", "--backend", "null", "--html", "report.html", *FAST, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    [result] = (tmp_path / "perjoule-results").glob("*.json")
    assert perjoule("verify", str(result)).returncode == 0
    assert (tmp_path / "report.html").stat().st_size > 5000


@pytest.mark.parametrize("package", ["perjoule", "perjoule_backends"])
def test_types_are_published(package: str):
    assert files(package).joinpath("py.typed").is_file()


def test_what_is_required_is_small_and_official():
    required = [
        line.split(";")[0].strip() for line in distribution("perjoule").requires or () if "extra ==" not in line
    ]
    names = {line.split(">")[0].split("=")[0].split("<")[0].strip().lower() for line in required}
    assert "nvidia-ml-py" in names
    assert names & {"torch", "transformers", "onnxruntime", "onnxruntime-gpu", "pynvml", "llama-cpp-python"} == set()


@pytest.mark.parametrize("name", ["torch", "pynvml", "nvidia-cublas"])
def test_nothing_pulls_in(name: str):
    with pytest.raises(PackageNotFoundError):
        version(name)


def test_requirements_agree_with_each_other():
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
