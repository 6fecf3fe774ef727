"""perjoule claim: does a stated claim hold on this machine; measures what is missing, then judges."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from perjoule import store
from perjoule.claims.claim import Claim, list_claims, load_claim
from perjoule.cli.output import DEFAULT_OUT, check_files, check_folder, result_files, write_new
from perjoule.errors import InputError, PerjouleError, UsageError
from perjoule.render.plain import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from perjoule.claims.verdict import Verdict
    from perjoule.records import RunResult

_PARTS_OF_MARGIN = 4  # the half-width that is aimed at: with twice the margin, or none of it, the margin is outside


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("claim", nargs="?", metavar="CLAIM", help="name or .toml path; without one, those that ship")
    parser.add_argument("results", nargs="*", metavar="RESULT", help="judge these, or the results in a folder, alone")
    parser.add_argument("--show", action="store_true", help="print what the claim says and how it is measured")
    parser.add_argument("--quick", action="store_true", help="measure its quick scenario; exploratory")
    parser.add_argument("--exploratory", action="store_true",
                        help="also judge results that are older than the claim, and say so")  # fmt: skip
    parser.add_argument("--out", metavar="DIR", help="where results and the verdict go (./perjoule-results/claim-NAME)")
    parser.add_argument("--html", metavar="FILE", help="also write a page for a reader")
    parser.add_argument("--json", metavar="FILE|-", help="write the verdict as JSON; - prints it alone")


def execute(args: argparse.Namespace) -> int:
    if args.claim is None:
        return _list()
    claim = load_claim(args.claim)
    if args.show:
        return _show(claim)
    check_files([Path(p) for p in (args.json, args.html) if p and p != "-"])
    exploratory = args.exploratory or args.quick
    results = _load(args.results) if args.results else _measured(claim, args)
    from perjoule.claims.choose import choose  # noqa: PLC0415 - what computes is loaded once options are known
    from perjoule.claims.judge import exit_code, judge  # noqa: PLC0415

    verdict = judge(claim, choose(claim, results, exploratory=exploratory))
    _write(args, verdict)
    if args.out or not args.results:
        _keep(_folder(claim, args), verdict)
    return exit_code(verdict)


def _folder(claim: Claim, args: argparse.Namespace) -> Path:
    return Path(args.out or f"{DEFAULT_OUT}/claim-{claim.name}")


def _list() -> int:
    for name in list_claims():
        print(printable(f"{name:<30} {load_claim(name).statement}"))  # noqa: T201
    return 0


def _show(claim: Claim) -> int:
    lines = [
        f"{claim.name}, version {claim.version}, registered {claim.registered_utc}",
        f"sha256 {claim.sha256}",
        claim.statement,
        f"scope: {claim.scope}",
        f"judged by {claim.metric}, margin {claim.margin:.0%}",
        *(f"side: {side.said}: {side.model} on {side.backend}, {side.quant}" for side in claim.sides),
        f"measures what is missing: perjoule {' '.join(run_arguments(claim, quick=False))}",
        f"--quick: perjoule {' '.join(run_arguments(claim, quick=True))}",
    ]
    for line in lines:
        print(printable(line))  # noqa: T201
    return 0


def run_arguments(claim: Claim, *, quick: bool) -> list[str]:
    """Return the command that measures all sides in turn, as ``perjoule run`` takes it."""
    stopping = claim.stopping
    scenario = claim.quick_scenario if quick else claim.scenario
    words = ["run", scenario]
    for model in dict.fromkeys(side.model for side in claim.sides):
        words += ["--model", model]
    for backend in dict.fromkeys(side.backend for side in claim.sides):
        words += ["--backend", backend]
    words += ["--quant", ",".join(dict.fromkeys(side.quant for side in claim.sides))]
    threads = dict.fromkeys(side.threads for side in claim.sides if side.threads is not None)
    words += ["--threads", ",".join(map(str, threads))] if threads else []
    budget = stopping.quick_time_budget_s if quick else stopping.time_budget_s
    words += ["--rigor", "quick" if quick else stopping.rigor, "--time-budget", f"{budget:g}"]
    return [*words, "--set", f"target_half_width={min(0.05, claim.margin / _PARTS_OF_MARGIN):g}"]


def _measured(claim: Claim, args: argparse.Namespace) -> list[RunResult]:
    """Return the results in the claim's folder, after measuring the sides that none of them covers.

    All sides are measured again where one is missing: only what was measured in turn is compared in pairs.
    """
    from perjoule.claims.choose import is_wanted, missing_sides  # noqa: PLC0415
    from perjoule.claims.verdict_file import is_verdict  # noqa: PLC0415
    from perjoule.cli import build_parser  # noqa: PLC0415

    out = _folder(claim, args)
    results = _load([str(out)]) if any(not is_verdict(path) for path in out.glob("*.json")) else []
    if not missing_sides(claim, results, quick=args.quick):
        return [r for r in results if is_wanted(claim, r, quick=args.quick)]
    words = [*run_arguments(claim, quick=args.quick), "--out", str(out)]
    print(printable(f"measuring: perjoule {' '.join(words)}"), file=sys.stderr)  # noqa: T201
    parsed = build_parser("run").parse_args(words)
    parsed.action(parsed)
    return [r for r in _load([str(out)]) if is_wanted(claim, r, quick=args.quick)]


def _load(names: Sequence[str]) -> list[RunResult]:
    """Return the results; one that cannot be read, or was changed, is named and left out.

    Raises ``InputError`` where none is left.
    """
    from perjoule.store.canonical import canonical_id  # noqa: PLC0415

    found: dict[str, RunResult] = {}
    for path in result_files(list(names)):
        try:
            result = store.load(path)
            if result.id != canonical_id(result):
                raise InputError(f"{path}: its content was changed after it was written", hint="")
        except PerjouleError as error:
            print(printable(f"left out: {error.message}"), file=sys.stderr)  # noqa: T201
            continue
        found.setdefault(result.id, result)
    if not found:
        raise UsageError("no result could be read", hint="give result files, or the folder of a run")
    return list(found.values())


def _keep(folder: Path, verdict: Verdict) -> None:
    """Write the verdict beside the results; its name ends in the hash of what it says, so one that is there is it."""
    from perjoule.claims.verdict_file import encode_verdict, verdict_name  # noqa: PLC0415

    path = folder / f"claim-{verdict_name(verdict)}"
    if not os.path.lexists(path):
        check_folder(folder)
        write_new(path, encode_verdict(verdict).decode())
    print(f"verdict: {printable(str(path))}", file=sys.stderr)  # noqa: T201


def _write(args: argparse.Namespace, verdict: Verdict) -> None:
    if args.json:
        from perjoule.claims.verdict_file import encode_verdict  # noqa: PLC0415

        text = encode_verdict(verdict).decode()
        if args.json == "-":
            sys.stdout.write(text)
        else:
            write_new(Path(args.json), text)
    if args.html:
        from perjoule.render.claim_page import page  # noqa: PLC0415

        write_new(Path(args.html), page(verdict))
    if args.json != "-":
        from rich.console import Console  # noqa: PLC0415

        from perjoule.render.claim import terminal  # noqa: PLC0415

        width = None if sys.stdout.isatty() else 120
        Console(no_color="NO_COLOR" in os.environ, width=width).print(terminal(verdict))
    for target in (args.json, args.html):
        if target and target != "-":
            print(f"written: {printable(target)}", file=sys.stderr)  # noqa: T201
