"""The kernel process: ``python -m perjoule.roofline`` reads a job on standard input and answers on standard output."""

from __future__ import annotations

import os
import sys

from perjoule.clock import MonotonicClock
from perjoule.roofline import jobs
from perjoule.roofline.kernels import find_peaks, work


def main() -> None:
    job = jobs.decode_job(sys.stdin.buffer.readline())
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    clock = MonotonicClock()
    answer = find_peaks(job, clock) if isinstance(job, jobs.PeaksJob) else work(job, clock)
    with answers:
        answers.write(jobs.encode(answer))


if __name__ == "__main__":
    main()
