"""perjoule schema: the JSON Schema of a run result."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from perjoule.store.schema import run_schema

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take no options."""


def execute(args: argparse.Namespace) -> int:
    del args
    print(json.dumps(run_schema(), indent=2, sort_keys=True))  # noqa: T201
    return 0
