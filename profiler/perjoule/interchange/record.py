"""The record of a measurement that another tool made: not a result, and never compared or published as one."""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from perjoule.errors import InputError
from perjoule.interchange.strict import read_bytes, text_of
from perjoule.records import UNSET, Missing, Reason, Record, ToolFacts
from perjoule.store import write_whole
from perjoule.store.canonical import canonical_json
from perjoule.store.strict_json import strict_json

if TYPE_CHECKING:
    from collections.abc import Sequence

# History of the imported record's format; a number is added here per change.
#   1  first release
IMPORTED_VERSION = 1
SCHEMA = "perjoule.imported"
_HINT = "give a file that `perjoule import` wrote"
_ROUNDED = 2e-3  # a tool prints its mean and deviation with some six digits, and its samples with fewer


class Figure(Record, frozen=True, kw_only=True, tag_field="type", tag="imported-quantity"):
    """A number as the other tool gives it. There is no interval: ``spread`` is a standard deviation, and no more."""

    value: float
    unit: str
    statistic: str
    n: int | None
    n_missing: Reason = UNSET
    spread: float | None
    spread_missing: Reason = UNSET
    spread_kind: str = ""
    values: tuple[float, ...] = ()
    note: str = ""


class Joules(Figure, frozen=True, kw_only=True, tag_field="type", tag="imported-energy"):
    """Joules, or joules per something, of another tool; ``obtained`` says what is known of where they came from."""

    label: Literal["imported"] = "imported"
    scope: str
    obtained: str


class OtherTool(Record, frozen=True, kw_only=True):
    name: str
    version: str | None
    version_missing: Reason = UNSET
    commit: str | None
    commit_missing: Reason = UNSET


class Source(Record, frozen=True, kw_only=True):
    """The file: its form and digest, and which of its tests this is, counted from 0."""

    form: str
    sha256: str
    file_bytes: int
    position: int


class OtherModel(Record, frozen=True, kw_only=True):
    name: str
    description: str | None
    description_missing: Reason = UNSET
    parameters: int | None
    parameters_missing: Reason = UNSET
    weights_bytes: int | None
    weights_bytes_missing: Reason = UNSET


class ImportedRecord(Record, frozen=True, kw_only=True):
    """One test of another tool. ``metrics`` have our names where they mean the same, ``other`` has the tool's own."""

    schema: Literal["perjoule.imported"] = "perjoule.imported"
    schema_version: int = IMPORTED_VERSION
    id: str = ""
    tool: OtherTool
    imported_by: ToolFacts
    source: Source
    measured_utc: str | None
    measured_utc_missing: Reason = UNSET
    test: str
    load: dict[str, int | None]
    model: OtherModel
    device: str
    facts: dict[str, Any]
    metrics: dict[str, Figure | Joules | str | None]
    other: dict[str, Figure | Joules]
    intervals: None = None
    intervals_missing: str
    remarks: tuple[str, ...] = ()


Imported = Figure | Joules | Missing


def figure(
    value: float, unit: str, statistic: str, *, spread: float | None = None, values: Sequence[float] = (),
    n: int | None = None, n_missing: str = "", note: str = "",
) -> Figure:  # fmt: skip
    """Return a figure; ``n`` is the number of ``values`` where they are given. Their deviation says which it is."""
    count = len(values) or n
    single = count == 1
    lost = spread is None or single
    return Figure(
        value=value, unit=unit, statistic=statistic, n=count,
        n_missing=UNSET if count else n_missing or "the file does not say how many there were",
        spread=None if lost else spread,
        spread_missing=("there is one value" if single else "the file gives none") if lost else UNSET,
        spread_kind="" if lost else deviation_kind(spread or 0.0, values), values=tuple(values), note=note,
    )  # fmt: skip


def deviation_kind(spread: float, values: Sequence[float]) -> str:
    """Say which standard deviation a number is, by computing both from the values; not known without them."""
    if len(values) > 1:
        mean = math.fsum(values) / len(values)
        squares = math.fsum((v - mean) ** 2 for v in values)
        slack = _ROUNDED * max(spread, 1e-3 * abs(mean))
        for name, divisor in (("n - 1", len(values) - 1), ("n", len(values))):
            if abs(math.sqrt(squares / divisor) - spread) <= slack:
                return f"standard deviation of the values (divisor {name})"
        return "standard deviation as the file gives it; it does not follow from the values in it"
    return "standard deviation as the file gives it (the values are not in it)"


def flattened(metrics: dict[str, Imported]) -> dict[str, Figure | Joules | str | None]:
    """Turn ``Missing`` into ``null`` and ``<name>_missing``, as in a result."""
    flat: dict[str, Figure | Joules | str | None] = {}
    for name, metric in metrics.items():
        flat[name] = None if isinstance(metric, Missing) else metric
        if isinstance(metric, Missing):
            flat[f"{name}_missing"] = metric.reason
    return flat


def with_id(record: ImportedRecord) -> ImportedRecord:
    """Return the record with ``sha256:...`` over its RFC 8785 form without ``id``. It shows that it is whole."""
    content = msgspec.to_builtins(record)
    del content["id"]
    return msgspec.structs.replace(record, id=f"sha256:{hashlib.sha256(canonical_json(content)).hexdigest()}")


def save_imported(record: ImportedRecord, folder: Path) -> Path:
    """Write the record into ``folder`` and return its path. Raises ``InputError`` if it is there, ``HostError``."""
    data = msgspec.json.format(msgspec.json.encode(record, order="sorted"), indent=1) + b"\n"
    date = (record.measured_utc or "undated")[:10]
    parts = (date, record.tool.name, record.model.name, record.test, record.id.removeprefix("sha256:")[:8])
    slugs = (re.sub(r"[^a-z0-9.]+", "-", p.lower()).strip("-.")[:48] or "none" for p in parts)
    return write_whole(folder / f"{'-'.join(slugs)}.json", data)


def load_imported(path: str | Path) -> ImportedRecord:
    """Return a record that ``perjoule import`` wrote. Raises ``InputError``, also where it was changed since."""
    source = str(path)
    content = strict_json(text_of(read_bytes(Path(path), _HINT), source, _HINT), source, _HINT)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise InputError(f"{source}: not an imported record: no schema {SCHEMA}", hint=_HINT)
    version = content.get("schema_version")
    if isinstance(version, int) and version > IMPORTED_VERSION:
        raise InputError(
            f"{source}: version {version} of an imported record is newer than this perjoule reads",
            hint="update perjoule",
        )
    try:
        record = msgspec.convert(content, ImportedRecord)
        whole = with_id(record).id == record.id
    except (msgspec.ValidationError, ValueError) as error:
        raise InputError(f"{source}: not an imported record: {error}", hint=_HINT) from None
    if not whole:
        raise InputError(f"{source}: its id does not fit its content: it was changed", hint="import the file again")
    return record
