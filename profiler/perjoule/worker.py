"""The measured process: one engine, one job. Reads a job on standard input, writes events to its own pipe.

Run as ``python -m perjoule.worker EVENT_FD``. Standard output and error belong to the engine; the parent
keeps them as its last words. The load generator runs here, beside the engine, so that no token crosses a
process boundary before it is stamped.
"""

from __future__ import annotations

import gc
import hashlib
import math
import os
import signal
import sys
import traceback
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from perjoule import memory, messages, registry
from perjoule.clock import MonotonicClock
from perjoule.errors import EXIT_ENGINE, EngineError, InputError, PerjouleError
from perjoule.load.prompts import prompt_text
from perjoule.load.single_stream import Observed, observe_prefills, observe_request
from perjoule.stats.steady import is_steady

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.protocols import Engine, Tokenizer
    from perjoule.records import MemoryPeak

_PR_SET_PDEATHSIG = 1  # prctl(2)
_TRIES, _SPANS = 2, 3  # how often disturbed requests are measured again, and how far beyond the window
_MAX_BLOCK = 2000  # prompts of one block
_SPARE, _FULL = 1.5, 1.02  # prompts to spare, and a window a little over what the sensor needs
_LIBRARIES = ("onnxruntime", "numpy", "tokenizers", "llama-cpp-python")


def die_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to send this process a signal when its parent dies, so that no engine is ever orphaned."""
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415 - only on Linux

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, by)


class Worker:
    def __init__(self, events: BinaryIO, commands: BinaryIO) -> None:
        self._events = events
        self._commands = commands
        self._clock = MonotonicClock()
        self._kept = True  # the parent's verdict on the last request

    def say(self, event: messages.Event) -> None:
        self._events.write(messages.encode(event))
        self._events.flush()

    def run(self) -> int:
        """Do the one job; return the exit code of the process."""
        try:
            job = messages.decode_job(self._commands.readline())
            if isinstance(job, messages.PrepareJob):
                self._prepare(job)
            else:
                self._measure(job)
        except PerjouleError as error:
            self.say(messages.Failed(message=error.message, hint=error.hint, exit_code=error.exit_code))
            return error.exit_code
        except MemoryError:
            self.say(messages.Failed(
                message="the engine ran out of memory",
                hint="use a smaller model, a lower --quant or a shorter context",
                exit_code=EXIT_ENGINE,
                details=traceback.format_exc(),
            ))  # fmt: skip
            return EXIT_ENGINE
        except Exception as error:  # noqa: BLE001 - an engine may raise anything; the parent reports it
            self.say(messages.Failed(
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
            self.say(messages.Progress(text=text, done_share=share))

        prepared = backend.prepare(job.ref, job.options, progress)
        self.say(messages.PreparedReply(prepared=prepared))

    def _measure(self, job: messages.MeasureJob) -> None:
        backend = registry.backend(job.backend)
        refused = memory.reset_peak()
        start_ns = self._clock.now_ns()
        engine = backend.load(job.prepared, job.options)
        end_ns = self._clock.now_ns()
        self.say(messages.Loaded(
            start_ns=start_ns,
            end_ns=end_ns,
            engine_version=backend.engine_version(),
            effective_options=dict(engine.effective_options()),
            libraries=_library_versions(),
            memory=memory.read_peak(job.process, "load", reset_refused=refused),
        ))  # fmt: skip
        try:
            self._drive(job, engine)
        finally:
            engine.close()

    def _drive(self, job: messages.MeasureJob, engine: Engine) -> None:
        prompts = Prompts(job, engine.tokenizer)
        refused = memory.reset_peak()
        steady = self._warm_up(job, engine, prompts)
        shortest_prefill_s = self._measured_requests(job, engine, prompts)
        if shortest_prefill_s < job.prefill_block_s:
            self._prefill_block(job, engine, prompts, shortest_prefill_s)
        peaks = [memory.read_peak(job.process, "requests", reset_refused=refused)]
        peaks += self._memory_request(job, engine, prompts)
        self.say(messages.Finished(
            steady=steady, shared_prefix_tokens=prompts.shared_prefix_tokens, memory=tuple(peaks)
        ))  # fmt: skip

    def _measured_requests(self, job: messages.MeasureJob, engine: Engine, prompts: Prompts) -> float:
        """Run requests until enough undisturbed ones fill the meters' window; return the shortest prefill, s.

        Disturbed ones are measured again, up to twice as many requests, or three times the window, in all.
        """
        kept, tries, kept_s, spent_s, shortest_prefill_s = 0, 0, 0.0, 0.0, math.inf
        while (kept < job.requests and tries < _TRIES * job.requests) or (
            kept_s < job.min_span_s and spent_s < _SPANS * job.min_span_s
        ):
            observed = self._request(job, engine, prompts, measured=True)
            seconds = (observed.end_ns - observed.start_ns) / 1e9
            tries, spent_s = tries + 1, spent_s + seconds
            if self._kept:
                kept, kept_s = kept + 1, kept_s + seconds
            shortest_prefill_s = min(shortest_prefill_s, (observed.first_token_ns - observed.start_ns) / 1e9)
        return shortest_prefill_s

    def _warm_up(self, job: messages.MeasureJob, engine: Engine, prompts: Prompts) -> bool:
        """Run requests until prefill and decode times of successive ones agree; the first is the cold one."""
        prefill_s: list[float] = []
        decode_s: list[float] = []
        for index in range(job.max_warmup_requests):
            seen = self._request(job, engine, prompts, measured=False)
            if index == 0:
                continue
            prefill_s.append((seen.first_token_ns - seen.start_ns) / 1e9)
            decode_s.append((seen.end_ns - seen.first_token_ns) / 1e9)
            if is_steady(prefill_s) and is_steady(decode_s):
                return True
        return False

    def _request(self, job: messages.MeasureJob, engine: Engine, prompts: Prompts, *, measured: bool) -> Observed:
        prompt = prompts.next()
        gc.collect()  # here, not in the window: it takes milliseconds once an engine is loaded
        self.say(messages.Ready(index=prompt.index, measured=measured))
        self._wait_for_go()
        observed = observe_request(
            engine,
            self._clock,
            prompt.ids,
            job.new_tokens,
            on_first_token=lambda at_ns: self.say(messages.FirstToken(at_ns=at_ns)),
            on_end=lambda: self.say(messages.LastToken()),
        )
        self.say(messages.Request(
            index=prompt.index,
            measured=measured,
            prompt_text_sha256=prompt.text_sha256,
            prompt_ids_sha256=prompt.ids_sha256,
            prompt_tokens=len(prompt.ids),
            observed=observed,
        ))  # fmt: skip
        self._kept = self._commands.readline() == messages.KEPT
        return observed

    def _prefill_block(self, job: messages.MeasureJob, engine: Engine, prompts: Prompts, prefill_s: float) -> None:
        """Repeat prefills, each of a new prompt, until a slow sensor's window is filled."""
        need = math.ceil(_SPARE * job.prefill_block_s / max(prefill_s, 1e-4))
        if need > _MAX_BLOCK:
            return  # so many prompts would not be prepared in time; the phase is refused with the window it needs
        ready = [prompts.next().ids for _ in range(need)]
        gc.collect()
        self.say(messages.BlockReady())
        self._wait_for_go()
        start_ns, end_ns, cpu_ns, done = observe_prefills(engine, self._clock, ready, _FULL * job.prefill_block_s)
        self.say(messages.PrefillBlock(
            start_ns=start_ns, end_ns=end_ns, cpu_ns=cpu_ns, requests=done, prompt_tokens=done * job.prompt_tokens
        ))  # fmt: skip

    def _wait_for_go(self) -> None:
        if self._commands.readline() != messages.GO:
            raise EngineError("the profiler went away", hint="run again")

    def _memory_request(self, job: messages.MeasureJob, engine: Engine, prompts: Prompts) -> list[MemoryPeak]:
        """Run one request more, outside all windows: its two phases have their own high-water mark."""
        peaks: list[MemoryPeak] = []
        refused = memory.reset_peak()

        def at_first_token(_at_ns: int) -> None:
            peaks.append(memory.read_peak(job.process, "prefill", reset_refused=refused))
            memory.reset_peak()

        observe_request(engine, self._clock, prompts.next().ids, job.new_tokens, on_first_token=at_first_token)
        peaks.append(memory.read_peak(job.process, "decode", reset_refused=refused))
        return peaks


