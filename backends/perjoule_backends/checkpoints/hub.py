"""The Hugging Face hub as a source: what it states of a file, and the file itself.

One attempt, five seconds to connect: a machine without a hub should learn so at once. Nothing is believed beyond
what is checked later: the bytes must have the SHA-256 of the catalogue, or, for a reference that no catalogue row
covers, the one the hub itself states for that commit.
"""

from __future__ import annotations

import os
import re
from inspect import signature
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn

from perjoule.errors import HostError, InputError
from perjoule.records import Record

if TYPE_CHECKING:
    from perjoule.protocols import Progress

CONNECT_S = 5
SCHEME = "hf:"
# The library reports its caller to the hub, with a request of its own, unless it is told not to before it is loaded.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
_REF = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>[^@\s]+))?(?:@(?P<revision>[\w./-]+))?")
_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
CONFIG = "config.json"
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_BESIDE = (
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
)
_PICKLED = (".bin", ".pt", ".pth")
_OTHERWISE = "check the network, or use a name of `perjoule models list` or the path of a .gguf file"


class HubFile(Record, frozen=True, kw_only=True):
    """A file of a repository at one commit, with the hash the hub states for it."""

    repository: str
    file: str
    revision: str
    sha256: str
    file_bytes: int


class HubPart(Record, frozen=True, kw_only=True):
    """A file of a checkpoint folder; the hub states a SHA-256 of large files, git's SHA-1 of the others."""

    name: str
    file_bytes: int
    sha256: str | None = None
    git_sha1: str | None = None


class HubFolder(Record, frozen=True, kw_only=True):
    """A repository that is a checkpoint folder, at one commit."""

    repository: str
    revision: str
    parts: tuple[HubPart, ...]


def parse(ref: str) -> tuple[str, str | None, str | None]:
    """Return (repository, file or None, revision or None) of ``hf:org/repo[/file][@rev]``."""
    match = _REF.fullmatch(ref)
    file = match["file"] if match else None
    if not match or (file and (not file.endswith(".gguf") or ".." in PurePosixPath(file).parts)):
        raise InputError(
            f"{ref}: not a reference of the hub", hint="write hf:org/repo/file.gguf, or hf:org/repo[@revision]"
        )
    return match["repo"], file, match["revision"]


def look_up(ref: str) -> HubFile | HubFolder:
    """Ask the hub what stands behind a reference: a GGUF file, or a repository that is a checkpoint folder.

    Raises ``InputError`` when there is no such file or more than one to choose from, ``HostError`` when the hub
    cannot be reached.
    """
    repository, file, revision = parse(ref)
    _refuse_offline()
    if file is None:
        found = _listed(ref, repository, revision)
        if isinstance(found, HubFolder):
            return found
        file = found
    stated = _metadata(ref, repository, file, revision)
    if not stated.commit_hash or not stated.size or not _SHA256.fullmatch(stated.etag or ""):
        raise InputError(f"{ref}: the hub states no SHA-256 for {file}", hint=_OTHERWISE)
    return HubFile(
        repository=repository,
        file=file,
        revision=stated.commit_hash,
        sha256=stated.etag,
        file_bytes=stated.size,
    )


