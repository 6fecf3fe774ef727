"""Kernels that stream memory or multiply matrices, timed: the fastest way is the peak. Runs in a process of its own.

docs/adr/0004-roofline.md says what was compared. numpy is enough for bandwidth and fp32; the rest is ONNX Runtime's.
"""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from perjoule.roofline import runtime
from perjoule.roofline.jobs import PeaksFound, PeaksJob, WorkDone, WorkJob
from perjoule.roofline.ways import Way, fastest, growing, seconds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perjoule.protocols import Clock

_BLOCK_S = {"bandwidth": 0.05, "fp32": 0.02, "int8": 0.02, "bf16": 0.02}  # of one way
_ROUND_SIZE, _BYTES_PER_PRODUCT = 512, 1 << 25  # a round multiplies once for as many bytes that it reads
_LEAST_ROUNDS = 3


def find_peaks(job: PeaksJob, clock: Clock) -> PeaksFound:
    """Measure all peaks; what this machine's libraries cannot do is null with the reason."""
    fields: dict[str, Any] = {}
    for name, ways in (
        ("bandwidth", [streaming(job), *runtime.streaming(job.threads, job.buffer_bytes)]),
        ("fp32", [_multiply, *runtime.multiplications("fp32", job.threads)]),
        ("int8", runtime.multiplications("int8", job.threads)),
        ("bf16", runtime.multiplications("bf16", job.threads)),
    ):
        unit = "bytes/s" if name == "bandwidth" else "ops/s"
        found = fastest(list(growing(ways, clock)), unit=unit, block_s=_BLOCK_S[name], clock=clock)
        fields |= {name: None, f"{name}_missing": found} if isinstance(found, str) else {name: found}
    return PeaksFound(**fields)


def streaming(job: PeaksJob | WorkJob) -> Way:
    """Return numpy's way to read a buffer once: bit-wise OR, each Python thread a part of its own."""
    import numpy as np  # noqa: PLC0415 - heavy, and not for the parent

    parts = _buffers(job.threads, job.buffer_bytes)
    pool = ThreadPoolExecutor(job.threads)

    def read(part: NDArray[Any]) -> object:
        return np.bitwise_or.reduce(part)  # releases the interpreter's lock

    total = float(sum(part.nbytes for part in parts))
    return Way("numpy bitwise_or.reduce", total, lambda: list(pool.map(read, parts)))


def _buffers(threads: int, buffer_bytes: int) -> list[NDArray[Any]]:
    """Return one part for each thread of an array whose pages exist, each first touched by a thread."""
    import numpy as np  # noqa: PLC0415

    length = max(1, buffer_bytes // 8 // threads)
    whole = np.empty(length * threads, np.int64)
    parts = [whole[i * length : (i + 1) * length] for i in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: part.fill(1), parts))
    return parts


def _multiply(size: int) -> Way:
    """Return numpy's product of two square float32 matrices, in BLAS."""
    import numpy as np  # noqa: PLC0415

    left, right = (np.random.default_rng(seed).random((size, size), np.float32) for seed in (0, 1))
    out = np.empty((size, size), np.float32)
    return Way(f"numpy matmul {size}", 2.0 * size**3, lambda: np.matmul(left, right, out=out))


def work(job: WorkJob, clock: Clock) -> WorkDone:
    """Do rounds of one pass over the buffer and one small matrix product, and return the median round.

    Half memory and half arithmetic, as decode and prefill are; numpy alone, so that it is the same everywhere.
    """
    read, multiply = streaming(job), _multiply(_ROUND_SIZE)
    products = max(1, job.buffer_bytes // _BYTES_PER_PRODUCT)

    def one() -> None:
        read.run()
        for _ in range(products):
            multiply.run()

    step = Way("round", 1.0, one)
    one()
    spent_s: list[float] = []
    while len(spent_s) < max(job.rounds, _LEAST_ROUNDS) or (not job.rounds and sum(spent_s) < job.seconds):
        spent_s.append(seconds(step, clock))
    return WorkDone(rounds=len(spent_s), round_s=statistics.median(spent_s))
