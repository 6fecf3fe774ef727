"""perjoule run: measure one or more models and write one result file each."""

from __future__ import annotations

import argparse
import json
import math
import sys
from contextlib import chdir, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perjoule import host, registry
from perjoule.cli.cost import CostOptions, add_cost_arguments
from perjoule.cli.options import (
    checked_nice,
    checked_server,
    checked_threads,
    refuse_unrecordable,
    reproduce,
    split_settings,
    thread_counts,
    words_of,
)
from perjoule.cli.output import DEFAULT_OUT, check_files, check_folder, write_new
from perjoule.errors import HostError, PerjouleError, UsageError
from perjoule.placement import parse_cpus, usable_cpus
from perjoule.scenario import Scenario, load_scenario, with_overrides

if TYPE_CHECKING:
    from collections.abc import Callable

    from perjoule.cli.progress import TerminalListener
    from perjoule.plan import RunPlan

__all__ = ["add_arguments", "checked_threads", "execute", "make_plan", "reproduce"]

DEFAULT_MODEL = "qwen2.5-coder-0.5b-instruct:q4_k_m"
_DEFAULT_SCENARIO = "quickstart"
# what --resume takes beside itself: nothing that would change the plan
_OF_ANY_RUN = frozenset({
    "resume", "html", "json", "no_wait", "debug", "price_per_kwh", "currency", "gco2_per_kwh", "grid",
})  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "scenario", nargs="*", default=[], metavar="SCENARIO", help=f"name or .toml path ({_DEFAULT_SCENARIO})"
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="REF",
        help=f"name or alias, .gguf path, folder, hf:..., synthetic:... ({DEFAULT_MODEL})",
    )
    parser.add_argument("--backend", action="append", metavar="NAME", help="engine (onnxruntime)")
    parser.add_argument("--device", metavar="cpu|cuda:N", help="default: the first that the engine has")
    parser.add_argument("--threads", metavar="N,...", help="default: physical cores this process may use")
    parser.add_argument(
        "--quant",
        default="faithful",
        metavar="Q,...",
        help="faithful (default: within 0.02 nats of the file), int8, int4, fp32",
    )
    parser.add_argument("--quality", choices=("none", "fidelity", "full"), default="fidelity",
                        help="fidelity (default): how far from the file's own weights")  # fmt: skip
    parser.add_argument("--meter", action="append", metavar="NAME", help="default: every sensor found")
    parser.add_argument("--rigor", choices=("quick", "standard", "strict"), help="default: the scenario's")
    parser.add_argument(
        "--time-budget",
        type=float,
        metavar="S",
        help="seconds of measuring per configuration; the scenario's fewest processes are run whatever it says",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of prompts and of the order of runs (0)")
    parser.add_argument("--control", action="store_true", help="measure each configuration twice, as A and A'")
    parser.add_argument("--pin", metavar="CPUS", help="bind the measured process to CPUs, e.g. 0-1")
    parser.add_argument("--nice", type=int, metavar="N", help="niceness of the measured process")
    parser.add_argument("--server-pid", type=int, metavar="PID",
                        help="process of the server that is asked: its CPU time, memory and joules")  # fmt: skip
    parser.add_argument("--out", default=DEFAULT_OUT, metavar="DIR", help=f"where results go (./{DEFAULT_OUT})")
    parser.add_argument("--html", metavar="FILE", help="also write a report for a browser")
    parser.add_argument("--json", metavar="FILE|-", help="also write JSON Lines, one result a line")
    parser.add_argument(
        "--tdp", type=float, metavar="W", help="the processor's TDP, where no sensor and no table helps"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="scenario key, backend.KEY or run.stall_s")  # fmt: skip
    parser.add_argument("--resume", metavar="DIR", help="go on with the run that ended early in this --out folder")
    parser.add_argument("--no-wait", action="store_true", help="give up at once if another perjoule measures here")
    add_cost_arguments(parser)


def execute(args: argparse.Namespace) -> int:
    if args.resume is not None:
        return _resume(args)
    from perjoule.runner import run  # noqa: PLC0415 - after the options have been checked

    plan = make_plan(args)
    return _carry_out(args, Path(args.out), partial(run, plan, wait=not args.no_wait))


def _resume(args: argparse.Namespace) -> int:
    """Finish a run that ended early; relative names of its plan start from where it was begun."""
    _refuse_other_options(args)
    from perjoule import journal  # noqa: PLC0415 - with what measures
    from perjoule.runner import resume  # noqa: PLC0415

    folder = journal.find(args.resume).resolve()
    out, begun_in = journal.places(folder)

    def go_on(listener: TerminalListener) -> list[Path]:
        with chdir(begun_in) if begun_in.is_dir() else nullcontext():
            return resume(folder, listener, wait=not args.no_wait)

    return _carry_out(args, out, go_on)


def _refuse_other_options(args: argparse.Namespace) -> None:
    """Raise ``UsageError`` for an option that would change the plan of the run that is resumed."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for name, value in vars(parser.parse_args([])).items():
        if name not in _OF_ANY_RUN and getattr(args, name) != value:
            option = "SCENARIO" if name == "scenario" else f"--{name.replace('_', '-')}"
            raise UsageError(
                f"--resume goes on as the run was begun: {option} cannot be changed", hint=f"leave {option} out"
            )


def _carry_out(args: argparse.Namespace, out: Path, measure: Callable[[TerminalListener], object]) -> int:
    """Measure, and write what was asked for of what was finished, whatever ended the measuring."""
    from perjoule.cli.progress import listener  # noqa: PLC0415

    cost = CostOptions(args, summary=args.json != "-")
    outputs = [Path(p) for p in (args.html, args.json) if p and p != "-"]
    check_files(outputs)
    check_folder(out)
    with listener() as progress:
        try:
            measure(progress)
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
    from perjoule.plan import Matrix, RunPlan, combine, left_out, refuse_impossible  # noqa: PLC0415

    changes, backend_set, run_set = split_settings(args.set)
    scenarios = [_changed(load_scenario(name), changes, args) for name in args.scenario or [_DEFAULT_SCENARIO]]
    pin = None if args.pin is None else parse_cpus(args.pin)
    cpus = len(usable_cpus() if pin is None else pin)
    for name in args.meter or ():
        registry.load("perjoule.meters", name.partition(":")[0])
    infos = {name: registry.backend(name).info() for name in args.backend or ["onnxruntime"]}
    matrix = Matrix(
        scenarios=tuple(scenarios),
        engines=tuple((b, model) for b in args.backend or ["onnxruntime"] for model in _models(args.model, b)),
        threads=thread_counts(args.threads, cpus),
        default_threads=min(cpus, host.default_threads()),
        cpus=cpus,
        quants=tuple(words_of(args.quant, "--quant")),
        device=args.device or "cpu",
        devices={name: info.devices[0] for name, info in infos.items()} if args.device is None else {},
        extra=backend_set,
        control=args.control,
    )
    configurations = combine(matrix)
    for configuration in configurations:
        refuse_impossible(configuration, infos[configuration.backend], cpus)
    if args.tdp is not None and not 0 < args.tdp < math.inf:
        raise UsageError("--tdp must be above 0 watts", hint="e.g. --tdp 65")
    command = reproduce(args, scenarios)
    refuse_unrecordable(args.seed, backend_set, scenarios, [command, *(args.model or ())])
    return RunPlan(
        configurations=configurations,
        meters=tuple(args.meter) if args.meter else None,
        seed=args.seed,
        out_dir=args.out,
        tdp_w=args.tdp,
        stall_s=float(run_set.get("stall_s", 300.0)),
        reproduce=command,
        pin=pin,
        nice=checked_nice(args.nice),
        server_pid=checked_server(args.server_pid),
        notes=left_out(matrix),
        quality=args.quality,
    )


def _changed(scenario: Scenario, changes: dict[str, Any], args: argparse.Namespace) -> Scenario:
    """Return the scenario with what the options change in it."""
    changes = dict(changes)
    if args.rigor:
        changes["rigor"] = args.rigor
    if args.time_budget is not None:
        if not 0 < args.time_budget < math.inf:
            raise UsageError("--time-budget must be above 0 seconds", hint="e.g. --time-budget 120")
        changes["time_budget_s"] = args.time_budget
    return with_overrides(scenario, changes) if changes else scenario


def _models(models: list[str] | None, backend: str) -> list[str]:
    return ["null"] if backend == "null" else models or [DEFAULT_MODEL]


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
