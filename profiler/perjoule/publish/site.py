"""The folder of generated pages: written page by page, each whole; what another tool made is not touched."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from perjoule.errors import HostError, InputError
from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MANIFEST = "pages.json"


class Manifest(Record, frozen=True, kw_only=True):
    """The pages that perjoule wrote, each with the key of its content; nothing else in the folder is ours."""

    schema: Literal["perjoule.site"] = "perjoule.site"
    pages: dict[str, str] = msgspec.field(default_factory=dict)


def own_pages(site: Path) -> dict[str, str]:
    """Return the pages that perjoule wrote there. Raises ``InputError`` if the folder is another tool's, or a link."""
    if site.is_symlink():
        raise InputError(f"{site} is a link", hint="make it a folder; perjoule writes through no links")
    if not site.exists():
        return {}
    if not site.is_dir():
        raise InputError(f"{site} is a file", hint="choose another --to, or move it away")
    try:
        return msgspec.json.decode((site / MANIFEST).read_bytes(), type=Manifest).pages
    except FileNotFoundError:
        if not any(site.iterdir()):
            return {}
    except msgspec.MsgspecError:
        pass  # some other pages.json
    raise InputError(f"{site} holds files that perjoule did not write", hint="choose another --to, or move it away")


def write_site(site: Path, pages: Iterable[tuple[str, str, Callable[[], str]]], others: dict[str, bytes]) -> int:
    """Write the pages (name, key, how to render) whose key changed, and ``others``; return how many were rendered.

    Pages of ours that are no longer wanted are removed. Raises ``InputError`` if the folder is another tool's,
    ``HostError`` if the file system refuses.
    """
    before = own_pages(site)
    keys: dict[str, str] = {}
    rendered = 0
    try:
        site.mkdir(parents=True, exist_ok=True)
        # first, so that what is written below is known to be ours even if this ends early
        _replace(site / MANIFEST, msgspec.json.encode(Manifest(pages=before), order="sorted"))
        for name, key, render in pages:
            keys[name] = key
            if before.get(name) != key or not (site / name).is_file():
                _replace(site / name, render().encode())
                rendered += 1
        for name, content in others.items():
            _replace(site / name, content)
        for name in set(before) - set(keys):
            if name == Path(name).name:
                (site / name).unlink(missing_ok=True)
        _replace(site / MANIFEST, msgspec.json.encode(Manifest(pages=keys), order="sorted"))
    except OSError as error:
        raise HostError(f"cannot write {site}: {error.strerror}", hint="free space or choose another --to") from None
    return rendered


def _replace(path: Path, data: bytes) -> None:
    """Write a generated file whole, over an older one of ours; a link is replaced, not followed."""
    handle, name = tempfile.mkstemp(prefix=".perjoule-", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
