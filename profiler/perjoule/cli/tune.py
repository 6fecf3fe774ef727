"""perjoule tune: race configurations of one model on one scenario; the best that meets the limits wins."""

from __future__ import annotations

import math
import re
import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perjoule import host, registry
from perjoule.cli.options import reproduce, split_settings, thread_counts, words_of
from perjoule.cli.output import DEFAULT_OUT, check_folder
from perjoule.cli.run import DEFAULT_MODEL
from perjoule.errors import UsageError
from perjoule.placement import usable_cpus
from perjoule.scenario import Slo, load_scenario, with_overrides

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from perjoule.plan import Configuration, RunPlan
    from perjoule.scenario import Scenario

_QUANTS: dict[str, list[str]] = {"onnxruntime": ["faithful", "int8"]}  # where nothing is said
# Options of an engine to try beside quants and threads: as many as make each engine's race about as long.
_VARIANTS: dict[str, list[dict[str, Any]]] = {
    "onnxruntime": [{"spinning": True}, {"spinning": False}],
    "llamacpp": [{}, {"flash_attn": False}, {"ubatch": 128}],
    "openvino": [{}, {"attention": "paged"}, {"kv_type": "f16"}],
}
_SERVER = "server"  # the device of an engine that runs elsewhere, with threads that were set when it was started
_LIMIT = re.compile(r"(ttft|tpot)=([0-9.]+)(ms|s)")
_SPENT_S = 600.0
_UNSAID = "unsaid"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenario", nargs="?", default="quickstart", metavar="SCENARIO", help="name or .toml path")
    parser.add_argument("--objective", choices=("energy", "latency", "edp"), default="energy",
                        help="what is to be least: J per token, seconds per request, their product")  # fmt: skip
    parser.add_argument("--slo", metavar="LIMITS", help="what must be met, e.g. tpot=50ms or ttft=2s,tpot=100ms")
    parser.add_argument("--model", metavar="REF", help=f"catalogue name or .gguf path ({DEFAULT_MODEL})")
    parser.add_argument("--backend", action="append", metavar="NAME", help="engines to try (onnxruntime)")
    parser.add_argument("--device", metavar="cpu|cuda:N", help="default: the first that each engine has")
    parser.add_argument("--threads", metavar="N,...", help="default: 1, 2, 4, ... up to the physical cores")
    parser.add_argument("--quant", metavar="Q,...", help="default: faithful,int8")
    parser.add_argument("--batch", metavar="N,...", help="default: the scenario's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for `perjoule run`")
    parser.add_argument("--meter", action="append", metavar="NAME", help="default: every sensor found")
    parser.add_argument("--time-budget", type=float, default=_SPENT_S, metavar="S",
                        help=f"seconds of measuring for all configurations together ({_SPENT_S:g})")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of prompts and of the order of runs (0)")
    parser.add_argument("--tdp", type=float, metavar="W", help="the processor's TDP, where no sensor helps")
    parser.add_argument("--out", default=DEFAULT_OUT, metavar="DIR", help=f"where results go (./{DEFAULT_OUT})")
    parser.add_argument("--json", metavar="-", help="print the race as JSON instead of the table")
    parser.add_argument("--no-wait", action="store_true", help="give up at once if another perjoule measures here")


def execute(args: argparse.Namespace) -> int:
    from perjoule.cli.progress import listener, print_tuning  # noqa: PLC0415
    from perjoule.runner import run  # noqa: PLC0415 - after the options have been checked
    from perjoule.tuning import read_tuning, tuning_bytes  # noqa: PLC0415

    if args.json not in (None, "-"):
        raise UsageError(f"--json {args.json}: only - is known here", hint="the race is saved in --out anyway")
    plan = make_plan(args)
    check_folder(Path(args.out))
    with listener() as progress:
        paths = run(plan, progress, wait=not args.no_wait)
    found = read_tuning(paths[-1])
    if args.json:
        sys.stdout.write(tuning_bytes(found).decode())
    else:
        print_tuning(found, paths)
    return 0


