"""perjoule compare: whether a result is better or worse than another, or cannot be told from it."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from perjoule import store
from perjoule.cli.output import check_files, result_files, write_new
from perjoule.errors import InputError, UsageError
from perjoule.render.plain import printable

if TYPE_CHECKING:
    import argparse

    from perjoule.compare import Outcome
    from perjoule.records import RunResult

_VARYING = ("model", "backend", "host", "quant", "threads", "batch", "thinking", "options", "placement")
_MOST = 50  # results: each is compared with each


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="baseline, candidates; or the folder of a run")
    parser.add_argument("--varying", choices=_VARYING, metavar="WHAT",
                        help=f"what is asked about: {', '.join(_VARYING)} (found where one thing differs)")  # fmt: skip
    parser.add_argument("--metric", action="append", default=[], metavar="NAME",
                        help="judge this metric too; may be repeated")  # fmt: skip
    parser.add_argument("--threshold", type=float, default=0.0, metavar="PCT",
                        help="worse means worse by more than this (0)")  # fmt: skip
    parser.add_argument("--allow-invalid", action="store_true", help="compare results that may not be published too")
    parser.add_argument("--json", metavar="FILE|-", help="write the comparison as JSON; - prints it alone")
    parser.add_argument("--markdown", metavar="FILE|-", help="write it for a pull request; - prints it alone")
    parser.add_argument("--html", metavar="FILE", help="write it for a browser, with pictures")


def execute(args: argparse.Namespace) -> int:
    from perjoule.compare import compare  # noqa: PLC0415 - what computes is loaded once options are known
    from perjoule.compare.family import named  # noqa: PLC0415
    from perjoule.render.rows import names  # noqa: PLC0415

    _check(args)
    metrics = named(args.metric)
    results = _load(args.files)
    outcome = compare(
        results, [printable(n) for n in names(results)], varying=args.varying, named=metrics,
        threshold=args.threshold / 100, allow_invalid=args.allow_invalid,
    )  # fmt: skip
    _write(args, outcome)
    return outcome.exit_code


def _check(args: argparse.Namespace) -> None:
    if not 0 <= args.threshold < math.inf:
        raise UsageError("--threshold must be 0 or more per cent", hint="e.g. --threshold 5")
    if args.json == "-" and args.markdown == "-":
        raise UsageError("--json - and --markdown - would print into each other", hint="give one of them a file")
    check_files([Path(p) for p in (args.json, args.markdown, args.html) if p and p != "-"])


def _load(files: list[str]) -> list[RunResult]:
    """Return the results, whole and all different. Raises ``InputError`` and ``UsageError``."""
    from perjoule.store.canonical import canonical_id  # noqa: PLC0415

    paths = result_files(files)
    if len(paths) < 2 or len(paths) > _MOST:  # noqa: PLR2004
        raise UsageError(
            f"{len(paths)} result{'s' * (len(paths) != 1)} given; a comparison is of 2 to {_MOST}",
            hint="give a baseline and a candidate: perjoule compare BASE.json CANDIDATE.json",
        )
    results: list[RunResult] = []
    seen: dict[str, Path] = {}
    for path in paths:
        result = store.load(path)
        try:
            whole = result.id == canonical_id(result)
        except ValueError:
            whole = False
        if not whole:
            raise InputError(
                f"{path}: its content was changed after it was written",
                hint="`perjoule verify` says what does not hold",
            )
        if result.id in seen:
            raise UsageError(f"{path} is the same result as {seen[result.id]}", hint="give two different results")
        seen[result.id] = path
        results.append(result)
    return results


def _write(args: argparse.Namespace, outcome: Outcome) -> None:
    from perjoule.compare import encode  # noqa: PLC0415
    from perjoule.render.comparison import markdown  # noqa: PLC0415

    for target, content in ((args.json, encode), (args.markdown, markdown)):
        if target == "-":
            sys.stdout.write(content(outcome))
        elif target:
            write_new(Path(target), content(outcome))
    if args.html:
        from perjoule.render.comparison_page import page  # noqa: PLC0415

        write_new(Path(args.html), page(outcome))
    if "-" not in (args.json, args.markdown):
        _print(outcome)
    for target in (args.json, args.markdown, args.html):
        if target and target != "-":
            print(f"written: {printable(target)}", file=sys.stderr)  # noqa: T201


def _print(outcome: Outcome) -> None:
    from rich.console import Console  # noqa: PLC0415

    from perjoule.render.comparison import terminal  # noqa: PLC0415

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            """Leave the answer to the command line: a reader that has seen enough is no error."""
            raise BrokenPipeError

    _Console(no_color="NO_COLOR" in os.environ, width=None if sys.stdout.isatty() else 120).print(terminal(outcome))
