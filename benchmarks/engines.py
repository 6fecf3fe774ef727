"""Every engine on the same checkpoints, measured in turns in one run a checkpoint; writes the table of the docs.

An engine that cannot run a checkpoint gets a row with its own reason. Each runs at its defaults, which are the better
settings found for it where they were searched (docs/engines.md); they are written into the table. Whoever leads, leads.

    python benchmarks/engines.py --python .venv-reference/bin/python --write docs/engines-table.md MODEL...
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "profiler"))

from perjoule import store
from perjoule.compare.verdicts import judge_pairs
from perjoule.quality.intervals import FAITHFUL_NATS
from perjoule.records import Energy, Quantity, RunResult
from perjoule.render import format as fmt

ENGINES = ("onnxruntime", "llamacpp", "genai", "openvino", "optimum", "transformers")
OURS = "onnxruntime"
SAME_GRAPH = "genai"  # runs the folder that our converter writes
AIMS = {"decode_tokens_per_s": 1.2, "prefill_tokens_per_s": 1.3}
SETTINGS = (
    "provider", "spinning", "flash_attn", "ubatch", "kv_type", "kv_cache", "attention", "precision", "quantization",
    "io_binding",
)  # fmt: skip
PROBE = ("--quality", "none", "--time-budget", "1", "--set", "min_processes=2", "--set", "requests_per_process=1",
         "--set", "max_warmup_requests=1", "--set", "new_tokens=2")  # fmt: skip


def perjoule(python: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-m", "perjoule", *words], capture_output=True, text=True, check=False)


def why_not(python: str, engine: str, model: str) -> str:
    """Return why an engine cannot run a checkpoint, or nothing: a short run of its own says so."""
    with tempfile.TemporaryDirectory() as out:
        done = perjoule(python, "run", "quickstart", "--backend", engine, "--model", model, "--out", out, *PROBE)
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("perjoule: error: ")]
    return lines[-1].removeprefix("perjoule: error: ") if lines else f"exit {done.returncode}"


def measured(
    python: str, engines: list[str], model: str, rigor: str, budget_s: float, out: Path
) -> list[RunResult]:  # fmt: skip
    words = [word for engine in engines for word in ("--backend", engine)]
    done = perjoule(
        python, "run", "quickstart", *words, "--model", model, "--rigor", rigor, "--time-budget", f"{budget_s:g}",
        "--out", str(out),
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    return [store.load(path) for path in sorted(out.glob("*.json"))]


def cell(result: RunResult, name: str) -> str:
    value = result.metric(name)
    if isinstance(value, Energy):
        return fmt.energy_short(value)
    return fmt.metric(value)


def divergence(result: RunResult) -> str:
    if result.quality is None or result.quality.fidelity is None:
        return f"not known: {result.quality_missing if result.quality is None else result.quality.fidelity_missing}"
    return fmt.significant(result.quality.fidelity.kl_divergence_nats.mean.value, 2)


def row(result: RunResult) -> str:
    options = result.backend.effective_options
    told = ", ".join(f"{key} {options[key]}" for key in SETTINGS if key in options)
    engine = f"{result.backend.name} ({result.backend.engine_version})"
    precision = f"{result.model.runtime_quantization}, {result.model.bits_per_weight:.1f} bits" \
        if result.model.bits_per_weight is not None else result.model.runtime_quantization  # fmt: skip
    noisy = "" if result.publishable else " **disturbed**"
    return " | ".join((
        f"| {engine}{noisy}", precision, cell(result, "prefill_tokens_per_s"), cell(result, "decode_tokens_per_s"),
        cell(result, "ttft_s"), cell(result, "peak_memory_bytes"), divergence(result),
        cell(result, "energy_j_per_output_token"), str(len(result.processes)), f"{told} |",
    ))  # fmt: skip


def faithful(result: RunResult) -> bool:
    fidelity = None if result.quality is None else result.quality.fidelity
    return fidelity is not None and fidelity.kl_divergence_nats.mean.value <= FAITHFUL_NATS


def against_the_best(results: list[RunResult]) -> list[str]:
    """Hold our engine against the fastest others of equal fidelity, pair by pair of processes.

    One of them runs the very folder that our converter writes; the fastest beside it is told too.
    """
    ours = next((r for r in results if r.backend.name == OURS), None)
    peers = [r for r in results if r.backend.name != OURS and faithful(r)]
    if ours is None or not peers:
        return ["No other engine of equal fidelity ran this file."]
    lines = []
    for metric, aim in AIMS.items():
        known = [(p, value) for p in peers if isinstance(value := p.metric(metric), Quantity)]
        ranked = [p for p, _ in sorted(known, key=lambda pair: -pair[1].value)]
        own_graph = [p for p in ranked if p.backend.name != SAME_GRAPH][:1]
        lines += [_against(best, ours, metric, aim) for best in {p.id: p for p in (*ranked[:1], *own_graph)}.values()]
    return lines


def _against(best: RunResult, ours: RunResult, metric: str, aim: float) -> str:
    [pair] = judge_pairs((best, ours), [(0, 1)], primary=(metric,))
    ratio = pair.of(metric).ratio
    if ratio is None or ratio.low is None or ratio.high is None:
        return f"{metric}: no ratio to {best.backend.name}"
    met = "met" if ratio.low >= aim else "not met" if ratio.high < aim else "not decided"
    which = "which runs our converted graph" if best.backend.name == SAME_GRAPH else "best with a graph of its own"
    found = f"x{ratio.ratio:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) of {best.backend.name}, {which}"
    return f"{metric}: {OURS} is {found}, at equal fidelity; the aim of x{aim} is {met}."


def table(results: list[RunResult], refused: dict[str, str]) -> list[str]:
    order = {name: place for place, name in enumerate(ENGINES)}
    results = sorted(results, key=lambda r: order[r.backend.name])
    lines = [f"## {results[0].model.name}, {results[0].model.source_quantization}", ""]
    lines += ["| engine | runs as | prefill | decode | TTFT | peak memory | mean KL, nats | J per output token "
              "| processes | settings |", "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    lines += [row(r) for r in results]
    lines += [f"| {engine} | cannot run it: {why} |" + " |" * 8 for engine, why in refused.items()]
    return [*lines, "", *(f"- {line}" for line in against_the_best(results)), ""]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds a configuration")
    parser.add_argument("--rigor", default="standard", help="quick: 5 processes of each; standard: 8")
    parser.add_argument("--append", action="store_true", help="add to the file that --write names")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--write", metavar="FILE")
    parser.add_argument("--out", metavar="DIR", help="keep the results here")
    args = parser.parse_args()
    kept = Path(args.out or tempfile.mkdtemp(prefix="engines-"))
    parts: list[str] = []
    host = None
    for number, model in enumerate(args.models):
        refused = {e: why for e in args.engines.split(",") if (why := why_not(args.python, e, model))}
        print(json.dumps({"model": model, "refused": refused}), flush=True)
        running = [e for e in args.engines.split(",") if e not in refused]
        results = measured(args.python, running, model, args.rigor, args.budget, kept / str(number))
        host = results[0].host
        parts += table(results, refused)
    if host is None:
        return 2
    labels = "Joules are modelled from CPU time where no sensor is: their ratio means more than their size."
    head = [
        "# Engines side by side", "",
        "Made by `make bench-engines`: all engines in turns, in fresh processes, in one run a checkpoint, 256 prompt",
        f"tokens, 64 new ones; {host.cpu.name}, {host.cpu.threads} threads. Intervals are 95 %. {labels}", "",
    ]  # fmt: skip
    text = "\n".join([*head, *parts]).rstrip() + "\n"
    print(text)
    if args.write:
        before = Path(args.write).read_text(encoding="utf-8") if args.append else ""
        text = f"{before}\n" + "\n".join(parts).rstrip() + "\n" if args.append else text
        Path(args.write).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
