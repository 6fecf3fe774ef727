"""perjoule doctor: what can be measured on this machine, what was refused, and what would allow it."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from perjoule.cli.output import check_files, write_new

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from perjoule.examine import Examination

_PLAIN_COLUMNS = 100  # where the output is no terminal
_MOST_COLUMNS = 110  # longer lines are hard to read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--meter", action="append", metavar="NAME", help="examine this meter; default: every sensor")
    parser.add_argument("--explain", action="store_true", help="derive what joules without a sensor rest on")
    parser.add_argument(
        "--quick", action="store_true", help="leave out what takes time: ticks, idle power, noise, peaks"
    )
    parser.add_argument("--json", metavar="FILE|-", help="write everything as JSON; - is standard output, alone")


def execute(args: argparse.Namespace) -> int:
    from perjoule.clock import MonotonicClock  # noqa: PLC0415 - only here
    from perjoule.examine import examine  # noqa: PLC0415
    from perjoule.lock import machine_lock  # noqa: PLC0415

    to_file = bool(args.json) and args.json != "-"
    if to_file:
        check_files([Path(args.json)])
    with ExitStack() as stack:
        tell = stack.enter_context(_teller())
        if not args.quick:  # what takes time is measured, alone
            stack.enter_context(machine_lock("perjoule doctor", tell=_say))
        found = examine(args.meter, MonotonicClock(), quick=args.quick, tell=tell)
    if to_file:
        write_new(Path(args.json), _as_json(found))
    if args.json == "-":
        sys.stdout.write(_as_json(found))
    else:
        _print(found, explained=args.explain)
    return 0


def _as_json(found: Examination) -> str:
    import msgspec  # noqa: PLC0415 - only here

    return json.dumps(msgspec.to_builtins(found), indent=2, sort_keys=True) + "\n"


def _print(found: Examination, *, explained: bool) -> None:
    from rich.console import Console  # noqa: PLC0415 - only for people

    from perjoule.render.doctor import report  # noqa: PLC0415

    console = Console(color_system=None if "NO_COLOR" in os.environ else "auto", highlight=False)
    console.width = min(console.width, _MOST_COLUMNS) if sys.stdout.isatty() else _PLAIN_COLUMNS
    shown = report(found, width=console.width, explained=explained)
    if console.color_system is not None:
        console.print(shown)
        return
    with console.capture() as plain:
        console.print(shown)
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in plain.get().splitlines())


def _say(text: str) -> None:
    """Tell who is waited for, on a terminal or not: it may take an hour."""
    sys.stderr.write(f"{text}\n")


@contextmanager
def _teller() -> Iterator[Callable[[str], None]]:
    """Yield what shows the present step on a terminal: one line, drawn once a step, gone in the end."""
    from rich.console import Console  # noqa: PLC0415 - only for people
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(stderr=True, color_system=None if "NO_COLOR" in os.environ else "auto")
    if not console.is_terminal:
        yield lambda _text: None
        return
    # no thread that redraws: it would be heard as noise, and counted as the harness's own cost
    with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False) as live:
        yield lambda text: live.update(Text(f"{text} ...", style="dim"), refresh=True)
