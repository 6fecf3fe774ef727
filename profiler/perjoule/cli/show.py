"""perjoule show: print results as a table, or as an HTML report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from perjoule import store
from perjoule.cli.cost import CostOptions, add_cost_arguments
from perjoule.render.plain import printable

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="result files, or folders of them")
    parser.add_argument("--html", metavar="OUT", help="write a report for a browser instead")
    add_cost_arguments(parser)


def execute(args: argparse.Namespace) -> int:
    from perjoule.cli.progress import print_summary  # noqa: PLC0415

    cost = CostOptions(args, summary=not args.html)
    from perjoule.cli.output import result_files  # noqa: PLC0415

    results = [store.load(path) for path in result_files(args.files)]
    if args.html:
        from perjoule.cli.output import check_files, write_new  # noqa: PLC0415
        from perjoule.render.html import report  # noqa: PLC0415

        out = Path(args.html)
        check_files([out])
        write_new(out, report(results))
        print(f"written: {printable(args.html)}", file=sys.stderr)  # noqa: T201
        return 0
    print_summary(results, [], cost)
    return 0
