"""Peaks kept between runs: one file a machine, number of threads, runtime and version of the kernels.

A file that is missing, damaged or from other versions is no error: the peaks are measured again.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import msgspec

from perjoule.meters.calibration import machine_digest
from perjoule.records import Peaks, Record
from perjoule.roofline.jobs import KERNELS
from perjoule.store.cache import cache_folder
from perjoule.store.write import replace_whole

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule.records import HostFacts

_MAX_BYTES = 64 * 1024


class _Stored(Record, frozen=True, kw_only=True):
    """What a file holds. History of ``schema_version``: 1 first release; another is measured again."""

    schema: Literal["perjoule.roofline"] = "perjoule.roofline"
    schema_version: Literal[1] = 1
    key: str
    peaks: Peaks


def load(host: HostFacts, threads: int, runtime: str) -> Peaks | None:
    """Return what was measured on this machine with these threads, this runtime and these kernels; None if nothing."""
    key = _key(host, threads, runtime)
    try:
        with _path(key).open("rb") as file:
            stored = msgspec.json.decode(file.read(_MAX_BYTES), type=_Stored)  # what is cut off is no JSON
    except (OSError, ValueError, RecursionError):  # what msgspec raises is a ValueError
        return None  # measured again, and written anew
    peaks = stored.peaks
    same = (stored.key, peaks.threads, peaks.runtime, peaks.kernels) == (key, threads, runtime, KERNELS)
    return peaks if same and peaks.disturbed is None else None


def save(peaks: Peaks, host: HostFacts) -> str | None:
    """Keep the peaks in place of older ones, all or nothing; return why they could not be kept, if so."""
    key = _key(host, peaks.threads, peaks.runtime)
    path = _path(key)
    data = msgspec.json.format(msgspec.json.encode(_Stored(key=key, peaks=peaks), order="sorted"), indent=1) + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_whole(path, data)
    except OSError as error:
        return f"the roofline cannot be kept for the next run: {error.strerror}"
    return None


def _key(host: HostFacts, threads: int, runtime: str) -> str:
    """Return what names the file: the kind of machine, this one's own id where it has one, threads and versions."""
    parts = [host.machine_id, machine_digest(host), threads, runtime, KERNELS]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def _path(key: str) -> Path:
    return cache_folder("roofline") / f"{key}.json"
