"""docs/cli.md names every command and every option."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from perjoule.cli import COMMANDS, build_parser

DOCS = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")


def options(parser: argparse.ArgumentParser) -> set[str]:
    found: set[str] = set()
    for action in parser._actions:
        found |= {o for o in action.option_strings if o.startswith("--") and o != "--help"}
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                found |= options(sub)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str):
    assert f"perjoule {command}" in DOCS


def test_every_option_is_documented():
    assert {
        o for o in options(build_parser()) if f"{o} " not in DOCS and f"{o}`" not in DOCS and f"{o}]" not in DOCS
    } == set()
