"""Options of ``perjoule run`` turned into values, each checked; and back into the command that repeats a run."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from perjoule import host
from perjoule.errors import UsageError
from perjoule.placement import NICEST, RUDEST, usable_cpus
from perjoule.store.canonical import canonical_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from perjoule.scenario import Scenario

_LONGEST_STALL_S = 86_400
_MOST_DIGITS = 6


def checked_threads(wanted: int | None) -> int:
    """Return the threads to use, or the default for None. Raises ``UsageError`` for more than may be used."""
    usable = len(usable_cpus())
    if wanted is None:
        return host.default_threads()
    if not 1 <= wanted <= usable:
        raise UsageError(f"--threads {wanted}: this process may use 1 to {usable}", hint=f"e.g. --threads {usable}")
    return wanted


def thread_counts(text: str | None, cpus: int) -> tuple[int, ...] | None:
    """Return the numbers of a list such as ``1,2``, or None. Raises ``UsageError`` for more than ``cpus``."""
    if text is None:
        return None
    hint = f"e.g. --threads {cpus}, or --threads 1,{cpus}" if cpus > 1 else "e.g. --threads 1"
    counts = []
    for part in words_of(text, "--threads"):
        if not (part.isascii() and part.isdigit() and len(part) < _MOST_DIGITS):
            raise UsageError(f"--threads {text!r}: {part!r} is no number of threads", hint=hint)
        if not 1 <= int(part) <= cpus:
            raise UsageError(f"--threads {part}: this process may use 1 to {cpus}", hint=hint)
        counts.append(int(part))
    return tuple(counts)


def words_of(text: str, option: str) -> list[str]:
    """Return the parts of a list separated by commas. Raises ``UsageError`` for an empty one, or one given twice."""
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not part or parts.count(part) > 1:
            what = f"{part!r} comes twice" if part else "a value is empty"
            raise UsageError(f"{option} {text!r}: {what}", hint=f"values are separated by commas, e.g. {option} A,B")
    return parts


def checked_nice(wanted: int | None) -> int | None:
    if wanted is not None and not RUDEST <= wanted <= NICEST:
        raise UsageError(f"--nice {wanted}: niceness goes from {RUDEST} to {NICEST}", hint="e.g. --nice 10")
    return wanted


def checked_server(pid: int | None) -> int | None:
    """Return the id of the server's process. Raises ``UsageError`` where there is none of that id."""
    if pid is not None:
        from perjoule.server_process import ServerProcesses  # noqa: PLC0415 - only where a server is asked

        ServerProcesses(pid)
    return pid


def split_settings(settings: list[str]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the changes to the scenario, to the engine and to the run that ``--set`` asks for."""
    scenario: dict[str, Any] = {}
    backend: dict[str, Any] = {}
    run_: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {setting!r} is not KEY=VALUE", hint="e.g. --set prompt_tokens=128")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        if key.startswith("backend."):
            backend[key.removeprefix("backend.")] = value
        elif key == "run.stall_s" and type(value) in (int, float) and 0 < value <= _LONGEST_STALL_S:
            run_["stall_s"] = value
        elif key.startswith("run."):
            raise UsageError(
                f"--set {setting!r} is not known", hint=f"there is run.stall_s=SECONDS, up to {_LONGEST_STALL_S}"
            )
        else:
            scenario[key] = value
    return scenario, backend, run_


def refuse_unrecordable(seed: int, extra: dict[str, Any], scenarios: Sequence[Scenario], words: list[str]) -> None:
    """Refuse now what no result could hold after the measuring: numbers beyond 2^53, text that is not Unicode."""
    try:
        canonical_json([seed, extra, msgspec.to_builtins(scenarios), words])
    except ValueError as error:
        raise UsageError(
            f"an option cannot be written to a result: {str(error)[:160]}",
            hint="use finite numbers below 2^53, and names that are UTF-8",
        ) from error


def reproduce(args: argparse.Namespace, scenarios: Iterable[Scenario]) -> str:
    """Return the command that repeats this run, without paths or names of this machine."""
    words = ["perjoule", "run", *(scenario.name for scenario in scenarios)]
    for option in ("model", "backend", "meter"):
        for value in getattr(args, option) or ():
            words += [f"--{option}", without_argument(value) if option == "meter" else _scrubbed(value)]
    words += [] if args.device is None else ["--device", args.device]
    words += ["--quant", args.quant, "--seed", str(args.seed)]
    for option in ("threads", "rigor", "time_budget", "tdp", "pin", "nice"):
        value = getattr(args, option)
        if value is not None:
            words += [f"--{option.replace('_', '-')}", str(value)]
    words += ["--control"] if args.control else []
    words += ["--server-pid", "..."] if args.server_pid is not None else []
    for setting in args.set:
        key, _, value = setting.partition("=")
        words += ["--set", f"{key}={_scrubbed(value)}"]
    return shlex.join(words)


def without_argument(meter: str) -> str:
    """Return a meter's name without its argument, which is a file, a program or an address of this machine's."""
    name, colon, _ = meter.partition(":")
    return f"{name}:..." if colon else name


def _scrubbed(value: str) -> str:
    """Return an option's value without the folders of this machine: names of models on a hub stay whole."""
    if value.startswith("hf:"):
        return value
    return Path(value).name if os.sep in value else value
