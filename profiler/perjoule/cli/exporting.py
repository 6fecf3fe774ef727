"""perjoule export: results in the forms of others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from perjoule import store
from perjoule.cli.plain import one_line
from perjoule.errors import EXIT_DONE, InputError

if TYPE_CHECKING:
    import argparse

    from perjoule.records import RunResult

FORMATS = ("mlcommons-energy", "csv", "github-summary")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("format", choices=FORMATS, metavar="|".join(FORMATS), help="what to write")
    parser.add_argument("results", nargs="+", metavar="RESULT", help="result files, or folders of them")
    parser.add_argument("--out", metavar="FILE|-", default="-", help="default: -, standard output")


def execute(args: argparse.Namespace) -> int:
    # imported here: `perjoule --help` derives nothing
    from perjoule.cli.output import check_files, write_new  # noqa: PLC0415
    from perjoule.publish.found import result_paths  # noqa: PLC0415

    if args.out != "-":
        check_files([Path(args.out)])
    paths, problems = result_paths(args.results)
    if problems:
        raise InputError(problems[0], hint="give result files, or the folder of a run")
    text = _text(args.format, [(path, store.load(path)) for path in paths])
    if args.out == "-":
        sys.stdout.write(text)
    else:
        write_new(Path(args.out), text)
        print(one_line(f"written: {args.out}"), file=sys.stderr)  # noqa: T201
    return EXIT_DONE


def _text(form: str, results: list[tuple[Path, RunResult]]) -> str:
    if form == "csv":
        from perjoule.interchange.table import csv_text  # noqa: PLC0415

        return csv_text(results)
    if form == "github-summary":
        from perjoule.interchange.github_summary import summary  # noqa: PLC0415

        return summary([result for _, result in results])
    from perjoule.interchange.mlcommons_energy import documents  # noqa: PLC0415

    return documents([result for _, result in results])
