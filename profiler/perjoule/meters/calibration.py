"""Joules without the sensor, on the machine it once stood on: E = P0 * T + e * bytes streamed.

`perjoule calibrate` fits P0 and e to processes whose joules a sensor measured (calibration_fit.py) and stores them
here; later runs on the same machine use them where the sensor is gone. docs/calibrate.md.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from perjoule.errors import HostError, InputError
from perjoule.meters.amounts import Part, Range
from perjoule.records import Calibration, Record
from perjoule.store.write import replace_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.records import Convention, HostFacts, Label, Window

MARGIN = 1.5  # how far outside the fitted range the fit is still used, with a wider interval
# History of the file: 1 first release.
SCHEMA_VERSION = 1
# machine-id(5): private to the machine, so it is used as a key and never stored.
MACHINE_ID_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_MAX_BYTES = 64 * 1024


class CalibratedModel:
    """The fit applied to windows; stands where the model of CPU time would."""

    label: Label = "counter-modelled"
    convention: Convention = "gross"
    unbounded = "a fit to a sensor knows no bounds of its own"

    def __init__(self, calibration: Calibration) -> None:
        self._fit = calibration
        self.scope = calibration.scope
        self.grade = f"fitted on this machine against {calibration.grade}"

    def parts(self, windows: Sequence[Window]) -> list[Part] | str:
        """Return the energy of the scope, or why this work is not like the work that was fitted."""
        if any(w.bytes_streamed is None for w in windows):
            return "the engine does not say how many bytes it streams, so the calibration cannot be used"
        if any(w.cpu_s is None for w in windows):
            return "the engine's CPU time was not read, so the calibration cannot be used"
        seconds = sum(w.duration_s for w in windows)
        if not seconds:
            return "there is no time to price"
        streamed = sum(w.bytes_streamed or 0 for w in windows)
        cores = sum(w.cpu_s or 0.0 for w in windows) / seconds
        fit = self._fit
        outside = _outside(streamed / seconds, fit.low_bytes_per_s, fit.high_bytes_per_s)
        if outside > MARGIN:
            found, low, high = (x / 1e9 for x in (streamed / seconds, fit.low_bytes_per_s, fit.high_bytes_per_s))
            return f"{found:.3g} GB/s streamed is outside what was calibrated ({low:.3g}-{high:.3g} GB/s)"
        if _outside(cores, fit.low_cores, fit.high_cores) > MARGIN:
            return f"{cores:.2g} busy cores are outside what was calibrated ({fit.low_cores:.2g}-{fit.high_cores:.2g})"
        joules, half = fit.joules(seconds, streamed), fit.half_width * outside
        return [Part(
            domain=self.scope,
            joules=Range(low=joules * max(0.0, 1 - half), value=joules, high=joules * (1 + half)),
        )]  # fmt: skip

    def floor_j(self, windows: Sequence[Window], macs: int = 0) -> float | None:
        """Return None: see ``unbounded``."""
        del windows, macs
        return None

    def ceiling_j(self, windows: Sequence[Window]) -> float | None:
        """Return None: see ``unbounded``."""
        del windows
        return None

    def outside(self, windows: Sequence[Window]) -> list[Part]:
        del windows
        return []


def _outside(value: float, low: float, high: float) -> float:
    """Return by which factor a value lies outside a range; 1 inside it."""
    return math.inf if value <= 0 else max(1.0, low / value, value / high)


class _Version(msgspec.Struct):
    schema: Literal["perjoule.calibration"]
    schema_version: int


class _Stored(Record, frozen=True, kw_only=True):
    schema: Literal["perjoule.calibration"] = "perjoule.calibration"
    schema_version: int = SCHEMA_VERSION
    created_utc: str
    tool_version: str
    digest: str
    calibration: Calibration


def load_calibration(host: HostFacts) -> Calibration | None:
    """Return what was fitted on this very machine; None where nothing was, or the machine has no id of its own.

    Raises ``InputError`` for a file that is damaged, newer than this perjoule, or of another machine, ``HostError`` for
    one that cannot be read.
    """
    digest = machine_digest(host)
    if digest is None:
        return None
    path = _folder() / f"{digest}.json"
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES)  # what is cut off is no JSON
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}", hint="make it readable, or remove it") from None
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version > SCHEMA_VERSION:
            raise InputError(f"{path}: version {version} is newer than this perjoule reads", hint="update perjoule")
        stored = msgspec.json.decode(data, type=_Stored)
    except (ValueError, RecursionError) as error:  # what msgspec raises is a ValueError
        raise InputError(f"{path}: not a calibration: {error}", hint="`perjoule calibrate` replaces it") from None
    if not hmac.compare_digest(stored.digest, digest):
        raise InputError(f"{path}: was fitted on another machine", hint="`perjoule calibrate` replaces it")
    return stored.calibration


def save_calibration(calibration: Calibration, host: HostFacts, *, created_utc: str, tool_version: str) -> Path:
    """Store the fit for this machine in place of an earlier one, all of it or nothing; return its path.

    Raises ``HostError`` where the machine has no id of its own, or the folder cannot be written.
    """
    digest = machine_digest(host)
    if digest is None:
        raise HostError(
            "this machine has no id of its own, so a calibration could be taken for another machine's",
            hint="as root: systemd-machine-id-setup, or dbus-uuidgen --ensure=/etc/machine-id",
        )
    stored = _Stored(created_utc=created_utc, tool_version=tool_version, digest=digest, calibration=calibration)
    path = _folder() / f"{digest}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_whole(path, msgspec.json.format(msgspec.json.encode(stored, order="sorted"), indent=1) + b"\n")
    except OSError as error:
        raise HostError(
            f"cannot write {path}: {error.strerror}", hint="set PERJOULE_CACHE to a folder that can be written"
        ) from None
    return path


def machine_digest(host: HostFacts) -> str | None:
    """Return what names a calibration's file: the kind of machine, keyed with this machine's own id.

    The id itself cannot be had back from it. None where the machine has none. It is never put in a result.
    """
    for path in MACHINE_ID_FILES:
        try:
            own = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue  # not there, or not an id: the next place is asked
        if _MACHINE_ID.fullmatch(own):
            return hmac.new(
                own.encode(), f"perjoule calibration {host.machine_id}".encode(), hashlib.sha256
            ).hexdigest()
    return None


def _folder() -> Path:
    chosen = os.environ.get("PERJOULE_CACHE")
    if chosen:
        return Path(chosen).expanduser() / "calibration"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "perjoule" / "calibration"
