"""One exclusive measurement at a time per machine: a lock that every perjoule of every user respects.

It is a flock(2) on one file, so the kernel drops it with its holder, however that one ends. The file is world-writable
in the machine's own temporary folder (not ``TMPDIR``, which may be each user's own); it is never followed as a link.
Who removes it while it is held lets a second one in: cleaners of that folder spare what was written within days.
Containers with a ``/tmp`` of their own cannot see each other unless ``PERJOULE_LOCK`` names a file they share.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from perjoule.clock import MonotonicClock
from perjoule.errors import HostError
from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perjoule.protocols import Clock

_DEFAULT = "/tmp/perjoule.lock"  # noqa: S108 - opened so that nobody's link or pipe is followed, see _opened
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_MODE = 0o666
_TRIES = 100  # the file may vanish or appear between two calls; not for ever
_MAX_BYTES = 2048
_MAX_COMMAND = 160
_HINT = "remove it, or set PERJOULE_LOCK to a file that all users of this machine may write"

_held: dict[Path, int] = {}  # how often this process has entered: a second flock of its own would wait for ever


class Holder(Record, frozen=True, kw_only=True):
    """Who measures: ``command`` is without paths, for it is read by other users."""

    pid: int
    since_utc: str
    command: str


def lock_path() -> Path:
    return Path(os.environ.get("PERJOULE_LOCK") or _DEFAULT)


@contextmanager
def machine_lock(
    command: str, *, wait: bool = True, tell: Callable[[str], None], clock: Clock | None = None
) -> Iterator[None]:
    """Hold the machine while the body runs. Entered again by the same process it costs nothing.

    ``command`` tells others what is measured. While another holds the machine ``tell`` is called once with who it is,
    and this process sleeps in the kernel; Ctrl-C ends that. Raises ``HostError`` in place of waiting without ``wait``,
    and where the file cannot be used.
    """
    path = lock_path()
    if _held.get(path):
        _held[path] += 1
        try:
            yield
        finally:
            _held[path] -= 1
        return
    clock = clock or MonotonicClock()
    handle = _acquired(path, clock, tell, wait=wait)
    try:
        _held[path] = 1
        _sign(handle, Holder(pid=os.getpid(), since_utc=clock.utc_now().isoformat(), command=command[:_MAX_COMMAND]))
        yield
    finally:
        _held.pop(path, None)
        _release(handle)


def _acquired(path: Path, clock: Clock, tell: Callable[[str], None], *, wait: bool) -> int:
    """Return a handle that holds the lock of the file that bears the name now."""
    unsaid: Callable[[str], None] | None = tell
    for _ in range(_TRIES):
        handle = _opened(path)
        try:
            if not _taken(handle, path):
                _wait(handle, clock, unsaid, wait=wait)
                unsaid = None
            if _bears_name(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # somebody has removed the file meanwhile: what is locked is nobody's lock
    raise HostError(f"{path}: it is removed again and again", hint=_HINT)


def _wait(handle: int, clock: Clock, tell: Callable[[str], None] | None, *, wait: bool) -> None:
    """Say who holds the lock, and sleep until it is ours. Raises ``HostError`` if nobody wants to wait."""
    who, command = _who(handle, clock)
    if not wait:
        what = f"it runs `{command}`; " if command else ""
        raise HostError(f"{who} holds this machine", hint=f"{what}leave out --no-wait to wait for it")
    if tell is not None:
        tell(f"{who} holds this machine; waiting")
    fcntl.flock(handle, fcntl.LOCK_EX)


def _opened(path: Path) -> int:
    """Open the file, or make it. A link, a pipe or a file with a second name is refused: another user may plant one."""
    for _ in range(_TRIES):
        try:
            handle = _open_or_make(path)
        except FileExistsError:
            continue  # another has made it in between
        except OSError as error:
            why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise HostError(f"{path}: {why}", hint=_HINT) from error
        found = os.fstat(handle)
        if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
            return handle
        os.close(handle)
        raise HostError(f"{path}: not a plain file with one name", hint=_HINT)
    raise HostError(f"{path}: it comes and goes", hint=_HINT)


def _open_or_make(path: Path) -> int:
    """Open without O_CREAT first: in a sticky folder the kernel refuses O_CREAT on another user's file (proc(5))."""
    try:
        return os.open(path, os.O_RDWR | _FLAGS)
    except FileNotFoundError:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, _MODE)
        os.fchmod(handle, _MODE)  # whatever the umask says
        return handle
    except PermissionError:
        return os.open(path, os.O_RDONLY | _FLAGS)  # enough for a lock; the holder stays unnamed


def _taken(handle: int, path: Path) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise HostError(f"{path}: no lock can be had on it: {error.strerror}", hint=_HINT) from error
    return True


def _bears_name(handle: int, path: Path) -> bool:
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(handle))


def _sign(handle: int, holder: Holder) -> None:
    with suppress(OSError):  # a full disk, or a file that may only be read: the lock holds, unnamed
        os.ftruncate(handle, 0)
        os.pwrite(handle, msgspec.json.encode(holder), 0)


def _release(handle: int) -> None:
    try:
        with suppress(OSError):
            os.ftruncate(handle, 0)
        fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        os.close(handle)


def _who(handle: int, clock: Clock) -> tuple[str, str]:
    """Return who holds the lock, in words, and its command; another user wrote it, so it may say anything."""
    try:
        holder = msgspec.json.decode(os.pread(handle, _MAX_BYTES, 0), type=Holder)
        since = datetime.fromisoformat(holder.since_utc).astimezone()
    except (OSError, ValueError, OverflowError, RecursionError):
        return "another perjoule", ""
    today = clock.utc_now().astimezone().date()
    when = since.strftime("%H:%M" if since.date() == today else "%Y-%m-%d %H:%M")
    return f"another perjoule (process {holder.pid}, measuring since {when})", holder.command[:_MAX_COMMAND]
