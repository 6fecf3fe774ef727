"""SQL over any number of results: one view, ``results``, of flat rows, in an embedded DuckDB."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from perjoule.errors import HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.store.flat import Row

_TYPES = {bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE", str: "VARCHAR"}
_INSTALL = "pip install 'perjoule[query]'"


def query(sql: str, rows: Sequence[Row]) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return the names of the columns and the rows that ``sql`` gives over the view ``results``.

    The database is in memory and cannot reach files or the network, whatever the statement asks for. Raises
    ``HostError`` where DuckDB is not installed, ``UsageError`` for a statement that it refuses.
    """
    try:
        import duckdb  # noqa: PLC0415 - an extra
    except ImportError:
        raise HostError("perjoule query needs DuckDB, which is not installed", hint=_INSTALL) from None
    with duckdb.connect() as database:
        _fill(database, rows)
        # in this order: what is locked cannot be opened again
        database.execute("SET enable_external_access = false")
        database.execute("SET lock_configuration = true")
        try:
            answer = database.execute(sql)
            columns = [str(column[0]) for column in answer.description or ()]
            return columns, answer.fetchall() if columns else []
        except duckdb.Error as error:
            first = str(error).strip().splitlines()[0]
            raise UsageError(
                f"the query does not work: {first}", hint='e.g. perjoule query "SELECT model, ttft_s FROM results"'
            ) from None


def _fill(database: Any, rows: Sequence[Row]) -> None:
    columns = column_types(rows)
    with tempfile.TemporaryDirectory(prefix="perjoule-query-") as folder:
        path = Path(folder) / "rows.json"
        with path.open("wb") as file:
            file.writelines(msgspec.json.encode(row) + b"\n" for row in rows)
        database.execute(
            "CREATE TABLE results AS SELECT * FROM read_json($path, format = 'newline_delimited', columns = $columns)",
            {"path": str(path), "columns": columns},
        )


def column_types(rows: Sequence[Row]) -> dict[str, str]:
    """Return every column of the rows with its SQL type; a number that is whole in one row only is no integer."""
    found: dict[str, str] = {}
    for row in rows:
        for name, value in row.items():
            kind = _TYPES.get(type(value))
            known = found.get(name)
            if kind is None or kind == known:
                found.setdefault(name, "")
            elif not known:
                found[name] = kind
            else:
                found[name] = "DOUBLE" if {kind, known} == {"BIGINT", "DOUBLE"} else "VARCHAR"
    return {name: kind or "DOUBLE" for name, kind in found.items()} or {"id": "VARCHAR"}
