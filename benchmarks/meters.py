"""What the meter layer costs: its import in a fresh interpreter, and one reading of a two-socket powercap tree.

Import: wall and CPU time of interpreters that import the meter layer, each minus a bare one run right after it.
Reading: every domain of a simulated tree (two packages, each with core, uncore and dram), through the same guarded
set of meters as a run; the counters are moved between two readings, outside of the time taken.

    python benchmarks/meters.py [--imports 11] [--reads 1000]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMPORTS = "import perjoule.meters, perjoule.meters.counters, perjoule.meters.powercap, perjoule.meters.hwmon"
IMPORT_TARGET_S, READ_TARGET_S = 0.050, 0.002
PARTS = ("core", "uncore", "dram")
CPUINFO = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: made-up CPU\n\n"


def import_times(count: int, folder: str) -> tuple[list[float], list[float]]:
    """Return wall and CPU seconds of the imports in fresh interpreters, by each one's own clocks.

    Byte code is kept in ``folder``, as an installation keeps its own. What an interpreter does at its start and end
    is not in it.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = folder
    clocks = "(time.perf_counter(), time.process_time())"
    code = f"import time; a = {clocks}; {IMPORTS}; b = {clocks}; print(b[0] - a[0], b[1] - a[1])"
    wall, cpu = [], []
    for turn in range(count + 1):
        done = subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True)
        if turn:  # the first compiles
            seconds = [float(x) for x in done.stdout.split()]
            wall.append(seconds[0])
            cpu.append(seconds[1])
    return wall, cpu


def two_sockets(root: Path) -> list[Path]:
    """Make a tree of two packages with their parts, point perjoule at it, and return the counters."""
    (root / "proc").mkdir()
    (root / "proc" / "cpuinfo").write_text(CPUINFO)
    os.environ |= {"PERJOULE_SYSFS": str(root / "sys"), "PERJOULE_PROCFS": str(root / "proc")}
    counters = []
    for package in range(2):
        names = {f"intel-rapl:{package}": f"package-{package}"}
        names |= {f"intel-rapl:{package}:{number}": part for number, part in enumerate(PARTS)}
        for folder, name in names.items():
            domain = root / "sys" / "class" / "powercap" / folder
            domain.mkdir(parents=True)
            (domain / "name").write_text(f"{name}\n")
            (domain / "max_energy_range_uj").write_text("262143328850\n")
            counters.append(domain / "energy_uj")
    move(counters, 0)
    return counters


def move(counters: list[Path], turn: int) -> None:
    for counter in counters:
        counter.write_text(f"{1_000_000 + 1000 * turn}\n")


def read_times(count: int, root: Path) -> tuple[int, list[float]]:
    from perjoule.meters import open_meters  # noqa: PLC0415 - once the tree stands
    from perjoule.records import MeterRefusal  # noqa: PLC0415

    counters, spent = two_sockets(root), []
    with open_meters(["rapl-powercap"]) as meters:
        for turn in range(count):
            move(counters, turn + 1)
            start = time.perf_counter()
            readings = meters.read()
            spent.append(time.perf_counter() - start)
            refused = [r for r in readings if isinstance(r, MeterRefusal)]
            if refused or len(readings) != len(counters):
                raise SystemExit(f"not every domain was read: {refused or readings}")
    return len(counters), spent


def line(title: str, seconds: list[float], scale: float, unit: str, target_s: float | None = None) -> str:
    middle, most = scale * statistics.median(seconds), scale * max(seconds)
    text = f"{title:<44} median {middle:8.2f} {unit}   max {most:8.2f} {unit}"
    if target_s is None:
        return text
    verdict = "met" if statistics.median(seconds) < target_s else "MISSED"
    return f"{text}   target < {scale * target_s:g} {unit}: {verdict}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imports", type=int, default=11, metavar="N", help="fresh interpreters (11)")
    parser.add_argument("--reads", type=int, default=1000, metavar="N", help="readings of the tree (1000)")
    args = parser.parse_args()
    busy, cores = os.getloadavg()[0], os.cpu_count()
    print(f"Python {sys.version.split()[0]}, {cores} cores, {busy:.1f} processes busy in the last minute")
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = import_times(args.imports, folder)
    print(line(f"import of the meter layer, {args.imports} times, wall", wall, 1e3, "ms", IMPORT_TARGET_S))
    print(line("  CPU time of the same", cpu, 1e3, "ms"))
    with tempfile.TemporaryDirectory() as folder:
        domains, spent = read_times(args.reads, Path(folder))
    print(line(f"reading {domains} domains, {args.reads} times, wall", spent, 1e3, "ms", READ_TARGET_S))
    return 0


if __name__ == "__main__":
    sys.exit(main())
