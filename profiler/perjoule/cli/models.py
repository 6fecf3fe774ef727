"""perjoule models: list, fetch and describe checkpoints."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from perjoule import registry
from perjoule.cli.run import checked_threads
from perjoule.protocols import EngineOptions
from perjoule.render.format import significant, size
from perjoule.render.plain import printable

if TYPE_CHECKING:
    import argparse

_ENGINE = "onnxruntime"  # the backend that owns the catalogue


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="what", metavar="list|pull|info")
    actions.add_parser("list", help="checkpoints known by name")
    pull = actions.add_parser("pull", help="fetch into the cache and check the hash")
    pull.add_argument("refs", nargs="+", metavar="REF")
    info = actions.add_parser("info", help="what a checkpoint is")
    info.add_argument("ref", metavar="REF")
    info.add_argument("--fidelity", action="store_true", help="also measure KL against the file's own weights in fp32")
    info.add_argument("--quant", default="faithful", metavar="Q")
    info.add_argument("--threads", type=int, metavar="N")


def execute(args: argparse.Namespace) -> int:
    engine: Any = registry.backend(_ENGINE)
    if args.what == "pull":
        for ref in args.refs:
            print(printable(engine.pull(ref, _progress)))  # noqa: T201
        return 0
    if args.what == "info":
        return _info(engine, args)
    for row in engine.catalogue():
        cached = "cached" if row["cached"] else "-"
        print(f"{row['name']:<40} {row['vendor']:<13} {size(row['file_bytes']):>9}  {cached:<7} {row['license']}")  # noqa: T201
    return 0


def _info(engine: Any, args: argparse.Namespace) -> int:
    threads = checked_threads(args.threads)
    options = EngineOptions(quant=args.quant, threads=threads)
    facts = engine.describe(args.ref, options, _progress)
    if args.fidelity:
        facts["fidelity"] = engine.fidelity(args.ref, options, _progress)
    print(json.dumps(facts, indent=2, ensure_ascii=True))  # noqa: T201
    return 0


_last = ""


def _progress(text: str, share: float | None) -> None:
    global _last  # noqa: PLW0603 - one terminal, one line
    line = text if share is None else f"{text}: {significant(round(100 * share), 3)} %"
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{printable(line)}", end="\n" if share == 1 else "", file=sys.stderr)  # noqa: T201
    elif text != _last:
        print(printable(text), file=sys.stderr)  # noqa: T201
    _last = text
