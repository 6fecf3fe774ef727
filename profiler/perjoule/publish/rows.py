"""The rows of many results, taken from an index where there is one: what queries and tables are made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from perjoule import store
from perjoule.errors import PerjouleError
from perjoule.publish.batch import INDEX
from perjoule.publish.found import SITE, result_paths
from perjoule.publish.index import read_index, stamp
from perjoule.store.flat import flat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.publish.index import Entry
    from perjoule.store.flat import Row


def rows_of(names: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Return a row for each result in the files and folders named, with its ``path``; and what could not be read.

    A published folder's index spares reading the files that did not change since. Nothing is verified.
    """
    known: dict[Path, Entry] = {}
    for name in names:
        index = Path(name) / SITE / INDEX
        if index.is_file():
            known |= {Path(name) / path: entry for path, entry in read_index(index).items() if entry.row}
    paths, problems = result_paths(names)
    rows: list[Row] = []
    for path in paths:
        entry = known.get(path)
        try:
            fresh = entry is not None and entry.stamp == stamp(path)
            row = entry.row if entry is not None and fresh else flat(store.load(path))
        except PerjouleError as error:
            problems.append(error.message)
            continue
        rows.append({"path": str(path), **row})
    return rows, problems
