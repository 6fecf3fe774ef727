"""perjoule query: SQL over the results in a folder."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from perjoule.cli.output import DEFAULT_OUT
from perjoule.cli.plain import one_line
from perjoule.errors import EXIT_DONE, UsageError

if TYPE_CHECKING:
    import argparse

_WIDEST = 48  # characters of a cell in a table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sql", metavar="SQL", help="a statement over the view `results`: SELECT model, ttft_s FROM results"
    )
    parser.add_argument("folder", nargs="*", default=[DEFAULT_OUT], metavar="FOLDER", help=f"default: {DEFAULT_OUT}")
    parser.add_argument("--json", action="store_true", help="for a program: JSON Lines, one row a line")


def execute(args: argparse.Namespace) -> int:
    # imported here: `perjoule --help` needs no database
    from perjoule.publish.rows import rows_of  # noqa: PLC0415
    from perjoule.store.query import query  # noqa: PLC0415

    rows, problems = rows_of(args.folder)
    if not rows:
        why = f" ({problems[0]})" if problems else ""
        raise UsageError(
            f"no results in {', '.join(args.folder)}{why}", hint="name the folder: perjoule query SQL FOLDER"
        )
    columns, found = query(args.sql, rows)
    if args.json:
        _print_json(columns, found)
    else:
        _print_table(columns, found)
    for problem in problems:
        print(one_line(f"not read: {problem}"), file=sys.stderr)  # noqa: T201
    return EXIT_DONE


def _print_json(columns: list[str], found: list[tuple[Any, ...]]) -> None:
    import msgspec  # noqa: PLC0415

    for row in found:
        print(msgspec.json.encode(dict(zip(columns, row, strict=True)), enc_hook=str).decode())  # noqa: T201


def _print_table(columns: list[str], found: list[tuple[Any, ...]]) -> None:
    shown = [[_cell(value) for value in row] for row in [tuple(columns), *found]]
    widths = [max(len(row[i]) for row in shown) for i in range(len(columns))]
    for row in shown:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        print(line.rstrip())  # noqa: T201


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else one_line(str(value))
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."
