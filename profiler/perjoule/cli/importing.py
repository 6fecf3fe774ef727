"""perjoule import: records of what another tool measured, kept apart from results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from perjoule.cli.plain import one_line
from perjoule.errors import EXIT_DONE

if TYPE_CHECKING:
    import argparse

FORMATS = ("llama-bench", "optimum-benchmark")
OUT = "perjoule-imported"  # beside ./perjoule-results, so that a folder of results holds results only


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("format", choices=FORMATS, metavar="|".join(FORMATS), help="the tool that wrote the file")
    parser.add_argument("file", metavar="FILE", help="llama-bench: JSON, JSON Lines or CSV; else benchmark.json")
    parser.add_argument("--out", metavar="DIR", default=OUT, help=f"where the records go; default: {OUT}")


def execute(args: argparse.Namespace) -> int:
    # imported here: `perjoule --help` reads nothing
    from perjoule.interchange import save_imported  # noqa: PLC0415
    from perjoule.interchange.llama_bench import read_llama_bench  # noqa: PLC0415
    from perjoule.interchange.optimum_benchmark import read_optimum_benchmark  # noqa: PLC0415

    read = read_llama_bench if args.format == "llama-bench" else read_optimum_benchmark
    records = read(args.file)
    for record in records:
        print(one_line(str(save_imported(record, Path(args.out)))))  # noqa: T201
    said = f"{len(records)} record{'s' * (len(records) != 1)} of {args.format}, not measured by perjoule"
    print(one_line(f"{said}: `perjoule show` prints them, nothing compares or publishes them"), file=sys.stderr)  # noqa: T201
    return EXIT_DONE
