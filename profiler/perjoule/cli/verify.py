"""perjoule verify: recompute what a result says from its own samples, and compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from perjoule import store
from perjoule.errors import EXIT_DONE, EXIT_NOT_PUBLISHABLE, PerjouleError
from perjoule.render.plain import printable

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="result files")


def execute(args: argparse.Namespace) -> int:
    from perjoule.verify import verify  # noqa: PLC0415

    bad = 0
    for file in args.files:
        try:
            problems = verify(store.load(Path(file)))
        except PerjouleError as error:
            problems = [error.message]
        bad += bool(problems)
        print(printable(f"{file}: {'ok' if not problems else 'does not hold'}"))  # noqa: T201
        for problem in problems:
            print(printable(f"  {problem}"))  # noqa: T201
    return EXIT_NOT_PUBLISHABLE if bad else EXIT_DONE
