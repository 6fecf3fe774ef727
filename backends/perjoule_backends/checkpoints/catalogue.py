"""The catalogue of checkpoints known by name, and the mirrors that carry some of them."""

from __future__ import annotations

import difflib
from functools import cache
from importlib.resources import files

import msgspec

from perjoule.errors import InputError
from perjoule.records import Record


class Row(Record, frozen=True, kw_only=True):
    """One checkpoint. ``hub`` is its repository on the Hugging Face hub, ``mirror`` its key in mirrors.toml.

    ``hub_file`` is its path in the repository where that is not ``file``; ``revision`` the commit it is taken from.
    """

    name: str
    alias: str
    title: str
    vendor: str
    country: str
    family: str
    license: str
    parameters: int
    file: str
    file_bytes: int
    sha256: str
    quantization: str
    hub: str | None = None
    hub_file: str | None = None
    revision: str | None = None
    mirror: str | None = None


class Mirror(Record, frozen=True, kw_only=True):
    wheels: tuple[str, ...]
    member: str


class _Catalogue(Record, frozen=True, kw_only=True):
    checkpoint: tuple[Row, ...]


@cache
def rows() -> tuple[Row, ...]:
    return msgspec.toml.decode(_data("catalogue.toml"), type=_Catalogue).checkpoint


@cache
def mirrors() -> dict[str, Mirror]:
    return msgspec.toml.decode(_data("mirrors.toml"), type=dict[str, Mirror])


def find(name: str) -> Row:
    """Return the row of a name or alias. Raises ``InputError`` with the nearest names."""
    for row in rows():
        if name.lower() in (row.name, row.alias):
            return row
    known = [row.name for row in rows()]
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.3) or known
    raise InputError(f"unknown model {name!r}", hint=f"nearest: {', '.join(near)}; or give the path of a .gguf file")


def _data(name: str) -> bytes:
    return files("perjoule_backends.checkpoints").joinpath(name).read_bytes()
