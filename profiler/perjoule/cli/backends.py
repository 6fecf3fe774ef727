"""perjoule backends: engines by name, and the command that installs what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule import registry
from perjoule.render.plain import printable

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take no options."""


def execute(args: argparse.Namespace) -> int:
    del args
    for name in registry.names("perjoule.backends"):
        info = registry.backend(name).info()
        state = "available" if info.available else f"missing: {info.install}"
        boards = "" if len(info.devices) < 2 else "; cuda:N (experimental)"  # noqa: PLR2004 - the CPU and more
        print(printable(f"{name:<14} {state:<12} {info.summary}{boards}"))  # noqa: T201
    return 0
