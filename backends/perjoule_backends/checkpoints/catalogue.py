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


class Model(Record, frozen=True, kw_only=True):
    """A published model. Its files are not pinned here: the hub states their hashes, or only the shape can be run.

    ``parameters`` and ``active_parameters`` as the vendor counts them, the latter null for dense models; ``context``
    in tokens. ``hub`` is its repository of safetensors, ``shape`` its name in shapes.toml, ``refusal`` why it cannot
    run here at all.
    """

    name: str
    title: str
    vendor: str
    country: str
    family: str
    license: str
    released: str
    parameters: int
    context: int
    sources: tuple[str, ...]
    active_parameters: int | None = None
    hub: str | None = None
    shape: str | None = None
    refusal: str | None = None


class _Catalogue(Record, frozen=True, kw_only=True):
    checkpoint: tuple[Row, ...]
    model: tuple[Model, ...]


@cache
def _whole() -> _Catalogue:
    return msgspec.toml.decode(_data("catalogue.toml"), type=_Catalogue)


def rows() -> tuple[Row, ...]:
    """Return the checkpoints whose bytes are pinned by their hash."""
    return _whole().checkpoint


def models() -> tuple[Model, ...]:
    """Return the published models that are known by name, whether or not they can run here."""
    return _whole().model


@cache
def mirrors() -> dict[str, Mirror]:
    return msgspec.toml.decode(_data("mirrors.toml"), type=dict[str, Mirror])


def find(name: str) -> Row:
    """Return the row of a name or alias. Raises ``InputError`` with the nearest names."""
    found = find_any(name)
    if isinstance(found, Row):
        return found
    raise InputError(f"{found.title} has no file that is known by its hash", hint=f"name it as hf:{found.hub}")


def find_any(name: str) -> Row | Model:
    """Return what a name or alias stands for, a pinned checkpoint first. Raises ``InputError`` with the nearest."""
    for row in rows():
        if name.lower() in (row.name, row.alias):
            return row
    for model in models():
        if name.lower() == model.name:
            return model
    known = [row.name for row in rows()] + [model.name for model in models()]
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.3) or known
    paths = "the path of a .gguf file or checkpoint folder (./NAME)"
    raise InputError(f"unknown model {name!r}", hint=f"nearest: {', '.join(near)}; or {paths}")


def _data(name: str) -> bytes:
    return files("perjoule_backends.checkpoints").joinpath(name).read_bytes()
