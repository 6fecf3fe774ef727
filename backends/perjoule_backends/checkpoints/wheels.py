"""Parts of a checkpoint out of wheels of the package index. Nothing in a wheel is trusted or run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from perjoule.clock import MonotonicClock
from perjoule.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import BufferedWriter

_BLOCK_BYTES = 1 << 20
_LIMIT_S, _TICK_S = 1800, 5


def download(wheel: str, folder: str, tell: Callable[[], None]) -> None:
    """Let pip fetch one wheel. ``tell`` is called every few seconds, lest a slow network be taken for a hang."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--retries=1", "-d", folder, wheel]
    end_ns = MonotonicClock.now_ns() + _LIMIT_S * 10**9
    tell()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as pip:
        try:
            while (said := _said_after(pip, _TICK_S)) is None and MonotonicClock.now_ns() < end_ns:
                tell()
        finally:
            pip.kill()  # too slow, or interrupted; one that has ended feels nothing
    if said is None:
        raise HostError(f"mirror: pip took more than {_LIMIT_S} s", hint="")
    if pip.returncode:
        last = (said.strip().splitlines() or ["pip failed"])[-1]
        raise HostError(f"mirror: {last.removeprefix('ERROR: ')[:160]}", hint="")


def _said_after(process: subprocess.Popen[str], seconds: float) -> str | None:
    """Return what an ended process wrote to its standard error, or None while it runs on."""
    try:
        return process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        return None


def append(wheel: str, folder: Path, member: str, out: BufferedWriter, limit: int) -> None:
    """Append the part that a downloaded wheel holds to ``out``, which may grow to ``limit`` bytes.

    Raises ``HostError`` for a wheel that is damaged, or holds something else than promised.
    """
    for path in folder.glob("*.whl"):
        try:
            _append_member(path, member, out, limit)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise HostError(f"mirror: {wheel} is damaged: {error}", hint="") from error


def _append_member(path: Path, member: str, out: BufferedWriter, limit: int) -> None:
    """Copy the one matching member, if its place is inside the wheel and the file does not grow beyond ``limit``."""
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if member in n and ".dist-info/" not in n]
        if len(names) != 1 or names[0].startswith("/") or ".." in Path(names[0]).parts:
            raise HostError(f"mirror: {path.name} does not hold one {member} member", hint="")
        if out.tell() + archive.getinfo(names[0]).file_size > limit:
            raise HostError(f"mirror: {path.name} holds more bytes than the file has", hint="")
        with archive.open(names[0]) as source:
            shutil.copyfileobj(source, out, _BLOCK_BYTES)
