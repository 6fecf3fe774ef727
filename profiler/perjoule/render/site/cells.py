"""One row of the site's table: texts for people, and the numbers that its columns are sorted by."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import quote

from perjoule.records import UNSET, Energy, Label, Quantity, Record
from perjoule.records.facts import STATISTICS_VERSION
from perjoule.render import format as fmt
from perjoule.render.plain import printable

if TYPE_CHECKING:
    from perjoule.publish.index import Entry
    from perjoule.store.flat import Cell

_LONGEST_NAME = 80
_NOT_SLUG = re.compile(r"[^a-z0-9.]+")
_DIGEST = 6  # digits that tell two names of one slug apart
_SHORT_ID = 12
ENERGY = "energy_j_per_output_token"
RATE = "decode_tokens_per_s"
SORTED = (RATE, "ttft_s", ENERGY, "peak_memory_bytes")  # columns of numbers, with their intervals


class Line(Record, frozen=True, kw_only=True):
    """One result as a table shows it. ``cells`` are (text, small text, number to sort by or None) of ``SORTED``."""

    anchor: str
    model: str
    model_page: str
    quantization: str
    scenario: str
    engine: str
    machine: str
    machine_page: str
    date: str
    raw: str  # link to the result, from a page in site/
    label: str
    warnings: str
    note: str
    cells: tuple[tuple[str, str, float | None], ...]


def line(entry: Entry) -> Line:
    row = entry.row
    threads = number(row, "threads")
    return Line(
        anchor=anchor(entry),
        model=name(row, "model"),
        model_page=model_page(text(row, "model")),
        quantization=name(row, "quantization"),
        scenario=name(row, "scenario"),
        engine=f"{name(row, 'backend')} {name(row, 'engine_version')}"
        + ("" if threads is None else f", {threads:.0f} thread{'s' * (threads != 1)}"),
        machine=name(row, "gpus") or name(row, "cpu"),
        machine_page=machine_page(text(row, "machine_id")),
        date=text(row, "created_utc")[:10],
        raw=f"../{quote(entry.path)}",
        label=label_of(row),
        warnings=name(row, "warnings"),
        note=_note(row),
        cells=tuple(_cell(row, metric) for metric in SORTED),
    )


def _note(row: dict[str, Cell]) -> str:
    """Return what to say of numbers that a file holds as older statistics made them."""
    made_by = number(row, "statistics")
    older = made_by is not None and made_by < STATISTICS_VERSION
    return f"numbers made again: those of the file are of statistics {made_by:.0f}" if older else ""


def anchor(entry: Entry) -> str:
    digits = _NOT_SLUG.sub("", text(entry.row, "id").removeprefix("sha256:"))
    return f"r{digits[:_SHORT_ID]}"


def _cell(row: dict[str, Cell], metric: str) -> tuple[str, str, float | None]:
    value = number(row, metric)
    if value is None:
        return fmt.DASH, "", None
    if metric == ENERGY:
        energy = as_energy(row, metric)
        return fmt.energy_short(energy), fmt.kind(energy), value
    unit = {"ttft_s": "s", "peak_memory_bytes": "bytes", RATE: "tokens/s"}[metric]
    return fmt.metric(_as_quantity(row, metric, unit)).removesuffix(" tokens/s").replace(" tokens/s", ""), "", value


def label_of(row: dict[str, Cell]) -> str:
    """Return how the joules of a row were obtained; ``none`` for what is no label."""
    label = text(row, f"{ENERGY}_label")
    return label if label in get_args(Label) else "none"


def as_energy(row: dict[str, Cell], metric: str) -> Energy:
    """Return joules of a row as the record that is formatted; what no table shows of them is left empty."""
    label: Any = label_of(row)
    return Energy(
        **_bounds(row, metric), unit="J", n=1, statistic="", interval="", label=label, grade="",
        scope=name(row, f"{metric}_scope"), convention="gross", random=(0.0, 0.0), systematic=(0.0, 0.0),
    )  # fmt: skip


def _as_quantity(row: dict[str, Cell], metric: str, unit: str) -> Quantity:
    return Quantity(**_bounds(row, metric), unit=unit, n=1, statistic="", interval="")


def _bounds(row: dict[str, Cell], metric: str) -> dict[str, Any]:
    low, high = number(row, f"{metric}_low"), number(row, f"{metric}_high")
    return {
        "value": number(row, metric), "low": low, "high": high,
        "low_missing": "not in the index" if low is None else UNSET,
        "high_missing": "not in the index" if high is None else UNSET,
    }  # fmt: skip


def number(row: dict[str, Cell], key: str) -> float | None:
    value = row.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def text(row: dict[str, Cell], key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) else ""


def name(row: dict[str, Cell], key: str) -> str:
    """Return a text as a page shows it: nothing that a browser would obey, and not endless."""
    shown = text(row, key)
    if not (shown.isascii() and shown.isprintable()):  # nearly all are, and a page shows thousands
        shown = printable(shown).replace("\n", " ")
    return shown if len(shown) <= _LONGEST_NAME else f"{shown[:_LONGEST_NAME]}\u2026"


def model_page(model: str) -> str:
    slug = _NOT_SLUG.sub("-", model.lower()).strip("-.")[:48] or "model"
    return f"model-{slug}-{hashlib.sha256(model.encode()).hexdigest()[:_DIGEST]}.html"


def machine_page(machine_id: str) -> str:
    return f"machine-{_NOT_SLUG.sub('-', machine_id)}.html"
