"""A published folder: one folder a kind of machine, one file a result, nothing ever overwritten."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from perjoule.errors import InputError
from perjoule.publish.found import MACHINE
from perjoule.store.write import sync_folder, write_whole

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from perjoule.publish.gate import Judged

_AT_ONCE = 16  # files that wait for the disk together
_MACHINE_ID = re.compile(r"[0-9a-f]{12}")


def make_home(judged: Judged, folder: Path) -> Path:
    """Make the folder of the result's kind of machine, with its ``machine.json``, if it is not there; return it.

    Raises ``InputError`` for a machine's id that is no name of a folder, for a folder or file that is a link, and for
    another ``machine.json`` than the facts give; ``HostError`` if the file system refuses.
    """
    if not _MACHINE_ID.fullmatch(judged.machine_id):
        raise InputError(f"machine_id {judged.machine_id!r} is no machine's id", hint="measure with `perjoule run`")
    home = folder / judged.machine_id
    if home.is_symlink() or (home.exists() and not home.is_dir()):
        raise InputError(f"{home} is a link or a file", hint="make it a folder; perjoule writes through no links")
    _state_machine(home / MACHINE, judged.machine)
    return home


class Writer:
    """Writes many results at once: waiting for the disk one by one would take longer than judging them.

    Each file is whole or not there all the same. Use it as a context, after which all names are on the disk too.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_AT_ONCE)
        self._homes: set[Path] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        for home in self._homes:
            sync_folder(home)

    def place(self, judged: Judged, home: Path) -> Future[Path]:
        """Begin to write the result; the path raises ``InputError`` if it exists, ``HostError`` if nothing can be."""
        self._homes.add(home)
        return self._pool.submit(write_whole, home / judged.name, judged.data, sync_name=False)


def _state_machine(path: Path, facts: bytes) -> None:
    if path.is_symlink():
        raise InputError(f"{path} is a link", hint="make it a file; perjoule writes through no links")
    if not path.exists():
        write_whole(path, facts)
    elif path.read_bytes() != facts:
        raise InputError(
            f"{path} states other facts than the result", hint="it was changed by hand: restore it, or remove it"
        )
