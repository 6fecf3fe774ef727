"""perjoule scenarios: list loads, and say one in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.render.plain import printable
from perjoule.scenario import facts, list_scenarios, load_scenario

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="what", metavar="list|show")
    actions.add_parser("list", help="scenarios that ship with perjoule")
    show = actions.add_parser("show", help="explain one")
    show.add_argument("name", metavar="SCENARIO", help="name or .toml path")


def execute(args: argparse.Namespace) -> int:
    if args.what != "show":
        for name in list_scenarios():
            print(f"{name:<14} {load_scenario(name).description}")  # noqa: T201
        return 0
    scenario = load_scenario(args.name)
    print(printable(  # noqa: T201
        f"{scenario.name} (version {scenario.version})\n{scenario.description}\n\n"
        f"Load: {scenario.shape}; prompts of {scenario.prompt_tokens} tokens from the corpus "
        f"{scenario.corpus!r}, {scenario.new_tokens} new tokens each, end of sequence ignored.\n"
        f"In each fresh process: up to {scenario.max_warmup_requests} warm-up requests until two agree "
        f"within 10 %, then {scenario.requests_per_process} measured ones.\n"
        f"Rigor {scenario.rigor}: at least {scenario.min_processes} processes, then more until the 95 % "
        f"half-width of time per token and time to first token is {scenario.target_half_width:.0%} or "
        f"{scenario.time_budget_s:g} s are spent.\n"
        f"Hash: {facts(scenario).sha256}"
    ))  # fmt: skip
    return 0
