"""Results as CSV: the columns of `perjoule query`'s view, one row a result, and no cell that a spreadsheet obeys."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from perjoule.render.plain import printable
from perjoule.store.flat import flat

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from perjoule.records import RunResult
    from perjoule.store.flat import Cell

_OBEYED = ("=", "+", "-", "@", "\t", "\r")  # what OWASP's page on CSV injection names as the start of a formula


def csv_text(results: Sequence[tuple[Path, RunResult]]) -> str:
    """Return a header and one row a result, numbers with all their digits, what could not be had empty."""
    rows = [{"path": str(path), **flat(result)} for path, result in results]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([cell(name) for name in columns])
    writer.writerows([cell(row.get(name)) for name in columns] for row in rows)
    return out.getvalue()


def cell(value: Cell) -> str:
    """Return a cell: text that a spreadsheet would take for a formula begins with an apostrophe, numbers stay."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    quoted = f"'{value}" if value.lstrip(" \n").startswith(_OBEYED) else value
    return printable(quoted).replace("\n", "\\n")
