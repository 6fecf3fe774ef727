"""The measured process: one engine, one job. Reads a job on standard input, writes events to its own pipe.

Run as ``python -m perjoule.worker EVENT_FD``. Standard output and error belong to the engine; the parent
keeps them as its last words. The load generator runs here, beside the engine, so that no token crosses a
process boundary before it is stamped.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from importlib.metadata import PackageNotFoundError, version
from typing import BinaryIO, NoReturn

from perjoule import memory, messages, page_cache, placement, registry
from perjoule.clock import MonotonicClock
from perjoule.drive.link import Link
from perjoule.drive.requests import RequestDriver
from perjoule.drive.spans import SpanDriver
from perjoule.errors import EXIT_ENGINE, HostError, PerjouleError

_PR_SET_PDEATHSIG = 1  # prctl(2)
_WARM = "measure with --set page_cache=warm"
_ONE_BY_ONE = ("single-stream", "cold-start")
_LIBRARIES = ("onnxruntime", "numpy", "tokenizers", "llama-cpp-python")


def die_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to send this process a signal when its parent dies, so that no engine is ever orphaned."""
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415 - only on Linux

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, by)


class Worker:
    def __init__(self, events: BinaryIO, commands: BinaryIO) -> None:
        self._link = Link(events, commands)
        self._clock = MonotonicClock()

    def run(self) -> int:
        """Do the one job; return the exit code of the process."""
        try:
            job = self._link.job()
            if isinstance(job, messages.PrepareJob):
                self._prepare(job)
            else:
                self._measure(job)
        except PerjouleError as error:
            self._link.say(messages.Failed(message=error.message, hint=error.hint, exit_code=error.exit_code))
            return error.exit_code
        except MemoryError:
            self._link.say(messages.Failed(
                message="the engine ran out of memory",
                hint="use a smaller model, a lower --quant or a shorter context",
                exit_code=EXIT_ENGINE,
                details=traceback.format_exc(),
            ))  # fmt: skip
            return EXIT_ENGINE
        except Exception as error:  # noqa: BLE001 - an engine may raise anything; the parent reports it
            self._link.say(messages.Failed(
                message=f"the engine failed: {type(error).__name__}: {_first_line(error)}",
                hint="run again with --debug for the traceback",
                exit_code=EXIT_ENGINE,
                details=traceback.format_exc(),
            ))  # fmt: skip
            return EXIT_ENGINE
        return 0

    def _prepare(self, job: messages.PrepareJob) -> None:
        signal.signal(signal.SIGTERM, _leave)  # whatever is half written is removed on the way out
        die_with_parent(signal.SIGTERM)
        backend = registry.backend(job.backend)

        def progress(text: str, share: float | None) -> None:
            self._link.say(messages.Progress(text=text, done_share=share))

        prepared = backend.prepare(job.ref, job.options, progress)
        self._link.say(messages.PreparedReply(prepared=prepared))

    def _measure(self, job: messages.MeasureJob) -> None:
        placement.place(job.pin, job.nice)  # before an engine has threads
        backend = registry.backend(job.backend)
        kept = page_cache.drop(job.prepared.path) if job.page_cache == "dropped" and job.prepared.folder else ""
        if kept:
            raise HostError(f"the model's files cannot be dropped from the page cache: {kept}", hint=_WARM)
        refused, read_before = memory.reset_peak(), page_cache.read_bytes()
        start_ns = self._clock.now_ns()
        engine = backend.load(job.prepared, job.options)
        end_ns = self._clock.now_ns()
        self._link.say(messages.Loaded(
            start_ns=start_ns,
            end_ns=end_ns,
            engine_version=backend.engine_version(),
            effective_options=dict(engine.effective_options()),
            libraries=_library_versions(),
            memory=memory.read_peak(job.process, "load", reset_refused=refused),
            read_bytes=_difference(read_before, page_cache.read_bytes()),
        ))  # fmt: skip
        driver = RequestDriver if job.shape in _ONE_BY_ONE else SpanDriver
        try:
            driver(self._link, self._clock, job, engine).run()
        finally:
            engine.close()


def _difference(before: int | str, after: int | str) -> int | str:
    return after if isinstance(after, str) else before if isinstance(before, str) else after - before


def _library_versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _leave(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no message"])[0]


def main() -> int:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    with os.fdopen(int(sys.argv[1]), "wb") as events:
        return Worker(events, sys.stdin.buffer).run()


if __name__ == "__main__":
    sys.exit(main())
