"""perjoule verify: recompute what a result says from its own samples, and compare."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from perjoule import store
from perjoule.cli.plain import one_line
from perjoule.errors import EXIT_DONE, EXIT_NOT_PUBLISHABLE, PerjouleError, UsageError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="result files, verdicts of claims, or folders of them")
    parser.add_argument(
        "--deep", action="store_true", help="also whether one machine, clock and seed can have given it"
    )


def execute(args: argparse.Namespace) -> int:
    # imported here: `perjoule --help` derives nothing
    from perjoule.publish.found import result_paths  # noqa: PLC0415
    from perjoule.publish.many import each  # noqa: PLC0415
    from perjoule.publish.verdicts import apart  # noqa: PLC0415

    paths, lost = result_paths(args.files, verdicts=True)
    lost += [f"{path}: no such file" for path in paths if not path.is_file()]
    there, verdicts = apart(path for path in paths if path.is_file())
    bad = 0
    for path, (problems, state) in zip(there, each(partial(judged, deep=args.deep), there), strict=True):
        bad += bool(problems)
        _tell(path, problems, state)
    if verdicts:
        from perjoule.cli.verify_verdicts import verdict_judged  # noqa: PLC0415 - judging reads what computes

        for path in verdicts:
            problems, why_not = verdict_judged(path, there)
            bad += bool(problems)
            lost += [f"{path}: {why_not}"] if why_not else []
            _tell(path, problems, "not judged" if why_not else "ok")
    if lost:  # said last, so that one wrong name keeps no other file from being verified
        raise UsageError("; ".join(lost), hint="give result files that `perjoule run` wrote, or folders of them")
    return EXIT_NOT_PUBLISHABLE if bad else EXIT_DONE


def _tell(path: Path, problems: list[str], state: str) -> None:
    print(one_line(f"{path}: {'does not hold' if problems else state}"))  # noqa: T201
    for problem in problems:
        print(f"  {one_line(problem)}")  # noqa: T201


def judged(path: Path, *, deep: bool) -> tuple[list[str], str]:
    """Return what does not hold in the file, and what to say of it if that is nothing."""
    from perjoule.plausibility import implausible  # noqa: PLC0415
    from perjoule.verify import statistics_note, verify  # noqa: PLC0415

    try:
        result = store.load(path)
        problems = verify(result)
        problems += implausible(result) if deep and not problems else []
    except PerjouleError as error:
        return [f"{error.message} ({error.hint})" if error.hint else error.message], ""
    except Exception as error:  # noqa: BLE001 - anybody may have written the file, and it must keep back no other
        return [f"cannot be judged: {type(error).__name__}: {error}"], ""
    invalid = sorted({c.code for c in result.checks if c.severity == "invalid"})
    state = "ok" if result.publishable else f"ok, but not publishable: {', '.join(invalid)}"
    note = statistics_note(result)
    return problems, f"{state}; note: {note}" if note else state