def make_plan(args: argparse.Namespace) -> RunPlan:
    """Turn options into a plan with a race; every option is checked before anything is loaded or measured."""
    from perjoule.plan import RunPlan, refuse_impossible  # noqa: PLC0415
    from perjoule.race import Race  # noqa: PLC0415

    if not 0 < args.time_budget < math.inf:
        raise UsageError("--time-budget must be above 0 seconds", hint="e.g. --time-budget 600")
    if args.tdp is not None and not 0 < args.tdp < math.inf:
        raise UsageError("--tdp must be above 0 watts", hint="e.g. --tdp 65")
    changes, extra, run_set = split_settings(args.set)
    scenario = load_scenario(args.scenario)
    scenario = with_overrides(scenario, changes) if changes else scenario
    if scenario.shape == "idle" or scenario.sweep is not None or scenario.find_rate:
        raise UsageError(
            f"scenario {scenario.name} is nothing to tune for: it sweeps, searches or waits by itself",
            hint="e.g. perjoule tune quickstart",
        )
    for name in args.meter or ():
        registry.load("perjoule.meters", name.partition(":")[0])
    configurations = tuple(_field(args, scenario, extra))
    cpus = len(usable_cpus())
    for configuration in configurations:
        refuse_impossible(configuration, registry.backend(configuration.backend).info(), cpus)
    if len(configurations) < 2:  # noqa: PLR2004 - a race of one
        raise UsageError(
            "there is only one configuration to try", hint="give several: --threads 1,2 --quant faithful,int8"
        )
    return RunPlan(
        configurations=configurations,
        meters=tuple(args.meter) if args.meter else None,
        seed=args.seed,
        out_dir=args.out,
        tdp_w=args.tdp,
        stall_s=float(run_set.get("stall_s", 300.0)),
        reproduce=_command(args, scenario),
        race=Race(objective=args.objective, slo=limits(args.slo) or scenario.slo, budget_s=args.time_budget),
    )


def limits(text: str | None) -> Slo | None:
    """Return the limits of ``tpot=50ms`` or ``ttft=2s,tpot=100ms``. Raises ``UsageError``."""
    if text is None:
        return None
    found: dict[str, float] = {}
    for part in words_of(text, "--slo"):
        match = _LIMIT.fullmatch(part)
        if match is None or match[2].count(".") > 1 or match[2] == "." or f"{match[1]}_s" in found:
            raise UsageError(f"--slo {text!r}: {part!r} is no limit", hint="e.g. --slo tpot=50ms or ttft=2s,tpot=100ms")
        found[f"{match[1]}_s"] = float(match[2]) / (1e3 if match[3] == "ms" else 1.0)
    try:
        return Slo(**found)
    except ValueError as error:
        raise UsageError(f"--slo {text!r}: {error}", hint="e.g. --slo tpot=50ms") from None


def _field(args: argparse.Namespace, scenario: Scenario, extra: dict[str, Any]) -> Iterator[Configuration]:
    """Yield every configuration to try, none twice: with one thread there is nobody to spin for."""
    from perjoule.plan import Matrix, combine  # noqa: PLC0415

    cpus = len(usable_cpus())
    threads = thread_counts(args.threads, cpus) or _powers(min(cpus, host.default_threads()))
    batches = [scenario.batch] if args.batch is None else [_whole(b) for b in words_of(args.batch, "--batch")]
    seen: list[Configuration] = []
    for backend in args.backend or ["onnxruntime"]:
        quants = words_of(args.quant, "--quant") if args.quant else _QUANTS.get(backend, ["faithful"])
        device = args.device or registry.backend(backend).info().devices[0]
        counts = (cpus,) if device == _SERVER else threads
        for batch, variant, count in product(batches, _variants(backend, extra), counts):
            if variant.get("spinning") is False and count == 1:
                continue
            options = {**extra, **variant}
            changed = scenario if batch == scenario.batch else with_overrides(scenario, {"batch": batch})
            model = "null" if backend == "null" else args.model or DEFAULT_MODEL
            seen += combine(Matrix(
                scenarios=(changed,), engines=((backend, model),), threads=(count,), default_threads=count,
                quants=tuple(quants), device=device, extra=options,
            ))  # fmt: skip
    yield from seen


def _variants(backend: str, extra: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the options to try of an engine, without those that the user has set."""
    free = [variant for variant in _VARIANTS.get(backend, [{}]) if not variant.keys() & extra.keys()]
    return free or [{}]


def _powers(most: int) -> tuple[int, ...]:
    return tuple(sorted({2**k for k in range(most.bit_length()) if 2**k <= most} | {most}))


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:9]) >= 1):
        raise UsageError(f"--batch: {text!r} is no number of requests", hint="e.g. --batch 1,4")
    return int(text)


def _command(args: argparse.Namespace, scenario: Scenario) -> str:
    """Return the command that repeats this race, without paths or names of this machine."""
    shown = scenario.name
    words = {"rigor": None, "pin": None, "nice": None, "control": False, "model": None}
    words |= {"server_pid": None}
    given = type(args)(**{**vars(args), **words, "quant": args.quant or _UNSAID})
    given.model = [args.model] if args.model else None
    command = reproduce(given, [scenario]).replace(f"perjoule run {shown}", f"perjoule tune {shown}", 1)
    command = command.replace(f" --quant {_UNSAID}", "", 1)  # each engine has its own
    slo = f" --slo {args.slo}" if args.slo else ""
    return f"{command} --objective {args.objective}{slo}"
