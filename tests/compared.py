"""Results to compare: as of one interleaved run, or of separate ones, with a pace and a spread between processes."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

import msgspec
from builders import make_process, make_raw, make_sample, make_windows

from perjoule.assemble import assemble
from perjoule.protocols import EngineOptions

if TYPE_CHECKING:
    from perjoule.measure import ProcessRun
    from perjoule.records import RunResult

TURN_S = 200.0  # a round of two configurations


def process(number: int, pace: float, place: int, memory: float) -> ProcessRun:
    """Return a process at its place in the round; all of its times are ``pace`` times the usual."""
    start_s = TURN_S * number + 100 * place
    samples = tuple(
        make_sample(number, i, start_s=start_s + 5 * i, ttft_s=0.5 * pace, itl_s=0.02 * pace,
                    phase="measured" if i > 1 else "warmup")
        for i in range(5)
    )  # fmt: skip
    usual = make_process(number)
    return msgspec.structs.replace(
        usual,
        record=msgspec.structs.replace(usual.record, start_s=start_s),
        samples=samples,
        windows=tuple(w for s in samples for w in make_windows(s)),
        memory=tuple(
            msgspec.structs.replace(m, rss_peak_bytes=int((m.rss_peak_bytes or 0) * memory)) for m in usual.memory
        ),
    )


def measured(
    pace: float = 1.0, *, place: int = 0, processes: int = 12, spread: float = 0.003, memory: float = 1.0,
    seed: int = 1, **raw: Any,
) -> RunResult:  # fmt: skip
    """Return a result; two with ``place`` 0 and 1 were measured in turn, two with the same place were not."""
    draw = random.Random(f"{seed} {place}")
    runs = tuple(
        process(n, pace * math.exp(spread * draw.gauss(0, 1)), place, memory * math.exp(1e-5 * draw.gauss(0, 1)))
        for n in range(processes)
    )
    return assemble(make_raw(runs=runs, **raw))


def options(**changes: Any) -> EngineOptions:
    return msgspec.structs.replace(EngineOptions(threads=2, context_tokens=320), **changes)
