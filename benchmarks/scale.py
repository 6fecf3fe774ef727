"""How verify, publish, query and compare keep up with thousands of result files.

Makes seeded results (all different, plausible, as large as one of `perjoule run quickstart` with 11 processes), and
runs the commands on them as a user would. The aims are for 10,000 files on two cores that do nothing else; the exit
code says whether all were met. Beside the seconds stand the CPU seconds of the whole process tree, which others on the
machine disturb less, and the most memory it held at once (pages that processes share are counted in each).

    python benchmarks/scale.py [--files 10000] [--keep DIR]
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from builders import make_host, make_model
from published_results import host, publishable

from perjoule import store
from perjoule.clock import MonotonicClock
from perjoule.measure import ProcessRun
from perjoule.publish.many import each
from perjoule.records import MemoryPeak, ProcessRecord, Sample, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.records import HostFacts, ModelFacts

CLOCK = MonotonicClock()
AIMED_AT = 10_000  # files that the aims are for
PROCESSES, WARMUPS, REQUESTS, TOKENS = 11, 3, 3, 64
MODELS, MACHINES = 40, 25
GB = 1e9


@dataclass
class Took:
    """What one command cost: seconds by the clock, CPU seconds, and bytes at its highest."""

    seconds: float
    cpu_s: float
    peak_bytes: float


@dataclass
class Aim:
    """One line of the table."""

    what: str
    took: Took
    most_s: float
    most_bytes: float = float("inf")

    @property
    def met(self) -> bool:
        return self.took.seconds < self.most_s and self.took.peak_bytes < self.most_bytes


def digest(rng: random.Random) -> str:
    return rng.randbytes(32).hex()


def request(rng: random.Random, process: int, index: int, start_s: float) -> tuple[Sample, tuple[Window, ...]]:
    """Return one request and its two windows, stamps in nanoseconds as a clock gives them."""
    times = [start_s + rng.uniform(0.22, 0.24)]
    for _ in range(TOKENS - 1):
        times.append(times[-1] + rng.uniform(0.0072, 0.0092))
    stamps = tuple(round(t, 9) for t in times)
    stem, phase = f"{process}.{index}", "measured" if index >= WARMUPS else "warmup"
    prompt = random.Random(stem)  # noqa: S311 - one seed gives all runs the same prompts
    sample = Sample(
        process=process, window=stem, index=index, phase=phase, prompt_text_sha256=digest(prompt),  # type: ignore[arg-type]
        prompt_ids_sha256=digest(prompt), prompt_tokens=256, output_tokens=TOKENS, finish_reason="length",
        scheduled_s=None, scheduled_s_missing="closed loop: nothing is scheduled", start_s=round(start_s, 9),
        first_token_s=stamps[0], token_times_s=stamps, end_s=stamps[-1],
    )  # fmt: skip
    edges = (("prefill", sample.start_s, stamps[0], 160_000_000), ("decode", stamps[0], stamps[-1], 9_768_294_144))
    windows = tuple(
        Window(
            id=f"{stem}/{name}", process=process, phase=name, start_s=begin, end_s=end,  # type: ignore[arg-type]
            cpu_s=round(1.98 * (end - begin), 9), steal_s=0.0, foreign_cpu_s=rng.uniform(0, 1e-3),
            bytes_streamed=streamed, cpu_tick_s=0.01, swap_pages=0, pressure_cpu_s=round(rng.uniform(0, 5e-3), 6),
            pressure_memory_s=0.0, pressure_io_s=0.0, clock_jump_s=round(rng.uniform(-2e-8, 2e-8), 9),
        )
        for name, begin, end, streamed in edges
    )  # fmt: skip
    return sample, windows


def process(rng: random.Random, number: int) -> ProcessRun:
    begin_s, load_s = 10.0 * number + 0.002, rng.uniform(0.33, 0.36)
    made, start_s = [], begin_s + load_s + 0.01
    for index in range(WARMUPS + REQUESTS):
        made.append(request(rng, number, index, start_s))
        start_s = made[-1][0].end_s + 0.002
    peaks = (("load", 350), ("requests", 380), ("prefill", 380), ("decode", 370))
    return ProcessRun(
        record=ProcessRecord(
            process=number, start_s=round(begin_s, 9), load_s=load_s, cold_ttft_s=rng.uniform(0.23, 0.25),
            warmup_requests=WARMUPS, steady=True, shared_prefix_tokens=0, load_read_bytes=0,
            unwatched={"freq_hz": "the kernel shows no frequency here"},
        ),
        samples=tuple(sample for sample, _ in made), windows=tuple(w for _, pair in made for w in pair),
        memory=tuple(
            MemoryPeak(process=number, phase=phase, rss_peak_bytes=mb * 10**6 + 4096 * rng.randrange(999),  # type: ignore[arg-type]
                       pss_bytes=mb * 10**6, gpu_bytes=None, gpu_bytes_missing="the engine runs on the CPU")
            for phase, mb in peaks
        ),
        engine_version="1.22.0", effective_options={"threads": 2}, libraries={"numpy": "2.0.0"}, harness_cpu_s=0.001,
        meter_cpu_s=0.001,
    )  # fmt: skip


def model(number: int) -> ModelFacts:
    rng = random.Random(number)  # noqa: S311 - made-up results
    return make_model(name=f"Made-Up-{number}B-Instruct", ref=f"made-up-{number}b-instruct:q4_k_m",
                      file_sha256=digest(rng), tokenizer_sha256=digest(rng))  # fmt: skip


def machine(number: int) -> HostFacts:
    return host(cpu=msgspec.structs.replace(make_host().cpu, stepping=number, name=f"Made-up CPU {number}"))


def make(number: int, folder: Path) -> str:
    """Write one result, the same for the same number; return its path. Those below 0 are of one model and machine."""
    rng = random.Random(number)  # noqa: S311 - made-up results
    kind = (0, 0) if number < 0 else (rng.randrange(MODELS), rng.randrange(MACHINES))
    result = publishable(
        created=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number), model=model(kind[0]),
        host=machine(kind[1]), runs=tuple(process(rng, n) for n in range(PROCESSES)),
    )  # fmt: skip
    return str(store.save(result, folder))


def run(*words: str) -> Took:
    """Run the command line; raises ``RuntimeError`` if it fails."""
    begin_ns = CLOCK.now_ns()
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen([sys.executable, "-m", "perjoule", *words], stdout=subprocess.DEVNULL, stderr=errors)
        held = _Watch(child.pid)
        code = child.wait()
        seconds = (CLOCK.now_ns() - begin_ns) / 1e9
        held.stop()
        errors.seek(0)
        if code not in (0, 1, 3):  # compare answers by these
            raise RuntimeError(f"perjoule {words[0]} ended with {code}: {errors.read()[-500:].decode()}")
    return Took(seconds=seconds, cpu_s=held.cpu_s, peak_bytes=held.peak_bytes)


class _Watch:
    """Looks twenty times a second at the memory and CPU time of a process and of all below it."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0.0
        self._spent: dict[int, float] = {}  # by process; some end before the others
        self._top = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            held = 0
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):  # it ended while it was looked at
                for one in (self._top, *self._top.children(recursive=True)):
                    times = one.cpu_times()
                    self._spent[one.pid] = times.user + times.system
                    held += one.memory_info().rss
            self.peak_bytes = max(self.peak_bytes, held)

    @property
    def cpu_s(self) -> float:
        """Seconds of all that were seen, short of what each spent after the last look."""
        return sum(self._spent.values())

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def measured(folder: Path, files: int) -> tuple[list[Aim], str]:
    mine, to = folder / "mine", folder / "published"
    begin_ns = CLOCK.now_ns()
    paths = list(each(partial(make, folder=mine), range(files)))
    one_more, *pair = each(partial(make, folder=folder / "later"), [files, -1, -2])
    size = sum(Path(p).stat().st_size for p in paths) / len(paths)
    made = f"{files} files of {size / 1e3:.0f} kB, made in {(CLOCK.now_ns() - begin_ns) / 1e9:.0f} s"
    sql = "SELECT model, count(*), median(decode_tokens_per_s) FROM results GROUP BY model"
    share = files / AIMED_AT
    run("compare", *pair)  # so that nothing is read from the disk for the first time
    aims = [
        Aim(f"verify {files}", run("verify", str(mine)), 60 * share),
        Aim(f"publish {files}", run("publish", str(mine), "--to", str(to)), 60 * share, GB),
        Aim("publish one more", run("publish", one_more, "--to", str(to)), 3),
        Aim("query the published", run("query", sql, str(to)), 3),
        Aim("compare two", min((run("compare", *pair) for _ in range(5)), key=lambda t: t.seconds), 0.5),
    ]
    return aims, made


def table(aims: Sequence[Aim]) -> str:
    lines = [f"{'':22}{'s':>8}{'aim':>8}{'CPU s':>9}{'MB':>8}{'aim':>8}"]
    for aim in aims:
        most = "" if aim.most_bytes == float("inf") else f"{aim.most_bytes / 1e6:.0f}"
        took = aim.took
        lines.append(
            f"{aim.what:22}{took.seconds:8.2f}{aim.most_s:8.2f}{took.cpu_s:9.2f}{took.peak_bytes / 1e6:8.0f}{most:>8}"
            f"  {'met' if aim.met else 'MISSED'}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--files", type=int, default=AIMED_AT)
    parser.add_argument("--keep", metavar="DIR", help="make the files there and leave them")
    args = parser.parse_args()
    folder = Path(args.keep) if args.keep else Path(tempfile.mkdtemp(prefix="perjoule-scale-"))
    try:
        aims, made = measured(folder, args.files)
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{made}\n\n{table(aims)}")
    return 0 if all(aim.met for aim in aims) else 1


if __name__ == "__main__":
    sys.exit(main())
