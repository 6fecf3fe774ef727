"""perjoule run: measure one or more models and write one result file each."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from perjoule import host, registry
from perjoule.cli.cost import CostOptions, add_cost_arguments
from perjoule.cli.output import check_files, check_folder, write_new
from perjoule.errors import HostError, PerjouleError, UsageError
from perjoule.protocols import EngineOptions
from perjoule.scenario import Scenario, load_scenario, with_overrides
from perjoule.store.canonical import canonical_json

if TYPE_CHECKING:
    import argparse

    from perjoule.runner import RunPlan

__all__ = ["add_arguments", "checked_threads", "execute", "make_plan", "reproduce"]

DEFAULT_MODEL = "qwen2.5-coder-0.5b-instruct:q4_k_m"
DEFAULT_OUT = "perjoule-results"
_LONGEST_STALL_S = 86_400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenario", nargs="?", default="quickstart", metavar="SCENARIO", help="name or .toml path")
    parser.add_argument(
        "--model", action="append", metavar="REF", help=f"catalogue name or .gguf path ({DEFAULT_MODEL})"
    )
    parser.add_argument("--backend", action="append", metavar="NAME", help="engine (onnxruntime)")
    parser.add_argument("--device", default="cpu", metavar="cpu|cuda:N")
    parser.add_argument("--threads", type=int, metavar="N", help="default: physical cores this process may use")
    parser.add_argument("--quant", default="faithful", metavar="Q", help="faithful (default), int8, int4, fp32")
    parser.add_argument("--meter", action="append", metavar="NAME", help="default: every sensor found")
    parser.add_argument("--rigor", choices=("quick", "standard", "strict"), help="default: the scenario's")
    parser.add_argument("--time-budget", type=float, metavar="S", help="seconds of measuring per configuration")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of prompts and of the order of runs (0)")
    parser.add_argument("--out", default=DEFAULT_OUT, metavar="DIR", help=f"where results go (./{DEFAULT_OUT})")
    parser.add_argument("--html", metavar="FILE", help="also write a report for a browser")
    parser.add_argument("--json", metavar="FILE|-", help="also write JSON Lines, one result a line")
    parser.add_argument(
        "--tdp", type=float, metavar="W", help="the processor's TDP, where no sensor and no table helps"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="scenario key, backend.KEY or run.stall_s")  # fmt: skip
    add_cost_arguments(parser)


def execute(args: argparse.Namespace) -> int:
    from perjoule.cli.progress import listener  # noqa: PLC0415
    from perjoule.runner import run  # noqa: PLC0415 - after the options have been checked

    plan = make_plan(args)
    cost = CostOptions(args, summary=args.json != "-")
    outputs = [Path(p) for p in (args.html, args.json) if p and p != "-"]
    check_files(outputs)
    check_folder(Path(args.out))
    with listener() as progress:
        try:
            run(plan, progress)
        except BaseException:  # Ctrl-C too: what was finished has been saved, and is shown
            try:
                _write_outputs(args, progress.results, progress.paths, cost)
            except (PerjouleError, OSError) as second:
                progress.note(f"beside the error below: {second}")
            raise
        _write_outputs(args, progress.results, progress.paths, cost)
    return 0


def make_plan(args: argparse.Namespace) -> RunPlan:
    """Turn options into a plan; every option is checked before anything is loaded or measured."""
    from perjoule.runner import Configuration, RunPlan, context_for  # noqa: PLC0415

    scenario_set, backend_set, run_set = _split_settings(args.set)
    scenario = load_scenario(args.scenario)
    changes = dict(scenario_set)
    if args.rigor:
        changes["rigor"] = args.rigor
    if args.time_budget is not None:
        if not 0 < args.time_budget < math.inf:
            raise UsageError("--time-budget must be above 0 seconds", hint="e.g. --time-budget 120")
        changes["time_budget_s"] = args.time_budget
    scenario = with_overrides(scenario, changes) if changes else scenario
    options = EngineOptions(
        device=args.device,
        threads=checked_threads(args.threads),
        quant=args.quant,
        context_tokens=context_for(scenario),
        extra=backend_set,
    )
    for name in args.meter or ():
        registry.load("perjoule.meters", name.partition(":")[0])
    configurations = tuple(
        Configuration(backend=backend, model_ref=model, options=options, scenario=scenario)
        for backend in args.backend or ["onnxruntime"]
        for model in _models(args.model, backend)
        if _check_backend(backend, options)
    )
    if args.tdp is not None and not 0 < args.tdp < math.inf:
        raise UsageError("--tdp must be above 0 watts", hint="e.g. --tdp 65")
    command = reproduce(args, scenario)
    _check_recordable(args.seed, options.extra, scenario, [command, *(args.model or ())])
    return RunPlan(
        configurations=configurations,
        meters=tuple(args.meter) if args.meter else None,
        seed=args.seed,
        out_dir=args.out,
        tdp_w=args.tdp,
        stall_s=float(run_set.get("stall_s", 300.0)),
        reproduce=command,
    )


def _check_recordable(seed: int, extra: dict[str, Any], scenario: Scenario, words: list[str]) -> None:
    """Refuse now what no result could hold after the measuring: numbers beyond 2^53, text that is not Unicode."""
    try:
        canonical_json([seed, extra, msgspec.to_builtins(scenario), words])
    except ValueError as error:
        raise UsageError(
            f"an option cannot be written to a result: {str(error)[:160]}",
            hint="use finite numbers below 2^53, and names that are UTF-8",
        ) from error


def reproduce(args: argparse.Namespace, scenario: Scenario) -> str:
    """Return the command that repeats this run, without paths or names of this machine."""
    words = ["perjoule", "run", scenario.name]
    for option in ("model", "backend", "meter"):
        for value in getattr(args, option) or ():
            words += [f"--{option}", without_argument(value) if option == "meter" else _scrubbed(value)]
    words += ["--device", args.device, "--quant", args.quant, "--seed", str(args.seed)]
    for option in ("threads", "rigor", "time_budget", "tdp"):
        value = getattr(args, option)
        if value is not None:
            words += [f"--{option.replace('_', '-')}", str(value)]
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


def _models(models: list[str] | None, backend: str) -> list[str]:
    return ["null"] if backend == "null" else models or [DEFAULT_MODEL]


def _check_backend(name: str, options: EngineOptions) -> bool:
    info = registry.backend(name).info()
    if not info.available:
        raise HostError(f"backend {name} is not installed", hint=info.install)
    if options.device not in info.devices:
        raise UsageError(f"backend {name} has no device {options.device!r}", hint=f"it has: {', '.join(info.devices)}")
    if options.quant not in info.quants:
        raise UsageError(f"backend {name} has no --quant {options.quant!r}", hint=f"it has: {', '.join(info.quants)}")
    return True


def checked_threads(wanted: int | None) -> int:
    """Return the threads to use, or the default for None. Raises ``UsageError`` for more than may be used."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if wanted is None:
        return host.default_threads()
    if not 1 <= wanted <= usable:
        raise UsageError(f"--threads {wanted}: this process may use 1 to {usable}", hint=f"e.g. --threads {usable}")
    return wanted


