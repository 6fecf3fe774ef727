"""A repository of the hub as a checkpoint folder: the files that make one up, each as the hub states it.

Large files have a SHA-256, the others the name that git gives their content; both are checked. The folder appears in
the cache under its commit in one rename, when every file is right.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from perjoule.errors import HostError
from perjoule_backends.checkpoints import hub
from perjoule_backends.checkpoints.cache import cache_root, locked, need_space, refused_by_disk, remove_scrap
from perjoule_backends.checkpoints.hashes import git_sha1_of, remember, remembered_sha256, sha256_of

if TYPE_CHECKING:
    from perjoule.protocols import Progress

_SCRATCH = ".fetching-"


def cached_repository(stated: hub.HubFolder) -> Path:
    name = f"{stated.repository.replace('/', '--')}-{stated.revision[:12]}"
    return cache_root() / "models" / "hub" / name


def pull_repository(stated: hub.HubFolder, progress: Progress) -> Path:
    """Return the cached folder of a repository at its commit, fetching it first if need be.

    Raises ``HostError`` when a file cannot be had or is not what the hub states.
    """
    target = cached_repository(stated)
    try:
        if _is_right(stated, target, progress):
            return target  # a cache that can only be read is enough
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent, progress):
            if _is_right(stated, target, progress):
                return target  # another process was first
            remove_scrap(target.parent, _SCRATCH)
            need_space(target.parent, 2 * sum(part.file_bytes for part in stated.parts), stated.repository)
            with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=target.parent) as scratch:
                whole = Path(scratch) / "whole"
                whole.mkdir()
                for part in stated.parts:
                    _fetch(stated, part, whole, progress)
                if target.exists():
                    shutil.rmtree(target)  # damaged, or it would have been taken above
                whole.rename(target)
    except OSError as error:
        raise refused_by_disk("cannot use the model cache", error) from error
    return target


def _is_right(stated: hub.HubFolder, target: Path, progress: Progress) -> bool:
    """Tell whether the folder is there and each of its files still what the hub stated."""
    for part in stated.parts:
        path = target / part.name
        if not path.is_file() or path.stat().st_size != part.file_bytes:
            return False
        found = git_sha1_of(path) if part.sha256 is None else remembered_sha256(path, progress)
        if found != (part.sha256 or part.git_sha1):
            return False
    return True


def _fetch(stated: hub.HubFolder, part: hub.HubPart, whole: Path, progress: Progress) -> None:
    got = whole.parent / "part"
    hub.download(stated.repository, part.name, stated.revision, part.file_bytes, got, progress)
    found = git_sha1_of(got) if part.sha256 is None else sha256_of(got, progress)
    expected = part.sha256 or part.git_sha1
    if found != expected:
        what = "SHA-256" if part.sha256 is not None else "git hash"
        raise HostError(
            f"{stated.repository}/{part.name}: the {what} is {found[:16]}..., the hub states {str(expected)[:16]}...",
            hint="try again; if it stays so, something between here and the hub changes the file",
        )
    got.replace(whole / part.name)
    if part.sha256 is not None:
        remember(whole / part.name, part.sha256)
