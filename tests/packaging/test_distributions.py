"""What is in the wheel and in the source distribution, built here without a network."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import perjoule

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "perjoule": ROOT / "profiler",
    "perjoule_backends": ROOT / "backends",
    "perjoule_scenarios": ROOT / "scenarios",
}


def build(target: str, folder: Path, source: Path = ROOT) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=source, capture_output=True, check=True)
    [built] = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", tmp_path_factory.mktemp("sdist"))


def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_three_packages_whole_and_nothing_else(wheel: Path):
    expected = {
        path.relative_to(root).as_posix()
        for package, root in PACKAGES.items()
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = {name for name in members(wheel) if ".dist-info/" not in name}
    assert found == expected


@pytest.mark.parametrize(
    "name",
    [
        "perjoule/py.typed",
        "perjoule/meters/coefficients.toml",
        "perjoule/render/assets/report.html.jinja",
        "perjoule_backends/checkpoints/catalogue.toml",
        "perjoule_backends/checkpoints/mirrors.toml",
        "perjoule_scenarios/quickstart.toml",
        "perjoule_scenarios/corpora/udhr-en.txt",
        "perjoule_scenarios/corpora/languages.toml",
        "perjoule_scenarios/tasks/order-total.toml",
        "perjoule_scenarios/claims/qwen-low-power.toml",
    ],
)
def test_data_files_are_in_the_wheel(wheel: Path, name: str):
    assert name in members(wheel)


def test_the_wheel_says_what_it_is(wheel: Path):
    assert wheel.name == f"perjoule-{perjoule.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        said = Parser().parsestr(archive.read(metadata).decode())
        [scripts] = [n for n in archive.namelist() if n.endswith(".dist-info/entry_points.txt")]
        assert "perjoule = perjoule.cli:main" in archive.read(scripts).decode()
    assert said["License-Expression"] == "Apache-2.0"
    assert said["Requires-Python"] == ">=3.11"
    assert not [n for n in said.get_all("Provides-Extra", []) if n in ("dev", "test")]


def test_the_sdist_builds_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    [source] = (tmp_path / "source").iterdir()
    assert members(build("wheel", tmp_path / "rebuilt", source)) == members(wheel)
    assert {"Makefile", "LICENSE", "README.md", "CHANGELOG.md", "tests", "docs"} <= {p.name for p in source.iterdir()}


def test_the_changelog_knows_this_version():
    assert f"## {perjoule.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
