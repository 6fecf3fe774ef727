"""Install groups: what can be said of them without installing. Requirements parse, and groups shown together can be."""

from __future__ import annotations

import re
import tomllib
from itertools import combinations
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from perjoule import registry

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "install-groups.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
NAMED = re.compile(r"perjoule\[([a-z][a-z, -]*)\]")
SAME_MODULE = {"onnxruntime", "onnxruntime-gpu"}  # two distributions that own one module
# What a package of an extra itself requires, where it decides which extras can be together (its own metadata).
BROUGHT_ALONG = {"onnxruntime-genai": ["onnxruntime>=1.31"], "optimum-onnx": ["transformers>=4.36,<4.58"]}


def groups(path: Path) -> list[tuple[str, ...]]:
    """Return the extras of each install command of a file."""
    text = path.read_text(encoding="utf-8")
    return [tuple(name.strip() for name in found.split(",")) for found in NAMED.findall(text)]


def requirements(extras: tuple[str, ...]) -> list[Requirement]:
    """Return what an installation with these extras asks for, perjoule's own needs included."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    direct = [Requirement(line) for line in lines]
    return direct + [Requirement(line) for r in direct for line in BROUGHT_ALONG.get(canonicalize_name(r.name), [])]


def can_be_met(specifiers: SpecifierSet) -> bool:
    """Tell whether a version fits: one that is named, or one just above or below a named one."""
    named = [Version(re.sub(r"\.\*$", "", s.version)) for s in specifiers]
    tried = [Version("0"), *named, *(Version(f"{version.public}.0.1") for version in named)]
    return not named or any(specifiers.contains(version, prereleases=True) for version in tried)


SHOWN = groups(PAGE)


def test_every_requirement_of_every_extra_can_be_read() -> None:
    lines = [line for extra in EXTRAS.values() for line in extra]
    assert lines
    for line in lines:
        assert can_be_met(Requirement(line).specifier), line


def test_the_page_names_every_extra() -> None:
    assert len(SHOWN) >= 4
    text = PAGE.read_text(encoding="utf-8")
    assert [extra for extra in EXTRAS if f"`{extra}`" not in text] == []


@pytest.mark.parametrize("extras", SHOWN, ids=",".join)
def test_groups_shown_together_pin_nothing_apart(extras: tuple[str, ...]) -> None:
    ranges: dict[str, SpecifierSet] = {}
    for requirement in requirements(extras):
        name = canonicalize_name(requirement.name)
        ranges[name] = ranges.get(name, SpecifierSet()) & requirement.specifier
    assert {name: str(specifiers) for name, specifiers in ranges.items() if not can_be_met(specifiers)} == {}
    assert not ranges.keys() >= SAME_MODULE


@pytest.mark.parametrize("extra", ["cpu", "genai", "optimum"])
def test_the_page_warns_of_two_packages_with_one_module(extra: str) -> None:
    names = {canonicalize_name(r.name) for r in requirements(("cuda", extra))}
    assert names >= SAME_MODULE
    warning = PAGE.read_text(encoding="utf-8").partition("## Not together")[2]
    assert f"`{extra}`" in warning.partition("\n- ")[2].partition("\n- ")[0]


def test_no_other_pair_of_extras_shares_a_module() -> None:
    apart = {
        pair
        for pair in combinations(sorted(EXTRAS), 2)
        if {canonicalize_name(r.name) for r in requirements(pair)} >= SAME_MODULE
    }
    assert apart == {("cpu", "cuda"), ("cuda", "genai"), ("cuda", "optimum")}


@pytest.mark.parametrize(
    ("specifiers", "fits"),
    [("", True), (">=1,<2", True), (">1,<1.1", True), (">=2,<2", False), (">=4.57,<4.58,>=5", False), ("==1.*", True)],
)
def test_ranges_are_told_apart(specifiers: str, fits: bool) -> None:
    assert can_be_met(SpecifierSet(specifiers)) is fits


@pytest.mark.parametrize("name", registry.names("perjoule.backends"))
def test_the_install_command_of_a_backend_names_real_extras(name: str) -> None:
    info = registry.backend(name).info()
    named = NAMED.findall(info.install)
    assert named or info.available, f"{name} is missing and nothing says how to get it"
    assert {extra.strip() for group in named for extra in group.split(",")} <= set(EXTRAS)


def test_every_extra_named_anywhere_is_one() -> None:
    files = [p for top in ("profiler", "backends") for p in (ROOT / top).rglob("*.py")]
    files += [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = {(path.name, extra) for path in files for group in groups(path) for extra in group}
    assert len(named) > 5
    assert {pair for pair in named if pair[1] not in EXTRAS} == set()
