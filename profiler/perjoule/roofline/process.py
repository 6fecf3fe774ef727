"""A fresh process for the kernels: it ends with its memory, its thread pools and its imports."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec

from perjoule.roofline import jobs

if TYPE_CHECKING:
    from perjoule.roofline.jobs import Answer, Job

LIMIT_S = 120.0  # what takes about two seconds anywhere has hung by then
_LAST_WORDS = 200
# Libraries read these once, when they are loaded; the kernels set the threads of ONNX Runtime themselves.
_LET_GO = {"OPENBLAS_THREAD_TIMEOUT": "4"}  # 2^4 cycles: else its idle threads spin for 2^26, beside other kernels
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "BLIS_NUM_THREADS")


def ask(job: Job, *, limit_s: float = LIMIT_S) -> Answer | str:
    """Return what a fresh process answers, or why there is no answer."""
    environment = os.environ | _LET_GO | dict.fromkeys(_THREADS, str(job.threads))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "perjoule.roofline"], input=jobs.encode(job), capture_output=True, env=environment,
            timeout=limit_s, check=False, start_new_session=True,  # Ctrl-C goes to the parent, which kills it
        )  # fmt: skip
    except OSError as error:
        return f"the kernel process cannot be started: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"the kernel process said nothing for {limit_s:g} s"
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        last = f": {words[-1][:_LAST_WORDS]}" if words else ""
        return f"the kernel process ended with status {done.returncode}{last}"
    try:
        return jobs.decode_answer(done.stdout)
    except msgspec.MsgspecError as error:
        return f"the kernel process answered nonsense: {error}"
