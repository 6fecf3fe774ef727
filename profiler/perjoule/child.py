"""The parent's side of one worker process: start it, block on its pipe, and tell how it died."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Self

from perjoule import messages
from perjoule.errors import EngineError, HostError, InputError, PerjouleError

if TYPE_CHECKING:
    from types import TracebackType

_LAST_WORDS_BYTES = 4000
_GRACE_S = 5.0
_READ_BYTES = 1 << 16


class Child:
    """One worker process. ``receive`` blocks in poll(2): waiting costs no CPU time.

    Raises ``EngineError`` when the worker crashes, is killed, or says nothing for ``stall_s`` seconds.
    """

    def __init__(self, job: messages.Job, *, stall_s: float) -> None:
        self._stall_s = stall_s
        self._cleans_up = isinstance(job, messages.PrepareJob)  # it may be half through writing to the cache
        self._buffer = b""
        self._doing = "start-up"
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        read_fd, write_fd = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "perjoule.worker", str(write_fd)],
                stdin=subprocess.PIPE,
                stdout=self._words,
                stderr=self._words,
                pass_fds=(write_fd,),
                start_new_session=True,  # Ctrl-C goes to the parent alone
            )
        except OSError as error:
            os.close(read_fd)
            self._words.close()
            raise HostError(
                f"cannot start a worker process: {error.strerror}", hint="free memory, then retry"
            ) from error
        finally:
            os.close(write_fd)
        self._events = read_fd
        self._poll = select.poll()
        self._poll.register(read_fd, select.POLLIN | select.POLLHUP)
        try:
            self._send(messages.encode(job))
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def receive(self, doing: str, *, quiet_s: float = 0.0) -> messages.Event:
        """Wait for the next event. ``doing`` is what a crash or a hang is reported as having happened in.

        ``quiet_s`` is for how long the worker may be silent because it was told to work without a word.
        """
        self._doing = doing
        limit_s = self._stall_s + quiet_s
        chunks = [self._buffer]  # joined once: what a long load tells is many megabytes in one line
        while b"\n" not in chunks[-1]:
            if not self._poll.poll(limit_s * 1000):
                raise EngineError(
                    f"the engine said nothing for {limit_s:g} s while {doing}; it was stopped{self._tail()}",
                    hint="raise the limit with --set run.stall_s=SECONDS if the machine is that slow",
                )
            chunk = os.read(self._events, _READ_BYTES)
            if not chunk:
                raise self._death()
            chunks.append(chunk)
        line, _, self._buffer = b"".join(chunks).partition(b"\n")
        event = messages.decode_event(line)
        if isinstance(event, messages.Failed):
            raise self._as_error(event)
        return event

    def go(self) -> None:
        self._send(messages.GO)

    def judge(self, *, kept: bool) -> None:
        """Tell the worker whether its last request counts, or was disturbed."""
        self._send(messages.KEPT if kept else messages.NOISY)

    def stop(self) -> None:
        """Close the pipes; end the worker unless it has ended by itself. Safe to call twice."""
        if self._words.closed:
            return
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):  # it may be gone already, which is what we want
                self._process.stdin.close()
        try:
            if self._process.poll() is None:
                self._end()
        finally:
            os.close(self._events)
            self._words.close()

    def finish(self) -> None:
        """Wait for a worker that has said its last event to end by itself."""
        try:
            self._process.wait(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            self._kill()

    def _end(self) -> None:
        """Kill the worker; one that prepares a model is first given time to remove what is half written."""
        try:
            if self._cleans_up:
                self._process.terminate()
                self._process.wait(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            pass  # it hangs
        finally:
            self._kill()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):  # it may end in between
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _send(self, data: bytes) -> None:
        stdin = self._process.stdin
        if stdin is None:
            raise EngineError("the worker has no standard input", hint="report this as a bug")
        try:
            stdin.write(data)
            stdin.flush()
        except BrokenPipeError:
            raise self._death() from None

    def _death(self) -> EngineError:
        code = self._process.wait()
        how = f"exited with status {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
        hint = "run again with --debug for what the engine printed"
        if code == -signal.SIGKILL:
            hint = "the kernel kills when memory runs out: use a smaller model, a lower --quant or a shorter context"
        return EngineError(f"the engine {how} while {self._doing}{self._tail()}", hint=hint)

    def _tail(self) -> str:
        words = self.last_words().strip().splitlines()
        return f"; its last words: {words[-1][:200]}" if words else ""

    def last_words(self) -> str:
        """Return the end of what the engine wrote to its standard output and error."""
        size = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, size - _LAST_WORDS_BYTES))
        return self._words.read().decode(errors="replace")

    @staticmethod
    def _as_error(event: messages.Failed) -> PerjouleError:
        if event.exit_code == EngineError.exit_code:
            error: PerjouleError = EngineError(event.message, hint=event.hint)
            error.add_note(event.details)
            return error
        return InputError(event.message, hint=event.hint)
