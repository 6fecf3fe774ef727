"""Result files in folders of any depth, told apart from what stands beside them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from perjoule.claims.verdict_file import is_verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SITE = "site"  # the folder of generated pages, in a published folder
MACHINE = "machine.json"
_NOT_RESULTS = (".tune.json", ".schema.json", f"/{MACHINE}")


def result_paths(names: Sequence[str | Path], *, verdicts: bool = False) -> tuple[list[Path], list[str]]:
    """Return the files named and those in the folders named, sorted; and what could not be looked into.

    Folders are searched through, links to folders are not followed, hidden folders and generated sites are left out;
    so are the verdicts in a folder, unless they are asked for.
    """
    found: dict[Path, None] = {}
    problems: list[str] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = sorted(p for p in _inside(path, problems) if verdicts or not is_verdict(p))
            problems += [] if inside else [f"{path}: this folder holds no results"]
            found.update(dict.fromkeys(inside))
        else:
            found[path] = None
    return list(found), problems


def _inside(folder: Path, problems: list[str]) -> Iterator[Path]:
    def note(error: OSError) -> None:
        problems.append(f"{error.filename}: {error.strerror}")

    for at, folders, files in os.walk(folder, onerror=note):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not _is_site(Path(at) / f))
        for name in files:
            if name.endswith(".json") and not f"/{name}".endswith(_NOT_RESULTS) and not name.startswith("."):
                yield Path(at) / name


def _is_site(folder: Path) -> bool:
    return folder.name == SITE and (folder / "index.json").exists()
