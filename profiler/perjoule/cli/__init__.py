"""The command line: one module per subcommand. Results go to standard output, everything else to standard error."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from typing import NoReturn

from perjoule import __version__
from perjoule.cli.signals import interruptible
from perjoule.errors import EXIT_ENGINE, EXIT_INTERRUPTED, EXIT_USAGE, HostError, PerjouleError, UsageError

# name: one line for `perjoule --help`; the module of the same name is imported only when it is called
COMMANDS = {
    "run": "measure a model: time, memory, joules",
    "tune": "find the configuration of least energy (or latency) that meets a limit",
    "show": "print results",
    "compare": "is a result better or worse than another, or not to be told from it",
    "claim": "does a stated claim hold here: measure what is missing, then judge",
    "verify": "check that results are whole and follow from their samples",
    "publish": "check results, take out what is private, and put them on a static site",
    "query": "SQL over the results in a folder",
    "upgrade": "write older results in the newest version",
    "import": "keep what llama-bench or optimum-benchmark measured, apart from results",
    "export": "results as CSV, for a workflow's summary, or in MLCommons' draft energy schema",
    "models": "list, fetch and describe checkpoints",
    "scenarios": "list and explain loads",
    "backends": "list engines and what is missing for them",
    "schema": "print the JSON Schema of a result",
    "calibrate": "fit joules to seconds and bytes, for when the sensor is gone",
    "doctor": "what can be measured on this machine, and why not more",
}
_MODULES = {"import": "importing", "export": "exporting"}  # of the commands whose name Python keeps or would confuse
_BUG = "this is a bug in perjoule: please report it with what --debug prints"


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing a page of usage; an abbreviated option is refused, so that later ones do not clash."""

    called = ""  # the command: what it does not know, the whole program is told of

    def error(self, message: str) -> NoReturn:
        prog = self.prog if " " in self.prog or not self.called else f"{self.prog} {self.called}"
        raise UsageError(message, hint=f"`{prog} --help` lists what it takes")


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Build the parser; only ``command``'s own options are added (all commands' when it is None)."""
    parser = _Parser(
        prog="perjoule",
        allow_abbrev=False,
        description="What an open language model costs to run on this machine: time, memory and joules, "
        "with an interval on every number.",
        epilog="Start with: perjoule run    (measures the default model for about two minutes)",
    )
    parser.called = command or ""
    parser.add_argument("--version", action="version", version=f"perjoule {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        described = summary[0].upper() + summary[1:] + "."
        sub = commands.add_parser(name, help=summary, description=described, allow_abbrev=False)
        sub.add_argument("--debug", action="store_true", help="show tracebacks")
        if command in (name, None):
            module = import_module(f"perjoule.cli.{_MODULES.get(name, name)}")
            module.add_arguments(sub)
            sub.set_defaults(action=module.execute)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit code of docs/cli.md."""
    arguments = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a sign must not cost a result
    with interruptible():
        return _guarded(arguments)


def _guarded(arguments: list[str]) -> int:
    try:
        return _execute(arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; nothing to tell it
        return 0
    except KeyboardInterrupt:
        return _say("interrupted", "nothing was left half written", EXIT_INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line, not a traceback
        if "--debug" in arguments:
            traceback.print_exc()
        return _explain(error)


def _execute(arguments: list[str]) -> int:
    if sys.platform == "win32":
        raise HostError("perjoule does not run on Windows yet", hint="use Linux, or WSL2")
    called = next((a for a in arguments if a in COMMANDS), "")
    if not called:
        _refuse_unknown(arguments)
    args = build_parser(called).parse_args(arguments)
    code = int(args.action(args))
    sys.stdout.flush()  # here, where a reader that left is still handled
    return code


def _explain(error: Exception) -> int:
    if isinstance(error, PerjouleError):
        return _say(error.message, error.hint, error.exit_code)
    if isinstance(error, OSError):
        what = f"{error.filename}: {error.strerror}" if error.filename else f"writing failed: {error.strerror or error}"
        return _say(what, "check that the folder exists, has space and may be written", EXIT_USAGE)
    return _say(f"unexpected {type(error).__name__}: {error}".splitlines()[0], _BUG, EXIT_ENGINE)


def _refuse_unknown(arguments: list[str]) -> None:
    word = next((a for a in arguments if not a.startswith("-")), None)
    if word is not None:
        near = difflib.get_close_matches(word, COMMANDS, n=2) or list(COMMANDS)
        raise UsageError(f"unknown command {word!r}", hint=f"known: {', '.join(near)}")


def _say(message: str, hint: str, code: int) -> int:
    from perjoule.cli.plain import one_line  # noqa: PLC0415

    with suppress(OSError):  # nobody reads standard error, or its disk is full: the exit code remains
        print(f"perjoule: error: {one_line(message)}", file=sys.stderr)  # noqa: T201
        if hint:
            print(f"hint: {one_line(hint)}", file=sys.stderr)  # noqa: T201
    return code
