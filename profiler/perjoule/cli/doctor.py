"""perjoule doctor: what can be measured on this machine, what was refused, and what would allow it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perjoule import host, registry
from perjoule.cli.run import check_files
from perjoule.clock import MonotonicClock
from perjoule.render.plain import printable

if TYPE_CHECKING:
    import argparse

_NOISE_WINDOW_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE|-", help="write everything as JSON; - is standard output")


def execute(args: argparse.Namespace) -> int:
    to_file = bool(args.json) and args.json != "-"
    if to_file:
        check_files([Path(args.json)])
    found = examine()
    text = json.dumps(found, indent=2, sort_keys=True) + "\n"
    if to_file:
        Path(args.json).write_text(text, encoding="utf-8")
    if args.json:
        sys.stdout.write("" if to_file else text)
        return 0
    for line in _lines(found):
        print(printable(line))  # noqa: T201
    return 0


def examine() -> dict[str, Any]:
    """Return what this host can measure, as plain values. Takes about a second (noise is watched)."""
    import msgspec  # noqa: PLC0415 - only here

    from perjoule.meters import open_meters  # noqa: PLC0415
    from perjoule.meters.model import coefficients, host_model  # noqa: PLC0415

    facts = host.read_host({})
    model = host_model(facts, 0, None)
    with open_meters(None) as meters:
        sensors, refused = list(meters.facts), list(meters.refusals)
    return {
        "host": msgspec.to_builtins(facts),
        "threads_default": host.default_threads(),
        "sensors": msgspec.to_builtins(sensors),
        "refused": msgspec.to_builtins(refused),
        "energy_model": model if isinstance(model, str) else model.grade,
        "coefficients_source": coefficients().spec_power,
        "backends": [msgspec.to_builtins(registry.backend(n).info()) for n in registry.names("perjoule.backends")],
        "noise": _noise(),
    }


def _noise() -> dict[str, float]:
    """Return the share of all cores used by others and stolen during one quiet second of ours."""
    clock = MonotonicClock()
    before, own_ns, start_ns = host.read_cpu_times(), clock.cpu_ns(), clock.now_ns()
    clock.sleep(_NOISE_WINDOW_S)
    after = host.read_cpu_times()
    capacity_s = after.cores * (clock.now_ns() - start_ns) / 1e9
    busy_s = after.busy_s - before.busy_s - (clock.cpu_ns() - own_ns) / 1e9
    return {
        "foreign_cpu_share": max(0.0, busy_s) / capacity_s,
        "steal_share": max(0.0, after.steal_s - before.steal_s) / capacity_s,
    }


def _lines(found: dict[str, Any]) -> list[str]:
    cpu = found["host"]["cpu"]
    lines = [
        "Machine",
        f"  {cpu['name']}: {cpu['vendor']} family {cpu['family']} model {cpu['model']}, {cpu['threads']} threads"
        f" ({found['threads_default']} used by default)",
        f"  {found['host']['virtualization'] or 'bare metal'}; machine id {found['host']['machine_id']}",
        "",
        "Energy",
    ]
    lines += [f"  {s['domain']}: {s['source']}, update period {s['tick_s']} s" for s in found["sensors"]]
    if not found["sensors"]:
        lines.append(f"  no sensor; joules are modelled: {found['energy_model']}")
    for refusal in found["refused"]:
        lines += [f"  refused {refusal['meter']}: {refusal['reason']}", f"    to allow it: {refusal['fix']}"]
    lines += ["", "Engines"]
    for backend in found["backends"]:
        lines.append(
            f"  {backend['name']}: {'available' if backend['available'] else 'missing: ' + backend['install']}"
        )
    noise = found["noise"]
    lines += [
        "",
        "Noise in one second",
        f"  other processes {noise['foreign_cpu_share']:.1%} of all cores (limit 2 %), "
        f"stolen {noise['steal_share']:.1%} (limit 1 %)",
    ]
    return lines
