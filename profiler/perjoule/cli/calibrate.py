"""perjoule calibrate: fit joules to seconds and bytes where a sensor measures them, for later runs without it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from perjoule import __version__, host, store
from perjoule.cli.output import DEFAULT_OUT
from perjoule.clock import MonotonicClock
from perjoule.errors import HostError, InputError, UsageError
from perjoule.render.plain import printable

if TYPE_CHECKING:
    from perjoule.records import Calibration, RunResult

MODELS = ("smollm2-135m-instruct:q4_1", "qwen2.5-coder-0.5b-instruct:q4_k_m")
# One load that mostly streams weights, token by token, and one that mostly computes on what it has streamed.
LOADS = (("prompt_tokens=32", "new_tokens=128"), ("prompt_tokens=384", "new_tokens=16"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="*", metavar="RESULTS", help="results measured on this machine by a sensor")
    parser.add_argument("--run", action="store_true", help="measure what a fit needs first (about ten minutes)")
    parser.add_argument("--meter", action="append", metavar="NAME", help="for --run, as for perjoule run")
    parser.add_argument("--out", default=DEFAULT_OUT, metavar="DIR", help=f"for --run (./{DEFAULT_OUT})")
    parser.add_argument(
        "--allow-simulated", action="store_true", help="accept sensors of a made-up tree; the fit is marked"
    )


def execute(args: argparse.Namespace) -> int:
    if args.run and args.results:
        raise UsageError("--run measures its own results", hint="give RESULTS, or --run")
    here = host.read_host({})
    if here.simulated and not args.allow_simulated:
        raise HostError("this machine's facts come from a made-up tree", hint="unset PERJOULE_SYSFS, PERJOULE_PROCFS")
    files = _measure(args) if args.run else [Path(file) for file in args.results]
    if not files:
        return _say_how()
    calibration = _fit(files, here.machine_id, allow_simulated=args.allow_simulated)
    from perjoule.meters.calibration import save_calibration  # noqa: PLC0415

    created = MonotonicClock().utc_now().isoformat(timespec="seconds").replace("+00:00", "Z")
    path = save_calibration(calibration, here, created_utc=created, tool_version=__version__)
    for line in describe(calibration):
        print(printable(line))  # noqa: T201
    print(f"stored: {printable(str(path))}")  # noqa: T201
    return 0


def commands(out: str = DEFAULT_OUT, meters: list[str] | None = None) -> list[list[str]]:
    """Return the words of the runs that a fit needs: every model under every load."""
    models = [word for model in MODELS for word in ("--model", model)]
    extra = [word for meter in meters or () for word in ("--meter", meter)]
    extra += [] if out == DEFAULT_OUT else ["--out", out]
    return [["quickstart", *models, *(w for setting in load for w in ("--set", setting)), *extra] for load in LOADS]


def describe(calibration: Calibration) -> list[str]:
    """Return the fit in lines for people."""
    from perjoule.render.format import significant  # noqa: PLC0415 - only once there is something to show

    fit, per_byte = calibration, calibration.e_j_per_byte * 1e12
    low, high = (significant(rate / 1e9, 3) for rate in (fit.low_bytes_per_s, fit.high_bytes_per_s))
    return [
        f"E = P0 * T + e * bytes streamed, for {fit.scope}, against {fit.grade}"
        + (" (SIMULATED)" if fit.simulated else ""),
        f"  P0  {significant(fit.p0_w, 3)} W",
        f"  e   {significant(per_byte, 3)} pJ per byte, {significant(per_byte / 8, 3)} pJ per bit",
        f"  error of a model left out  {fit.error_mean_share:.1%} mean, {fit.error_max_share:.1%} max",
        f"  fitted range  {low}-{high} GB/s streamed, {fit.low_cores:.2f}-{fit.high_cores:.2f} cores busy",
        f"  points  {fit.points} processes of {fit.configurations} configurations, {fit.models} models",
        f"  joules from it are counter-modelled, +-{fit.half_width:.0%} inside that range",
    ]


def _say_how() -> int:
    from perjoule.meters.calibration import load_calibration  # noqa: PLC0415

    stored = load_calibration(host.read_host({}))
    lines = ["Stored for this machine:", *describe(stored), ""] if stored else []
    lines += ["A fit needs at least 3 configurations of at least 2 models, measured here by a sensor. First run:"]
    lines += [f"  perjoule run {' '.join(words)}" for words in commands()]
    lines += ["then:", f"  perjoule calibrate {DEFAULT_OUT}/*.json"]
    lines += ["or both at once: perjoule calibrate --run; `perjoule doctor` lists the sensors."]
    for line in lines:
        print(printable(line))  # noqa: T201
    return 0


def _measure(args: argparse.Namespace) -> list[Path]:
    """Make the runs a fit needs and return their results. Raises ``HostError`` where no sensor could measure them."""
    from perjoule.cli.progress import listener  # noqa: PLC0415
    from perjoule.cli.run import add_arguments as add_run_arguments  # noqa: PLC0415
    from perjoule.cli.run import make_plan  # noqa: PLC0415
    from perjoule.lock import machine_lock  # noqa: PLC0415
    from perjoule.meters import open_meters  # noqa: PLC0415
    from perjoule.runner import run  # noqa: PLC0415

    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    plans = [make_plan(parser.parse_args(words)) for words in commands(args.out, args.meter)]
    with open_meters(args.meter) as meters:
        refusals = [r.reason for r in meters.refusals]
        if not meters.facts:
            why = f": {refusals[0]}" if refusals else ""
            raise HostError(f"no sensor to fit against{why}", hint="`perjoule doctor` says how to allow one")
        if any(f.simulated for f in meters.facts) and not args.allow_simulated:
            raise HostError("the sensors are simulated", hint="--allow-simulated accepts them; the fit is marked")
    with listener() as progress, machine_lock("perjoule calibrate --run", tell=progress.note):
        for plan in plans:
            run(plan, progress)
    for path in progress.paths:
        print(f"written: {printable(str(path))}", file=sys.stderr)  # noqa: T201
    return progress.paths


def _fit(files: list[Path], machine_id: str, *, allow_simulated: bool) -> Calibration:
    from perjoule.meters.calibration_fit import evidence_of, fit  # noqa: PLC0415

    evidence = []
    seen: dict[str, Path] = {}
    for file in files:
        result = store.load(file)
        _refuse(result, file, machine_id, allow_simulated=allow_simulated)
        if result.id in seen:
            raise InputError(f"{file}: the same result as {seen[result.id]}", hint="give each result once")
        seen[result.id] = file
        evidence.append(evidence_of(result, str(file)))
    return fit(evidence, more="perjoule run " + " ".join(commands()[0]) + "; `perjoule calibrate` lists all runs")


def _refuse(result: RunResult, file: Path, machine_id: str, *, allow_simulated: bool) -> None:
    """Refuse what would make a fit of another machine, of nothing real, or of numbers that do not hold."""
    from perjoule.verify import verify  # noqa: PLC0415

    if result.host.machine_id != machine_id:
        raise InputError(
            f"{file}: measured on machine {result.host.machine_id}; this is {machine_id}",
            hint="a calibration holds for one machine: give results measured here",
        )
    problems = verify(result)
    if problems:
        raise InputError(f"{file}: does not hold: {problems[0]}", hint=f"`perjoule verify {file}` says what")
    if (result.host.simulated or any(m.simulated for m in result.meters)) and not allow_simulated:
        raise InputError(f"{file}: its sensors are simulated", hint="--allow-simulated accepts them; the fit is marked")
    invalid = [c for c in result.checks if c.severity == "invalid" and c.code != "simulated_sensors"]
    if invalid:
        raise InputError(f"{file}: {invalid[0].message}", hint=invalid[0].hint)
