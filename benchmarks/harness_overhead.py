"""What the harness costs: CPU time of parent and worker while the null engine emits a token every 20 ms.

A bare loop of `time.sleep` at the same pace runs before and after it, in an interpreter of its own: what waking up
so often costs on this machine, whoever does it. The difference is the harness. Nothing is asserted: the figures mean
something only on a machine that does nothing else, so the share of other processes is printed beside them.

    python benchmarks/harness_overhead.py [--tokens 1500]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PACE_S = 0.020
FLOOR = """
import sys, time
tokens, pace_s = int(sys.argv[1]), float(sys.argv[2])
begin, cpu = time.monotonic(), time.process_time()
for _ in range(tokens):
    time.sleep(pace_s)
print(time.process_time() - cpu, time.monotonic() - begin)
"""


def floor(tokens: int) -> tuple[float, float]:
    """Return CPU seconds a wake-up and the share of one core of a loop that only sleeps."""
    done = subprocess.run(
        [sys.executable, "-c", FLOOR, str(tokens), str(PACE_S)], check=True, capture_output=True, text=True
    )
    cpu_s, wall_s = (float(word) for word in done.stdout.split())
    return cpu_s / tokens, cpu_s / wall_s


def null_run(tokens: int, folder: Path) -> dict[str, Any]:
    settings = {
        "new_tokens": tokens, "requests_per_process": 1, "min_processes": 1, "max_warmup_requests": 1,
        "backend.itl_s": PACE_S,
    }  # fmt: skip
    command = [sys.executable, "-m", "perjoule", "run", "quickstart", "--backend", "null", "--time-budget", "1"]
    command += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    subprocess.run([*command, "--out", str(folder)], check=True, stdout=subprocess.DEVNULL)
    [path] = folder.glob("*.json")
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def measured(result: dict[str, Any]) -> dict[str, float]:
    """Return CPU and wall seconds of the measured requests: of the worker, of the parent, of everybody else.

    There is one, and one more for each that was disturbed and tried again.
    """
    samples = [s for s in result["samples"] if s["phase"] == "measured"]
    stems = {s["window"] for s in samples}
    windows = [w for w in result["windows"] if w["id"].rpartition("/")[0] in stems]
    return {
        "tokens": sum(s["output_tokens"] for s in samples),
        "wall_s": sum(w["end_s"] - w["start_s"] for w in windows),
        "worker_s": sum(w["cpu_s"] for w in windows),
        "parent_s": result["overhead"]["harness_cpu_s"],
        "others_s": sum(w["foreign_cpu_s"] for w in windows),
        "threads": result["host"]["cpu"]["threads"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1500, metavar="N", help="tokens of the request (1500: 30 s)")
    args = parser.parse_args()
    before = floor(args.tokens)
    with tempfile.TemporaryDirectory() as folder:
        seen = measured(null_run(args.tokens, Path(folder)))
    after = floor(args.tokens)

    def row(title: str, per_token_s: float, share: float) -> None:
        print(f"{title:<34} {1e6 * per_token_s:8.1f} us of CPU time a token {100 * share:8.3f} % of one core")

    print(f"{args.tokens} tokens, one each {1000 * PACE_S:g} ms")
    row("bare sleep loop, before", *before)
    for part in ("worker", "parent"):
        row(f"null engine, {part}", seen[f"{part}_s"] / seen["tokens"], seen[f"{part}_s"] / seen["wall_s"])
    both_s = seen["worker_s"] + seen["parent_s"]
    row("null engine, worker and parent", both_s / seen["tokens"], both_s / seen["wall_s"])
    row("bare sleep loop, after", *after)
    own_s = both_s / seen["tokens"] - (before[0] + after[0]) / 2
    row("beyond the bare loop", own_s, own_s / PACE_S)
    others = seen["others_s"] / (seen["threads"] * seen["wall_s"])
    print(f"other processes used {others:.1%} of all cores meanwhile{'' if others < 0.02 else ': NOT QUIET'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