def download(repository: str, file: str, revision: str | None, size: int, part: Path, progress: Progress) -> None:
    """Write the file to ``part``; ``size`` in bytes is what the progress is a share of."""
    _refuse_offline()
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - 0.3 s that only a download is worth
    from huggingface_hub.utils import disable_progress_bars, tqdm  # type: ignore[attr-defined] # noqa: PLC0415

    progress("asking the hub", None)
    _metadata(f"{repository}/{file}", repository, file, revision)

    class Bar(tqdm):
        """Reports bytes instead of drawing."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **(options | {"disable": True}))  # type: ignore[no-untyped-call]
            self._done = 0

        def update(self, n: float | None = 1) -> bool | None:
            self._done += int(n or 0)
            progress("downloading from the hub", min(1.0, self._done / max(1, size)))
            return None

    options: dict[str, Any] = {"tqdm_class": Bar} if "tqdm_class" in signature(hf_hub_download).parameters else {}
    disable_progress_bars()  # versions that take no class would draw on our terminal
    try:
        found = hf_hub_download(
            repository, file, revision=revision, local_dir=part.parent / "hub", etag_timeout=CONNECT_S, **options
        )
    except Exception as error:  # noqa: BLE001 - transport errors have no common base over the library's versions
        _explain(f"{repository}/{file}", error)
    Path(found).replace(part)


def _metadata(ref: str, repository: str, file: str, revision: str | None) -> Any:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url  # noqa: PLC0415

    try:
        return get_hf_file_metadata(hf_hub_url(repository, file, revision=revision), timeout=CONNECT_S)
    except Exception as error:  # noqa: BLE001 - as above
        _explain(ref, error)


def _listed(ref: str, repository: str, revision: str | None) -> HubFolder | str:
    """Return what a repository without a named file stands for: a folder of safetensors, or its only GGUF file."""
    from huggingface_hub import HfApi  # noqa: PLC0415

    try:
        info = HfApi().model_info(repository, revision=revision, timeout=CONNECT_S, files_metadata=True)
    except Exception as error:  # noqa: BLE001 - as above
        _explain(ref, error)
    entries = {entry.rfilename: entry for entry in info.siblings or []}
    weights = [name for name in entries if _WEIGHTS.fullmatch(name)]
    if CONFIG in entries and weights:
        commit = info.sha or ""
        if not _SHA1.fullmatch(commit):
            raise InputError(f"{ref}: the hub states no commit", hint=_OTHERWISE)
        names = [name for name in _BESIDE if name in entries] + weights
        return HubFolder(
            repository=repository,
            revision=commit,
            parts=tuple(_part(ref, entries[name]) for name in sorted(names)),
        )
    ggufs = sorted(name for name in entries if name.endswith(".gguf"))
    if len(ggufs) != 1:
        pickled = next((name for name in entries if name.endswith(_PICKLED)), None)
        if pickled and not ggufs:
            raise InputError(
                f"{ref}: its weights are pickled ({pickled[:60]}), which can run code when loaded: never opened",
                hint="use a repository with safetensors or GGUF files",
            )
        choice = ", ".join(ggufs[:8]) or "none"
        raise InputError(f"{ref}: the repository holds {len(ggufs)} .gguf files", hint=f"name one: {choice}")
    return ggufs[0]


def _part(ref: str, entry: Any) -> HubPart:
    sha256 = entry.lfs.sha256 if entry.lfs else None
    if not isinstance(entry.size, int) or not (_SHA256.fullmatch(sha256 or "") or _SHA1.fullmatch(entry.blob_id or "")):
        raise InputError(f"{ref}: the hub states no hash for {entry.rfilename[:80]}", hint=_OTHERWISE)
    return HubPart(
        name=entry.rfilename, file_bytes=entry.size, sha256=sha256, git_sha1=None if sha256 else entry.blob_id
    )


def _refuse_offline() -> None:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise HostError("hub: HF_HUB_OFFLINE is set", hint=_OTHERWISE)


def _explain(ref: str, error: Exception) -> NoReturn:
    from huggingface_hub import errors  # noqa: PLC0415

    missing = (errors.RepositoryNotFoundError, errors.EntryNotFoundError, errors.RevisionNotFoundError)
    if isinstance(error, missing) and not isinstance(error, errors.LocalEntryNotFoundError):
        raise InputError(
            f"hub: there is no {ref.removeprefix(SCHEME)}, or it needs a login", hint=_OTHERWISE
        ) from error
    lines = str(error).strip().splitlines()
    raise HostError(f"hub: {lines[0][:120] if lines else type(error).__name__}", hint=_OTHERWISE) from error