def _split_settings(settings: list[str]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
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


def _write_outputs(args: argparse.Namespace, results: list[Any], paths: list[Path], cost: CostOptions) -> None:
    """Write what was asked for beside the results, and print the summary, whichever of it fails."""
    if not results:
        return
    written, failed = list(paths), list[PerjouleError]()
    wanted = ((args.json, partial(json_lines, paths)), (args.html, partial(_page, results)))
    for file, content in wanted:
        if not file or file == "-":
            continue
        try:
            write_new(Path(file), content())
            written.append(Path(file))
        except PerjouleError as error:
            failed.append(error)
    try:
        if args.json == "-":
            sys.stdout.write(json_lines(paths))
        else:
            from perjoule.cli.progress import print_summary  # noqa: PLC0415

            print_summary(results, written, cost)
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # a reader that has seen enough
    except OSError as error:
        saved = ", ".join(str(path) for path in written)
        raise HostError(f"standard output: {error.strerror}", hint=f"these are written: {saved}") from error
    if failed:
        raise failed[0]


def json_lines(paths: list[Path]) -> str:
    return "".join(json.dumps(json.loads(p.read_text(encoding="utf-8")), sort_keys=True) + "\n" for p in paths)


def _page(results: list[Any]) -> str:
    from perjoule.render.html import report  # noqa: PLC0415

    return report(results)
