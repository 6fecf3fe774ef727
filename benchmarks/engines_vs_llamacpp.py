"""Prefill and decode of the onnxruntime backend against llama.cpp on the same GGUF file.

Each observation is a fresh process; the two engines take turns, so that drift of the machine falls on both.
llama.cpp first gets a search over its own settings (flash attention, batch and micro-batch) and runs the
best one found, in a raw decode loop without sampler or Python tokenizer. Printed: ratios of speeds with a
95 % t interval on the log ratio of the pairs, the settings, and llama.cpp's build flags.

    python benchmarks/engines_vs_llamacpp.py MODEL.gguf --ours-python .venv/bin/python \
        --theirs-python .venv-llama/bin/python --threads 2 --pairs 8
"""

# ruff: noqa: PLC0415 - the two engines live in two environments: each imports only what its role has

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

PROMPT_SEED = 20_000  # ids of the prompt are drawn from the low, common part of the vocabulary
WARM_UPS, REPEATS = 1, 3


def prompt_ids(count: int, vocabulary: int, turn: int) -> list[int]:
    import random

    generator = random.Random(turn)  # noqa: S311 - an order of tokens, not a secret
    return [generator.randrange(300, min(PROMPT_SEED, vocabulary)) for _ in range(count)]


def ours(args: argparse.Namespace) -> dict[str, object]:
    from perjoule.protocols import EngineOptions
    from perjoule_backends.onnxruntime import OnnxRuntimeBackend

    backend = OnnxRuntimeBackend()
    options = EngineOptions(threads=args.threads, quant=args.quant, context_tokens=args.prompt + args.new)
    engine = backend.load(backend.prepare(args.model, options, lambda _text, _share: None), options)
    prefill, decode = [], []
    for turn in range(WARM_UPS + REPEATS):
        ids = prompt_ids(args.prompt, PROMPT_SEED, turn)
        stamps: list[float] = []
        start = time.perf_counter()
        engine.generate(ids, args.new, frozenset(), lambda _token, stamps=stamps: stamps.append(time.perf_counter()))
        prefill.append(args.prompt / (stamps[0] - start))
        decode.append((len(stamps) - 1) / (stamps[-1] - stamps[0]))
    return summary(prefill, decode, dict(engine.effective_options()) | {"version": backend.engine_version()})


def theirs(args: argparse.Namespace) -> dict[str, object]:
    import llama_cpp
    import numpy as np

    settings = json.loads(args.settings)
    flash = (
        llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if settings["flash_attn"] else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(args.model.encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp cannot load {args.model}")
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = args.prompt + args.new, settings["batch"], settings["ubatch"]
    params.n_threads = params.n_threads_batch = args.threads
    params.flash_attn_type = flash
    context = llama_cpp.llama_init_from_model(model, params)
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    memory = llama_cpp.llama_get_memory(context)

    def forward(ids: list[int]) -> int:
        """Feed ids in the batches the context allows; return the greedy next id."""
        for at in range(0, len(ids), settings["batch"]):
            part = ids[at : at + settings["batch"]]
            array = (llama_cpp.llama_token * len(part))(*part)
            if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(part))):
                raise SystemExit("llama_decode failed")
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), shape=(vocabulary,))
        return int(logits.argmax())

    prefill, decode = [], []
    for turn in range(WARM_UPS + REPEATS):
        ids = prompt_ids(args.prompt, vocabulary, turn)
        llama_cpp.llama_memory_clear(memory, True)
        start = time.perf_counter()
        token = forward(ids)
        first = time.perf_counter()
        for _ in range(args.new - 1):
            token = forward([token])
        prefill.append(args.prompt / (first - start))
        decode.append((args.new - 1) / (time.perf_counter() - first))
    build = llama_cpp.llama_print_system_info().decode()
    return summary(prefill, decode, settings | {"version": llama_cpp.__version__, "build": build})


def summary(prefill: list[float], decode: list[float], settings: dict[str, object]) -> dict[str, object]:
    return {
        "prefill_tok_per_s": statistics.median(prefill[WARM_UPS:]),
        "decode_tok_per_s": statistics.median(decode[WARM_UPS:]),
        "settings": settings,
    }


def observe(python: str, role: str, args: argparse.Namespace, settings: dict[str, object] | None = None) -> dict:
    command = [python, str(Path(__file__).resolve()), args.model, "--role", role, "--threads", str(args.threads)]
    command += ["--prompt", str(args.prompt), "--new", str(args.new), "--quant", args.quant]
    command += ["--settings", json.dumps(settings or {})]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{role} failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


def best_settings(args: argparse.Namespace) -> dict[str, object]:
    """Search llama.cpp's settings: the fastest whole request (prefill and decode times added) wins."""
    best, best_s = {}, math.inf
    for flash, (batch, ubatch) in product((True, False), ((2048, 512), (512, 512), (256, 256), (512, 128))):
        settings = {"flash_attn": flash, "batch": batch, "ubatch": ubatch}
        seen = observe(args.theirs_python, "theirs", args, settings)
        took = args.prompt / seen["prefill_tok_per_s"] + args.new / seen["decode_tok_per_s"]
        print(f"  {settings}: prefill {seen['prefill_tok_per_s']:.0f}, decode {seen['decode_tok_per_s']:.1f} tok/s")
        if took < best_s:
            best, best_s = settings, took
    return best


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Return geometric mean and 95 % t interval of paired ratios, from their logarithms."""
    from scipy.stats import t

    logs = [math.log(r) for r in ratios]
    middle = statistics.fmean(logs)
    half = float(t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def compare(args: argparse.Namespace) -> None:
    print(f"{Path(args.model).name}, {args.threads} threads, {args.prompt} prompt tokens, {args.new} new tokens")
    print("llama.cpp, settings tried:")
    settings = best_settings(args)
    pairs = []
    for turn in range(args.pairs):
        roles = [("ours", args.ours_python, None), ("theirs", args.theirs_python, settings)]
        seen = {role: observe(python, role, args, given) for role, python, given in roles[:: 1 if turn % 2 else -1]}
        pairs.append((seen["ours"], seen["theirs"]))
    for role, facts in zip(("ours", "llama.cpp"), pairs[0], strict=True):
        print(f"{role}: {json.dumps(facts['settings'])}")
    for name in ("prefill_tok_per_s", "decode_tok_per_s"):
        left, right = [p[0][name] for p in pairs], [p[1][name] for p in pairs]
        mean, low, high = interval([a / b for a, b in zip(left, right, strict=True)])
        print(
            f"{name}: ours {statistics.median(left):.1f}, llama.cpp {statistics.median(right):.1f}; "
            f"ratio {mean:.3f} ({low:.3f} to {high:.3f}, 95 %, n = {len(pairs)} pairs of processes)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="path of the GGUF file, the same for both")
    parser.add_argument("--ours-python", default=sys.executable, help="python with perjoule[cpu]")
    parser.add_argument("--theirs-python", default=sys.executable, help="python with llama-cpp-python")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--quant", default="faithful")
    parser.add_argument("--role", choices=("compare", "ours", "theirs"), default="compare", help=argparse.SUPPRESS)
    parser.add_argument("--settings", default="{}", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role == "compare":
        if args.pairs < 2:
            parser.error("an interval needs at least 2 pairs")
        compare(args)
        return
    print(json.dumps({"ours": ours, "theirs": theirs}[args.role](args)))


if __name__ == "__main__":
    main()
