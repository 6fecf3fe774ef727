"""perjoule upgrade: older result files in the newest version, as new files beside them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from perjoule.cli.plain import one_line
from perjoule.errors import EXIT_DONE, EXIT_USAGE, PerjouleError

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="result files, or folders of them")
    parser.add_argument("--out", metavar="DIR", help="where the new files go; default: beside the old ones")


def execute(args: argparse.Namespace) -> int:
    # imported here: `perjoule --help` derives nothing
    from perjoule.publish.found import result_paths  # noqa: PLC0415
    from perjoule.store import save  # noqa: PLC0415
    from perjoule.upgrade import upgraded  # noqa: PLC0415

    paths, problems = result_paths(args.files)
    for path in paths:
        try:
            result, steps = upgraded(path)
            print(one_line(str(save(result, Path(args.out) if args.out else path.parent))))  # noqa: T201
            print(one_line(f"{path}: {steps}"), file=sys.stderr)  # noqa: T201
        except PerjouleError as error:
            problems.append(error.message)
        except Exception as error:  # noqa: BLE001 - anybody may have written the file, and it must keep back no other
            problems.append(f"{path}: its numbers cannot be computed again: {type(error).__name__}: {error}")
    for problem in problems:  # one bad file does not keep back the others; all are told at the end
        print(one_line(f"not upgraded: {problem}"), file=sys.stderr)  # noqa: T201
    return EXIT_USAGE if problems else EXIT_DONE
