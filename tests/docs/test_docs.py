"""The docs are held to the program: commands parse, options, links, make targets and variables exist."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

import pytest

from perjoule.cli import COMMANDS, build_parser
from perjoule.scenario import list_scenarios
from perjoule_backends.checkpoints import catalogue

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / n for n in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted((ROOT / "docs").rglob("*.md"))
DOCS += [ROOT / "results" / "README.md"]
PLACEHOLDERS = {"COMMAND": "run", "SCENARIO": "quickstart", "REF": "smollm2", "NAME": "quickstart", "FILE": "a.json"}


def code(path: Path) -> list[str]:
    """Return a document's lines of code: indented or fenced ones, and inline spans."""
    found: list[str] = []
    fenced = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            found.append(line.strip())
        else:
            found += re.findall(r"`([^`]+)`", line)
    return found


def commands(path: Path) -> list[str]:
    lines = (line.split(" #")[0].strip() for line in code(path))
    return [line for line in lines if re.match(r"perjoule [a-z-]", line)]


ALL_COMMANDS = [pytest.param(c, id=f"{d.name}: {c}") for d in DOCS for c in commands(d)]


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_every_command_parses(command: str):
    words = command.replace("[", "").replace("]", "").replace("...", "").split()[1:]
    words = [PLACEHOLDERS.get(word, word) for word in words]
    if len(words) == 1 and words[0] in COMMANDS:  # named in a sentence, not shown to be typed
        return
    if words[-1] in ("--help", "--version"):
        with pytest.raises(SystemExit) as left:
            build_parser().parse_args(words)
        assert left.value.code == 0
        return
    args = build_parser().parse_args(words)
    assert args.command == words[0]
    named = getattr(args, "scenario", None) or []
    for scenario in [named] if isinstance(named, str) else named:
        assert scenario in list_scenarios() or scenario.endswith(".toml")
    models = getattr(args, "model", None) or []
    for ref in [models] if isinstance(models, str) else models:
        assert ref.endswith(".gguf") or catalogue.find(ref)


def test_the_readme_shows_commands():
    assert len(commands(ROOT / "README.md")) >= 5


def known_options(parser: argparse.ArgumentParser) -> set[str]:
    found: set[str] = set()
    for action in parser._actions:
        found |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            found |= {option for sub in action.choices.values() for option in known_options(sub)}
    return found


def test_options_in_the_docs_exist():
    spans = [(d.name, s) for d in DOCS for s in code(d) if s.startswith(("--", "perjoule "))]
    named = {(name, option) for name, span in spans for option in re.findall(r"--[a-z][a-z0-9-]+", span)}
    assert len(named) > 10
    assert {pair for pair in named if pair[1] not in known_options(build_parser())} == set()


def test_links_lead_somewhere():
    pairs = [(d, link) for d in DOCS for link in re.findall(r"\]\(([^)#]+)", d.read_text(encoding="utf-8"))]
    assert pairs
    assert [(d.name, link) for d, link in pairs if "://" not in link and not (d.parent / link).exists()] == []


def test_files_named_in_the_docs_exist():
    tops = ("profiler/", "backends/", "scenarios/", "results/", "tests/", "docs/", "benchmarks/")
    named = [(d.name, s) for d in DOCS for s in code(d) if s.startswith(tops) and not re.search(r"[<*{ ]", s)]
    assert named
    assert [pair for pair in named if not (ROOT / pair[1]).exists()] == []


def test_make_targets_in_the_docs_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = {m[1] for d in DOCS for line in code(d) if (m := re.match(r"make ([a-z-]+)", line))}
    assert {"demo", "test", "test-all", "lint"} <= named
    assert named - targets == set()


def test_every_variable_is_documented_and_read():
    sources = [p for top in ("profiler", "backends") for p in (ROOT / top).rglob("*.py")]
    read = {v for p in sources for v in re.findall(r"\bPERJOULE_[A-Z]+\b", p.read_text(encoding="utf-8"))}
    said = set(re.findall(r"\bPERJOULE_[A-Z]+\b", (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")))
    assert read == said


@pytest.mark.skipif(not os.access(ROOT / ".ci" / "run", os.R_OK), reason="not in a source distribution")
def test_ci_can_be_run():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
