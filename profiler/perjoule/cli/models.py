"""perjoule models: list, fetch and describe checkpoints."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from perjoule import registry
from perjoule.cli.run import checked_threads
from perjoule.errors import UsageError
from perjoule.protocols import EngineOptions
from perjoule.render.format import significant, size
from perjoule.render.plain import printable

if TYPE_CHECKING:
    import argparse

_ENGINE = "onnxruntime"  # the backend that describes models
_CATALOGUE = "perjoule_backends.checkpoints.listing"  # by name: checkpoints are none of the profiler's own parts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="what", metavar="list|pull|info")
    actions.add_parser("list", help="checkpoints and models known by name, and what can be done with them here")
    pull = actions.add_parser("pull", help="fetch into the cache and check the hash")
    pull.add_argument("refs", nargs="+", metavar="REF")
    info = actions.add_parser("info", help="what a checkpoint is, and how its matrices are kept")
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
    print(_row("NAME", "OR", "VENDOR", "CC", "SIZE", "HERE FROM", "LICENSE"))  # noqa: T201
    for row in import_module(_CATALOGUE).entries():
        print(_line(row))  # noqa: T201
    return 0


def _line(row: dict[str, Any]) -> str:
    """Return a line of the list: name, vendor, size, what can be done here, licence; or why nothing can."""
    weights = size(row["file_bytes"]) if row["file_bytes"] else f"{significant(row['parameters'] / 1e9, 3)} B par."
    can = ", ".join(row["can"]) or "not here"
    line = _row(row["name"], row.get("alias", ""), row["vendor"], row["country"], weights, can, row["license"])
    return f"{line}\n    {row['refusal']}" if row["refusal"] else line


def _row(name: str, alias: str, vendor: str, country: str, weights: str, can: str, terms: str) -> str:
    return f"{name:<34} {alias:<12} {vendor:<13} {country:<2} {weights:>13}  {can:<46} {terms}"


def _info(engine: Any, args: argparse.Namespace) -> int:
    threads = checked_threads(args.threads)
    if args.fidelity and args.ref.startswith("synthetic:"):  # before anything is converted
        raise UsageError(f"{args.ref}: weights drawn at random have no quality to measure", hint="omit --fidelity")
    options = EngineOptions(quant=args.quant, threads=threads)
    prepared = engine.prepare(args.ref, options, _progress)
    facts = msgspec.to_builtins(prepared.model)
    facts["import"] = import_module(_CATALOGUE).import_of(args.ref, prepared.folder, _progress)
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
