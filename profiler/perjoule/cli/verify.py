"""perjoule verify: recompute what a result says from its own samples, and compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule import store
from perjoule.errors import EXIT_DONE, EXIT_NOT_PUBLISHABLE, PerjouleError, UsageError
from perjoule.render.plain import printable

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="result files, or folders of them")


def execute(args: argparse.Namespace) -> int:
    from perjoule.cli.output import result_files  # noqa: PLC0415
    from perjoule.verify import verify  # noqa: PLC0415

    bad = 0
    for file in result_files(args.files):
        if not file.is_file():
            raise UsageError(f"{file}: no such file", hint="give result files that `perjoule run` wrote")
        state = "ok"
        try:
            result = store.load(file)
            problems = verify(result)
            if not result.publishable:
                invalid = sorted({c.code for c in result.checks if c.severity == "invalid"})
                state = f"ok, but not publishable: {', '.join(invalid)}"
        except PerjouleError as error:
            problems = [error.message]
        bad += bool(problems)
        print(printable(f"{file}: {'does not hold' if problems else state}"))  # noqa: T201
        for problem in problems:
            print(printable(f"  {problem}"))  # noqa: T201
    return EXIT_NOT_PUBLISHABLE if bad else EXIT_DONE