class Prompt:
    def __init__(self, index: int, text: str, ids: list[int]) -> None:
        self.index = index
        self.ids = ids
        self.text_sha256 = hashlib.sha256(text.encode()).hexdigest()
        self.ids_sha256 = hashlib.sha256(b"".join(i.to_bytes(4, "little") for i in ids)).hexdigest()


class Prompts:
    """The prompts of one process: each starts differently, so that no prefix cache can help."""

    def __init__(self, job: messages.MeasureJob, tokenizer: Tokenizer) -> None:
        self._job = job
        self._tokenizer = tokenizer
        self._seen: list[list[int]] = []
        self.shared_prefix_tokens = 0

    @property
    def count(self) -> int:
        return len(self._seen)

    def next(self) -> Prompt:
        job, index = self._job, len(self._seen)
        text = prompt_text(job.corpus, job.seed, job.process, index)
        ids = self._tokenizer.encode(text)[: job.prompt_tokens]
        if len(ids) < job.prompt_tokens:
            raise InputError(
                f"corpus {job.corpus!r} gives a prompt of {len(ids)} tokens; the scenario asks for {job.prompt_tokens}",
                hint="use a longer corpus, or --set prompt_tokens=N",
            )
        for earlier in self._seen:
            self.shared_prefix_tokens = max(self.shared_prefix_tokens, _shared_prefix(earlier, ids))
        self._seen.append(ids)
        return Prompt(index, text, ids)


def _shared_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


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
