"""Power logs as text: one header row, then a time and a power per row. Every row is checked; a bad line is named.

Times are RFC 3339 with a zone, or Unix seconds or milliseconds. Columns that are not named here are ignored.
"""

from __future__ import annotations

import csv
import math
import os
import re
from array import array
from datetime import datetime
from typing import IO, TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_BYTES = 256 * 1024 * 1024
MAX_LINE_CHARS = 4096
MAX_W = 100_000.0
_TIMES = ("time", "timestamp", "utc")
_WATTS = {"w": 1.0, "watt": 1.0, "watts": 1.0, "": 1.0, "mw": 1e-3, "milliwatts": 1e-3, "kw": 1e3, "kilowatts": 1e3}
_POWER = re.compile(r"power(?:[ _]*[\[(/]?[ _]*(?P<unit>[^\])\s]*)[\])]?)?")
_UNIX = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE]\+?\d{1,2})?")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")
_UNIX_SECONDS = (1e8, 1e11)  # 1973 to 5138; a thousand times these are the same years in milliseconds
_LEAST_ROWS = 3


class LogError(Exception):
    """A log that cannot be used: which line, why, and what would make it right."""

    def __init__(self, line: int | None, why: str, fix: str) -> None:
        super().__init__(f"line {line}: {why}" if line is not None else why)
        self.fix = fix


