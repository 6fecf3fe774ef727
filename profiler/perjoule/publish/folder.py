"""A published folder: one folder a kind of machine, one file a result, nothing ever overwritten."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from perjoule.errors import InputError
from perjoule.publish.found import MACHINE
from perjoule.publish.machine import machine_file
from perjoule.store.write import encode, file_name, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule.records import RunResult

_MACHINE_ID = re.compile(r"[0-9a-f]{12}")


def place(result: RunResult, folder: Path) -> Path:
    """Write the result and, where it is the first of its kind of machine, ``machine.json``; return its path.

    Raises ``InputError`` for a machine's id that is no name of a folder, for a folder or file that is a link, for
    another ``machine.json`` than the facts give, and if a file of that name is there; ``HostError`` if the file system
    refuses.
    """
    if not _MACHINE_ID.fullmatch(result.host.machine_id):
        raise InputError(
            f"machine_id {result.host.machine_id!r} is no machine's id", hint="measure with `perjoule run`"
        )
    home = folder / result.host.machine_id
    if home.is_symlink() or (home.exists() and not home.is_dir()):
        raise InputError(f"{home} is a link or a file", hint="make it a folder; perjoule writes through no links")
    _state_machine(home / MACHINE, machine_file(result.host))
    return write_whole(home / file_name(result), encode(result))


def _state_machine(path: Path, facts: bytes) -> None:
    if path.is_symlink():
        raise InputError(f"{path} is a link", hint="make it a file; perjoule writes through no links")
    if not path.exists():
        write_whole(path, facts)
    elif path.read_bytes() != facts:
        raise InputError(
            f"{path} states other facts than the result", hint="it was changed by hand: restore it, or remove it"
        )
