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
from perjoule.protocols import EngineOptions, LogitsEngine, ScoringBackend

_PR_SET_PDEATHSIG = 1  # prctl(2)
_WARM = "measure with --set page_cache=warm"
_PASSAGE_CONTEXT = 1024  # tokens at a time of a passage: logits of all positions take 600 MB at most
_ONE_BY_ONE = ("single-stream", "cold-start")
_NO_LOAD = "the server had loaded it before"
_LIBRARIES = (
    "onnxruntime", "numpy", "tokenizers", "llama-cpp-python", "openvino-genai", "onnxruntime-genai", "optimum-onnx",
    "torch", "transformers",
)  # fmt: skip


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
            elif isinstance(job, messages.QualityJob):
                self._judge(job)
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
        prepared = backend.prepare(job.ref, job.options, self._progress)
        self._link.say(messages.PreparedReply(prepared=prepared))

    def _judge(self, job: messages.QualityJob) -> None:
        """Answer from what an earlier process found, or load the engine beside the fp32 reference and compare."""
        from perjoule.quality import stored  # noqa: PLC0415 - not where time is measured
        from perjoule.quality.measure import measure_quality  # noqa: PLC0415

        backend = registry.backend(job.backend)
        version_ = backend.engine_version()
        key = stored.key_of(
            job.backend, version_, job.prepared.model, job.options, job.machine_id, wanted=job.wanted
        )  # fmt: skip
        found = stored.load(key)
        if found is None:
            reference, said = _reference(job)
            engine = backend.load(job.prepared, job.options)
            try:
                found = measure_quality(
                    engine, version_, reference, said, self._progress,
                    context_tokens=_PASSAGE_CONTEXT if job.wanted == "full" else 0,
                )  # fmt: skip
            finally:
                engine.close()
            if found.fidelity is not None:
                stored.save(key, found)  # one that cannot be kept is measured again
        self._link.say(messages.QualityReply(quality=found))

    def _progress(self, text: str, share: float | None) -> None:
        self._link.say(messages.Progress(text=text, done_share=share))

    def _measure(self, job: messages.MeasureJob) -> None:
        placement.place(job.pin, job.nice)  # before an engine has threads
        backend = registry.backend(job.backend)
        kept = page_cache.drop(job.prepared.path) if job.page_cache == "dropped" and job.prepared.folder else ""
        if kept:
            raise HostError(f"the model's files cannot be dropped from the page cache: {kept}", hint=_WARM)
        holder = memory.Holder(job.prepared.server, job.server_pid, job.options.device)
        refused, read_before = memory.reset_peak(holder), page_cache.read_bytes()
        start_ns = self._clock.now_ns()
        engine = backend.load(job.prepared, job.options)
        end_ns = self._clock.now_ns()
        self._link.say(messages.Loaded(
            start_ns=start_ns,
            end_ns=end_ns,
            engine_version=backend.engine_version(),
            effective_options=dict(engine.effective_options()),
            libraries=_library_versions(),
            memory=memory.read_peak(job.process, "load", reset_refused=refused, holder=holder),
            read_bytes=_difference(read_before, page_cache.read_bytes()) if holder.server is None else _NO_LOAD,
        ))  # fmt: skip
        driver = RequestDriver if job.shape in _ONE_BY_ONE else SpanDriver
        try:
            driver(self._link, self._clock, job, engine).run()
        finally:
            engine.close()


def _reference(job: messages.QualityJob) -> tuple[LogitsEngine | str, str]:
    """Return what gives the checkpoint's own logits, or why nothing does; and what to call it."""
    if isinstance(job.reference, str):
        return job.reference, ""
    backend = registry.backend(job.reference_backend)
    options = EngineOptions(threads=job.options.threads, quant="fp32", context_tokens=job.reference.context_tokens)
    said = f"the checkpoint's own weights in fp32, {job.reference_backend} {backend.engine_version()}"
    if isinstance(backend, ScoringBackend):
        return backend.scorer(job.reference, options), said
    engine = backend.load(job.reference, options)
    return (engine, said) if isinstance(engine, LogitsEngine) else (f"{job.reference_backend} gives no logits", "")


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
