"""perjoule show: print results as a table, or as an HTML report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from perjoule import store
from perjoule.cli.cost import CostOptions, add_cost_arguments
from perjoule.cli.plain import one_line
from perjoule.errors import EXIT_DONE, InputError, UsageError
from perjoule.render.plain import printable
from perjoule.store.read import ImportedError

if TYPE_CHECKING:
    import argparse

    from perjoule.interchange import ImportedRecord
    from perjoule.records import RunResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="result files, or folders of them")
    parser.add_argument("--html", metavar="OUT", help="write a report for a browser instead")
    add_cost_arguments(parser)


def execute(args: argparse.Namespace) -> int:
    from perjoule.cli.progress import print_summary  # noqa: PLC0415

    cost = CostOptions(args, summary=not args.html)
    from perjoule.cli.output import result_files  # noqa: PLC0415

    results, imported, refused = _read(result_files(args.files))
    if refused and not results and not imported:
        raise refused[0]
    if args.html and imported:
        raise UsageError(
            "--html makes a report of results, and a record of another tool is none", hint="leave out what was imported"
        )
    if args.html:
        from perjoule.cli.output import check_files, write_new  # noqa: PLC0415
        from perjoule.render.html import report  # noqa: PLC0415

        out = Path(args.html)
        check_files([out])
        write_new(out, report(results))
        print(f"written: {printable(args.html)}", file=sys.stderr)  # noqa: T201
        return _said(refused)
    if results:
        print_summary(results, [], cost)
    if imported:
        from perjoule.interchange.shown import lines  # noqa: PLC0415

        for line in (line for record in imported for line in lines(record)):
            print(line)  # noqa: T201
    return _said(refused)


def _said(refused: list[InputError]) -> int:
    """Name the files that could not be read; return the exit status."""
    for error in refused:
        print(one_line(f"not shown: {error}"), file=sys.stderr)  # noqa: T201
    return refused[0].exit_code if refused else EXIT_DONE


def _read(paths: list[Path]) -> tuple[list[RunResult], list[ImportedRecord], list[InputError]]:
    """Return the results, apart from them what was imported from other tools, and why the other files are neither."""
    from perjoule.interchange import load_imported  # noqa: PLC0415

    results: list[RunResult] = []
    imported: list[ImportedRecord] = []
    refused: list[InputError] = []
    for path in paths:
        try:
            results.append(store.load(path))
        except ImportedError:
            imported.append(load_imported(path))
        except InputError as error:
            refused.append(error)
    return results, imported, refused
