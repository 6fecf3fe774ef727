"""Results whose joules a made-up sensor measured, with a known truth: E = P0 * T + e * bytes, on one machine."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from builders import make_model, make_process, make_result, make_sample, make_windows

from perjoule.assemble import derive
from perjoule.records import MeterFact, Reading, RunResult, Sample, Window
from perjoule.scenario import spec_sha256

P0_W = 12.0
E_J_PER_BYTE = 150e-12
SMALL, MIDDLE, LARGE = (("Small", 100_000_000), ("Middle", 300_000_000), ("Large", 900_000_000))
LONG_ANSWER, LONG_PROMPT = ({"ttft_s": 0.3, "output_tokens": 96}, {"ttft_s": 2.0, "output_tokens": 12})


def rapl(**changes: Any) -> MeterFact:
    fact = MeterFact(
        domain="package-0", scope="package", kind="counter", label="measured", grade="rapl-package", tick_s=0.001,
        source="made up", unit_j="1/1000000", min_window_s=1.0, tolerance=0.05,
    )  # fmt: skip
    return msgspec.structs.replace(fact, **changes)


def measured(
    model: tuple[str, int], load: dict[str, Any], *, factor: float = 1.0, p0_w: float = P0_W,
    e_j_per_byte: float = E_J_PER_BYTE, meter: MeterFact | None = None, **changes: Any,
) -> RunResult:  # fmt: skip
    """Return a result of five processes whose counters say ``factor`` times what the truth says."""
    name, weights = model
    samples: list[Sample] = []
    windows: list[Window] = []
    for process in range(5):
        for index in range(2, 5):
            sample = make_sample(
                process,
                index,
                start_s=100.0 * process + 10 * index,
                itl_s=weights / 10e9 * (1 + 0.01 * process),
                **load,
            )
            samples.append(sample)
            windows += [_read(w, sample, weights, factor, p0_w, e_j_per_byte) for w in make_windows(sample)]
    base = _base()
    given = load["output_tokens"]
    spec = {**base.scenario.spec, "new_tokens": given, "requests_per_process": 3}
    scenario = msgspec.structs.replace(base.scenario, spec=spec, sha256=spec_sha256(spec))
    facts = make_model(
        name=name, file_sha256=f"{weights:064x}", weights_bytes=weights, streamed_bytes_per_token=weights
    )
    raw = {
        "model": facts, "scenario": scenario, "samples": tuple(samples), "windows": tuple(windows),
        "meters": (meter or rapl(),), "processes": tuple(make_process(p).record for p in range(5)),
    }  # fmt: skip
    return derive(msgspec.structs.replace(base, **{**raw, **changes}))


@cache
def _base() -> RunResult:
    return make_result()


def truth_j(windows: list[Window] | tuple[Window, ...]) -> float:
    return sum(P0_W * w.duration_s + E_J_PER_BYTE * (w.bytes_streamed or 0) for w in windows)


def _read(window: Window, sample: Sample, weights: int, factor: float, p0_w: float, e_j_per_byte: float) -> Window:
    streamed = weights if window.phase == "prefill" else weights * (sample.output_tokens - 1)
    joules = factor * (p0_w * window.duration_s + e_j_per_byte * streamed)
    reading = Reading(domain="package-0", start_count=1000, end_count=1000 + round(joules * 1e6))
    return msgspec.structs.replace(window, bytes_streamed=streamed, readings=(reading,))