class WattLog:
    """The rows of a log: seconds since 1970 by its clock, ascending, and watts."""

    def __init__(self) -> None:
        self.times_s = array("d")
        self.watts = array("d")

    def period_s(self) -> float:
        """Return the middle time between rows. Raises ``LogError`` with fewer than three rows."""
        if len(self.times_s) < _LEAST_ROWS:
            raise LogError(None, f"fewer than {_LEAST_ROWS} rows", "start the log before the run")
        gaps = sorted(b - a for a, b in zip(self.times_s, self.times_s[1:], strict=False))
        return gaps[len(gaps) // 2]


def read_log(path: Path, max_rows: int | None = None) -> WattLog:
    """Read a log, or its first rows. Raises ``LogError``.

    The file may be growing: a last line without its line end is taken as unfinished and left out.
    """
    if not path.is_file():
        raise LogError(None, "there is no such file", "give the file that the meter writes; start it before the run")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                why = f"the log has {size >> 20} MiB, the limit is {MAX_BYTES >> 20}"
                raise LogError(None, why, "cut it down to the hours of the run")
            return _read(file, max_rows)
    except OSError as error:
        why = f"the log cannot be read: {error.strerror or 'no reason given'}"
        raise LogError(None, why, "allow this user to read it") from error
    except UnicodeDecodeError as error:
        raise LogError(None, "the log is not UTF-8 text", "export it as CSV in UTF-8") from error


def _read(file: IO[str], max_rows: int | None) -> WattLog:
    lines = _lines(file)
    header = next(lines, "")
    delimiter = max(",;\t", key=header.count)
    columns = _Columns(next(csv.reader([header], delimiter=delimiter), []))
    log = WattLog()
    rows = csv.reader(lines, delimiter=delimiter)
    try:
        for row in rows:
            if not row or row == [""]:
                continue
            line = rows.line_num + 1  # after the header
            at_s, watts = columns.take(row, line)
            if log.times_s and at_s <= log.times_s[-1]:
                why = "the time of the row before it again" if at_s == log.times_s[-1] else "a time before the last"
                raise LogError(line, why, "sort the log by time and keep one row per time")
            log.times_s.append(at_s)
            log.watts.append(watts)
            if max_rows is not None and len(log.times_s) >= max_rows:
                break
    except csv.Error as error:
        raise LogError(rows.line_num + 1, f"not CSV: {error}", "export it as plain CSV") from error
    return log


def _lines(file: IO[str]) -> Iterator[str]:
    """Yield finished lines, none of them endless."""
    number = 0
    while line := file.readline(MAX_LINE_CHARS + 1):
        number += 1
        if len(line) > MAX_LINE_CHARS:
            raise LogError(number, f"longer than {MAX_LINE_CHARS} characters", "export it as plain CSV")
        if not line.endswith(("\n", "\r")):
            return
        yield line


class _Columns:
    """Where a row has its time and its power, by the names in the header."""

    def __init__(self, header: list[str]) -> None:
        names = [name.strip() for name in header]
        lower = [name.lower() for name in names]
        self._date = lower.index("date") if "date" in lower and "time" in lower else None
        self._time = _the_only([i for i, name in enumerate(lower) if name in _TIMES], "time", names)
        units = {i: unit for i, name in enumerate(names) if (unit := _power_unit(name)) is not None}
        known = [i for i, unit in units.items() if _is_known(unit)]
        if units and not known:
            why = f"power in {next(iter(units.values()))[:16]!r}, which is no unit known here"
            raise LogError(1, why, "name the column power_w, power_mw or power_kw")
        self._power = _the_only(known, "power_w", names)
        self._scale = _WATTS[units[self._power].lower()]
        self._needed = max(self._time, self._power, self._date or 0) + 1

    def take(self, row: list[str], line: int) -> tuple[float, float]:
        """Return the time in seconds since 1970 and the watts of a row."""
        if len(row) < self._needed:
            raise LogError(line, f"{len(row)} columns where {self._needed} are needed", "repair or remove the line")
        text = row[self._time].strip()
        if self._date is not None:
            text = f"{row[self._date].strip()}T{text}"
        return _seconds(text, line), self._watts(row[self._power].strip(), line)

    def _watts(self, text: str, line: int) -> float:
        if not _NUMBER.fullmatch(text):
            why = f"power {text[:24]!r} is not a number"
            raise LogError(line, why, "repair or remove the line; decimals have a point")
        watts = float(text) * self._scale
        if watts < 0:
            raise LogError(line, "power is negative", "check the polarity of the meter's clamps")
        if watts > MAX_W or not math.isfinite(watts):
            raise LogError(line, f"power is above {MAX_W:g} W", "check the unit in the header")
        return watts


def _the_only(found: list[int], wanted: str, names: list[str]) -> int:
    if len(found) == 1:
        return found[0]
    if found:
        why = f"more than one column could be {wanted}: {', '.join(names[i][:24] for i in found)}"
        raise LogError(1, why, "rename those that are not meant")
    raise LogError(1, f"no column named {wanted}", "the header needs a time (time, timestamp, utc) and power_w")


def _power_unit(name: str) -> str | None:
    """Return the unit of a column of power, as written; None for a column of something else."""
    if name.lower() in _WATTS:
        return name or None
    match = _POWER.fullmatch(name[:5].lower() + name[5:])
    return (match["unit"] or "W") if match else None


def _is_known(unit: str) -> bool:
    return unit.lower() in _WATTS and not unit.startswith("M")  # a megawatt is not meant, or is not believed


def _seconds(text: str, line: int) -> float:
    """Read a time: Unix seconds or milliseconds by magnitude, or RFC 3339 with its zone."""
    if _UNIX.fullmatch(text):
        return _unix(float(text), line)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        _refuse_time(line, f"time {text[:32]!r} is neither RFC 3339 nor Unix time")
    if at.tzinfo is None:
        raise LogError(line, "the time has no zone", "add Z to times in UTC, or the offset: 2026-01-31T12:00:00Z")
    return at.timestamp()


def _unix(value: float, line: int) -> float:
    least, most = _UNIX_SECONDS
    if not least <= value < most * 1e3:
        _refuse_time(line, f"time {value:g} is neither Unix seconds nor milliseconds")
    return value if value < most else value / 1e3


def _refuse_time(line: int, why: str) -> NoReturn:
    raise LogError(line, why, "write times as 2026-01-31T12:00:00.5Z or as seconds since 1970 in UTC")
