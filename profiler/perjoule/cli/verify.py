"""perjoule verify: recompute what a result says from its own samples, and compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule import store
from perjoule.errors import EXIT_DONE, EXIT_NOT_PUBLISHABLE, PerjouleError, UsageError
from perjoule.render.plain import printable

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="result files, or folders of them")
    parser.add_argument(
        "--deep", action="store_true", help="also whether one machine, clock and seed can have given it"
    )


def execute(args: argparse.Namespace) -> int:
    # imported here: `perjoule --help` derives nothing
    from perjoule.publish.found import result_paths  # noqa: PLC0415

    paths, lost = result_paths(args.files)
    lost += [f"{path}: no such file" for path in paths if not path.is_file()]
    bad = 0
    for path in (p for p in paths if p.is_file()):
        problems, state = _judged(path, deep=args.deep)
        bad += bool(problems)
        print(printable(f"{path}: {'does not hold' if problems else state}"))  # noqa: T201
        for problem in problems:
            print(printable(f"  {problem}"))  # noqa: T201
    if lost:  # said last, so that one wrong name keeps no other file from being verified
        raise UsageError("; ".join(lost), hint="give result files that `perjoule run` wrote, or folders of them")
    return EXIT_NOT_PUBLISHABLE if bad else EXIT_DONE


def _judged(path: Path, *, deep: bool) -> tuple[list[str], str]:
    """Return what does not hold in the file, and what to say of it if that is nothing."""
    from perjoule.plausibility import implausible  # noqa: PLC0415
    from perjoule.verify import verify  # noqa: PLC0415

    try:
        result = store.load(path)
        problems = verify(result)
        problems += implausible(result) if deep and not problems else []
    except PerjouleError as error:
        return [error.message], ""
    if result.publishable:
        return problems, "ok"
    invalid = sorted({c.code for c in result.checks if c.severity == "invalid"})
    return problems, f"ok, but not publishable: {', '.join(invalid)}"
