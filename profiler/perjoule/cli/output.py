"""Files a command writes beside results: whole or not there, never over another."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from perjoule.errors import HostError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_OUT = "perjoule-results"  # where `run` and `tune` write, and what `query` reads
_LEAST_BYTES = 16 << 20  # of free space; a result has some 100 kB, a report some more


def check_files(files: list[Path]) -> None:
    """Refuse output files that exist or cannot be written, before any work. Raises ``UsageError``, ``HostError``."""
    for path in files:
        if os.path.lexists(path) or files.count(path) > 1:
            what = "is given twice" if files.count(path) > 1 else "exists already"
            raise UsageError(f"{path} {what}", hint="choose another name; perjoule never overwrites")
        check_folder(path.parent)


def check_folder(folder: Path) -> None:
    """Make the folder if need be. Raises ``HostError`` if it cannot be written or its disk is full."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise HostError(f"{error.filename}: {error.strerror}", hint="choose another folder") from error
    if not os.access(folder, os.W_OK):
        raise HostError(f"{folder} cannot be written", hint="choose another folder")
    if free < _LEAST_BYTES:
        raise HostError(
            f"{folder}: no space, {free / 1e6:.1f} MB of the disk are left, {_LEAST_BYTES / 1e6:.0f} MB are asked for",
            hint="free disk space or choose another folder",
        )


def write_new(path: Path, text: str) -> None:
    """Write a file that must not exist yet; nothing is left of one that could not be finished.

    Raises ``UsageError`` if it exists, ``HostError`` if the file system refuses.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            try:
                file.write(text)
                file.flush()
            except BaseException:
                path.unlink(missing_ok=True)
                raise
    except FileExistsError:
        raise UsageError(f"{path} exists already", hint="choose another name; perjoule never overwrites") from None
    except OSError as error:
        raise HostError(
            f"cannot write {path}: {error.strerror}",
            hint="results are kept in JSON: `perjoule show RESULT --html FILE` makes a report of them elsewhere",
        ) from error


def _may_be_result(path: Path, folder: Path) -> bool:
    """Leave out what perjoule itself writes beside results: races, facts of machines, sites, schemas, verdicts."""
    from perjoule.claims.verdict_file import is_verdict  # noqa: PLC0415

    parts = path.relative_to(folder).parts
    beside = path.name == "machine.json" or path.name.endswith((".tune.json", ".schema.json"))
    beside = beside or any(part.startswith(".") or part == "site" for part in parts)
    return not beside and not is_verdict(path)


def result_files(names: list[str]) -> list[Path]:
    """Return the files named, and of a folder its results at any depth. Raises ``UsageError`` for one without any."""
    from pathlib import Path  # noqa: PLC0415

    found: list[Path] = []
    for name in names:
        path = Path(name)
        inside = sorted(p for p in path.rglob("*.json") if _may_be_result(p, path)) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"{path}: this folder holds no results", hint="give result files, or the folder of a run")
        found += inside
    return found
