"""perjoule publish: check results, take out what is private, put them into a folder, and make its pages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from perjoule.cli.plain import one_line
from perjoule.errors import EXIT_DONE, EXIT_NOT_PUBLISHABLE, EXIT_USAGE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from perjoule.publish.batch import Outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        metavar="RESULT",
        help="result files, verdicts of claims, or folders of them; none: only make the pages again",
    )
    parser.add_argument("--to", required=True, metavar="DIR", help="the published folder, made if it is not there")
    parser.add_argument(
        "--not-private",
        action="append",
        default=[],
        metavar="TEXT",
        help="what looks private and is not; may be repeated",
    )


def execute(args: argparse.Namespace) -> int:
    # imported here: `perjoule --help` reads no result
    from perjoule.cli.output import check_folder  # noqa: PLC0415
    from perjoule.publish.batch import INDEX, publish  # noqa: PLC0415
    from perjoule.publish.found import SITE  # noqa: PLC0415
    from perjoule.publish.index import encode_index  # noqa: PLC0415
    from perjoule.publish.private import identity  # noqa: PLC0415
    from perjoule.publish.site import own_pages, write_site  # noqa: PLC0415
    from perjoule.render.site import pages  # noqa: PLC0415

    folder = Path(args.to)
    site = folder / SITE
    own_pages(site)  # another tool's site is found before anything is written
    check_folder(folder)
    outcome = publish(args.files, folder, identity(tuple(args.not_private)))
    found = ((page.name, page.key, page.render) for page in pages(outcome.entries, outcome.verdicts))
    write_site(site, found, {INDEX: encode_index(outcome.entries, outcome.verdicts)})
    _tell(outcome, folder, site)
    if outcome.refused:
        return EXIT_NOT_PUBLISHABLE
    return EXIT_USAGE if outcome.unreadable else EXIT_DONE


def _tell(outcome: Outcome, folder: Path, site: Path) -> None:
    for path in outcome.written:
        print(one_line(str(folder / path)))  # noqa: T201
        if path in outcome.scrubbed:
            _say(f"taken out of {path}: what looked private in {', '.join(outcome.scrubbed[path])}; its id is new")
    for path, note in outcome.notes:
        _say(f"note: {path}: {note}")
    for path, there in outcome.twice:
        _say(f"note: {path} is published already: {there}")
    for path in outcome.unreadable:
        _say(f"not read: {path}")
    _reasons("warning: stands in the folder and is shown on no page:", outcome.standing)
    _reasons("not published:", outcome.refused)
    if outcome.refused:
        _say("hint: measure again where a check says so; --not-private TEXT lets pass what only looks private")
    _say(
        f"{len(outcome.written)} published, {len(outcome.twice)} there already, {len(outcome.refused)} refused, "
        f"{len(outcome.unreadable)} not read; open {site / 'index.html'}"
    )


def _reasons(head: str, files: Iterable[tuple[str, tuple[str, ...]]]) -> None:
    for path, reasons in files:
        _say(f"{head} {path}")
        for reason in reasons:
            _say(f"  {reason}")


def _say(text: str) -> None:
    print(one_line(text), file=sys.stderr)  # noqa: T201
