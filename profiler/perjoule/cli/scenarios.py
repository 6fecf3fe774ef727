"""perjoule scenarios: list loads, and say one in words."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from perjoule.scenario import facts, list_scenarios, load_scenario

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from rich.console import RenderableType

    from perjoule.scenario import Scenario

_MOST_COLUMNS = 110  # longer lines are hard to read
_PLAIN_COLUMNS = 100  # where there is no terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="what", metavar="list|show")
    listed = actions.add_parser("list", help="scenarios that ship with perjoule")
    show = actions.add_parser("show", help="explain one")
    show.add_argument("name", metavar="SCENARIO", help="name or .toml path")
    for action in (listed, show):
        action.add_argument("--json", action="store_true", help="for a program: every key, and the same words")


def execute(args: argparse.Namespace) -> int:
    # imported here: `perjoule --help` draws no tables
    from perjoule.render.scenario import explanation, listing  # noqa: PLC0415

    wanted = [load_scenario(name) for name in ([args.name] if args.what == "show" else list_scenarios())]
    if getattr(args, "json", False):
        told = [_as_data(scenario) for scenario in wanted]
        print(json.dumps(told[0] if args.what == "show" else told, indent=2, sort_keys=True))  # noqa: T201
        return 0
    _print(explanation(wanted[0]) if args.what == "show" else [listing(wanted)])
    return 0


def _as_data(scenario: Scenario) -> dict[str, Any]:
    """Return name, version, hash and spec as a result records them, with the explanation and the main metrics."""
    import msgspec  # noqa: PLC0415 - only here

    from perjoule.render.scenario import explained, judged_by  # noqa: PLC0415

    recorded: dict[str, Any] = msgspec.to_builtins(facts(scenario))
    return {**recorded, "explained": explained(scenario), "judged_by": [name for name, _ in judged_by(scenario)]}


def _print(parts: Iterable[RenderableType]) -> None:
    from rich.console import Console, Group  # noqa: PLC0415 - only for people

    console = Console(color_system=None if "NO_COLOR" in os.environ else "auto", highlight=False)
    console.width = min(console.width, _MOST_COLUMNS) if sys.stdout.isatty() else _PLAIN_COLUMNS
    with console.capture() as drawn:
        console.print(Group(*parts))
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in drawn.get().splitlines())
