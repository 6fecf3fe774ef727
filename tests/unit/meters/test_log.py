"""Logs of lab meters: every format, every fault by its line, holes, and the offset of a clock."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import UsageError
from perjoule.meters import MeterSet, build, watt_log
from perjoule.meters.alignment import find_offset
from perjoule.meters.log import CsvMeter
from perjoule.meters.watt_log import LogError, read_log
from perjoule.protocols import Count, Load, LogMeter
from perjoule.records import MeterRefusal

if TYPE_CHECKING:
    from pathlib import Path

T0 = 1_790_000_000.0  # any second of 2026


def at(seconds: float, zone: timezone = UTC) -> str:
    return datetime.fromtimestamp(T0 + seconds, zone).isoformat()


def write(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


INDIA = timezone(timedelta(hours=5, minutes=30))
FORMATS = {
    "rfc3339": ("time,power_w", lambda n, w: f"{at(n)},{w}"),
    "zulu": ("Timestamp,Watts", lambda n, w: f"{at(n).replace('+00:00', 'Z')},{w}"),
    "offset": ("utc,W", lambda n, w: f"{at(n, INDIA)},{w}"),
    "unix": ("time,power", lambda n, w: f"{T0 + n},{w}"),
    "unix ms": ("time,voltage,Power (W)", lambda n, w: f"{(T0 + n) * 1000:.0f},230.1,{w}"),
    "milliwatts": ("time,mW", lambda n, w: f"{T0 + n},{w * 1000}"),
    "kilowatts": ("time,power_kW,power_factor", lambda n, w: f"{T0 + n},{w / 1000},0.9"),
    "date and time": ("Date;Time;Power [W]", lambda n, w: f"{at(n)[:10]};{at(n)[11:]};{w}"),
    "tabs and quotes": ('"time"\t"watts"', lambda n, w: f'"{at(n)}"\t"{w}"'),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_reads_as_the_same_log(kind: str, tmp_path: Path):
    header, row = FORMATS[kind]
    path = write(
        tmp_path / "log.csv", ("\ufeff" if kind == "zulu" else "") + header, [row(n, 50.0 + n % 3) for n in range(20)]
    )
    log = read_log(path)
    assert list(log.times_s) == pytest.approx([T0 + n for n in range(20)], abs=1e-6)
    assert list(log.watts) == pytest.approx([50.0 + n % 3 for n in range(20)])
    assert log.period_s() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("{t},fifty", "line 4: power 'fifty' is not a number"),
        ("{t},", "line 4: power '' is not a number"),
        ("{t},1_0", "not a number"),
        ("{t},-1", "line 4: power is negative"),
        ("{t},nan", "line 4: power 'nan' is not a number"),
        ("{t},inf", "not a number"),
        ("{t},2e5", "line 4: power is above 100000 W"),
        ("{t},1e400", "not a number|above"),
        ("{t}", "line 4: 1 columns where 2 are needed"),
        ("2026-09-21T12:00:00,5", "line 4: the time has no zone"),
        ("21.9.2026 12:00,5", "line 4: time '21.9.2026 12:00' is neither"),
        ("3.5,5", "line 4: time 3.5 is neither Unix seconds nor milliseconds"),
        ("1790000002000000000,5", "neither Unix"),
        ("nan,5", "neither RFC 3339"),
        (f"{T0 + 1},5", "line 4: the time of the row before it again"),
        (f"{T0 + 0.5},5", "line 4: a time before the last"),
        ("{t}," + "5" * 5000, "line 4: longer than 4096 characters"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(bad: str, why: str, tmp_path: Path):
    rows = [f"{T0},5", f"{T0 + 1},5", bad.format(t=T0 + 2), f"{T0 + 3},5"]
    path = write(tmp_path / "log.csv", "time,power_w", rows)
    meter = CsvMeter(str(path))
    (refusal,) = meter.probe().refusals
    assert any(part in refusal.reason for part in why.split("|")), refusal.reason
    assert refusal.fix
    ((joined,),) = meter.counts_at([T0 + 1], [])
    assert isinstance(joined, MeterRefusal)
    assert str(tmp_path) not in refusal.reason


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("", "no column named time"),
        ("when,power_w", "no column named time"),
        ("time,volts", "no column named power_w"),
        ("time,power_va", "power in 'va', which is no unit"),
        ("time,power_MW", "power in 'MW'"),
        ("time,power_w,power_kw", "more than one column could be power_w: power_w, power_kw"),
        ("time,utc,power_w", "more than one column could be time"),
    ],
)
def test_a_header_that_does_not_say_enough_is_refused(header: str, why: str, tmp_path: Path):
    path = write(tmp_path / "log.csv", header, [f"{T0 + n},5,5" for n in range(5)])
    (refusal,) = CsvMeter(str(path)).probe().refusals
    assert why in refusal.reason


def test_files_that_are_no_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "binary").write_bytes(b"time,power_w\n\xff\xfe\x00")
    (tmp_path / "short").write_text(f"time,power_w\n{T0},5\n")
    (tmp_path / "large").write_text("time,power_w\n" + "\n" * 200)
    monkeypatch.setattr(watt_log, "MAX_BYTES", 100)
    reasons = {
        name: CsvMeter(str(tmp_path / name)).probe().refusals[0].reason
        for name in ("binary", "short", "large", "absent", ".")
    }
    assert "not UTF-8" in reasons["binary"]
    assert "fewer than 3 rows" in reasons["short"]
    assert "the limit is" in reasons["large"]
    assert "no such file" in reasons["absent"]
    assert "no such file" in reasons["."]


@given(st.binary(max_size=300))
def test_bytes_of_any_kind_are_a_log_or_a_reason(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(b"time,power_w\n" + data)
    try:
        watts = list(read_log(path).watts)
    except LogError as error:
        watts = [] if error.fix else [math.nan]
    assert all(math.isfinite(w) and w >= 0 for w in watts)


def test_a_growing_file_is_read_again_and_its_unfinished_line_left_out(tmp_path: Path):
    path = write(tmp_path / "log.csv", "time,power_w", [f"{T0 + n},100" for n in range(10)])
    with path.open("a") as file:
        file.write(f"{T0 + 10},1")  # of 100
    with MeterSet([f"csv:{path}"]) as meters:
        (fact,) = meters.facts
        assert meters.read() == []
        with path.open("a") as file:
            file.write("00\n" + "".join(f"{T0 + n},100\n" for n in range(11, 60)))
        (start,), (end,) = meters.logged_counts([T0 + 20.25, T0 + 50.5], [])
    assert (fact.domain, fact.scope, fact.grade, fact.tolerance) == ("wall", "wall", "csv", 0.01)
    assert (fact.tick_s, fact.min_window_s) == (pytest.approx(1.0), pytest.approx(100.0))
    assert isinstance(start, Count)
    assert isinstance(end, Count)
    assert (end.count - start.count) / 1e6 == pytest.approx(100 * 30.25)


def test_the_scope_can_be_said(tmp_path: Path):
    path = write(tmp_path / "log.csv", "time,power_w", [f"{T0 + n},100" for n in range(10)])
    meter = build(f"csv:{path}?scope=package")
    assert isinstance(meter, LogMeter)
    (fact,) = meter.probe().domains
    assert (fact.domain, fact.scope) == ("package-0", "package")
    for argument in ("", f"{path}?scope=house", f"{path}?scale=2"):
        with pytest.raises(UsageError):
            CsvMeter(argument)


def test_a_hole_refuses_the_windows_it_is_in_and_no_others(tmp_path: Path):
    seconds = [n for n in range(200) if not 100 < n < 110]
    path = write(tmp_path / "log.csv", "time,power_w", [f"{T0 + n},{100 + n % 2}" for n in seconds])
    windows = [(20, 60), (60, 99.5), (90, 104), (104, 106), (106, 160), (95, 120), (110, 190)]
    meter = CsvMeter(str(path))
    rows = meter.counts_at([T0 + edge for window in windows for edge in window], [])
    refused = [isinstance(row[0], MeterRefusal) for row in rows]
    assert refused[::2] == refused[1::2] == [False, False, True, True, True, True, False]
    (hole,) = rows[5]
    assert isinstance(hole, MeterRefusal)
    assert f"hole of 10.0 s after {at(100)[:19]}" in hole.reason
    (before,), (after,) = rows[3], rows[12]  # a span over all of it is not exact, and says so
    assert isinstance(before, Count)
    assert isinstance(after, Count)
    assert math.sqrt(after.variance - before.variance) / 1e6 > 500


def test_windows_that_the_log_does_not_cover_are_refused(tmp_path: Path):
    path = write(tmp_path / "log.csv", "time,power_w", [f"{T0 + n},100" for n in range(50)])
    instants = [T0 + at_s for at_s in (-9, 5, -0.5, 5, 5, 90)]
    early, _, held, inside, _, late = (row[0] for row in CsvMeter(str(path)).counts_at(instants, []))
    assert isinstance(early, MeterRefusal)
    assert "begins 8.0 s too late" in early.reason
    assert isinstance(late, MeterRefusal)
    assert "ends 40.0 s too early" in late.reason
    assert isinstance(held, Count)
    assert isinstance(inside, Count)
    assert (inside.count - held.count) / 1e6 == pytest.approx(550)


def simulate(
    seed: int, tick_s: float, offset_s: float, *, related: bool = True, period: float = 0.0
) -> tuple[np.ndarray, np.ndarray, list[Load]]:
    """Return a log (times by its clock, watts averaged over a tick) and the loads behind it: 300 s of requests."""
    rng = np.random.default_rng(seed)
    loads, t = [], T0 + rng.uniform(0, 10)
    while t < T0 + 300:
        pause_s = rng.choice([0.1, rng.uniform(3, 12)], p=[0.8, 0.2])
        spans = [(rng.uniform(0.3, 1.5), 3.9), (rng.uniform(2, 8), 3.0), (pause_s, 0.1)]
        spans = [(period, 3.9), (1.0, 0.2)] if period else spans
        for length, busy in spans:
            loads.append(Load(start_utc_s=t, end_utc_s=t + length, busy=busy + abs(rng.normal(0, 0.05))))
            t += length
    edges = np.array([load.start_utc_s for load in loads] + [loads[-1].end_utc_s])
    work = np.concatenate([[0], np.cumsum([load.busy * (load.end_utc_s - load.start_utc_s) for load in loads])])
    times = np.arange(T0 - 40, t + 40, tick_s) + rng.uniform(0, tick_s)
    busy = (np.interp(times, edges, work) - np.interp(times - tick_s, edges, work)) / tick_s
    if not related:
        busy = np.searchsorted(np.cumsum(rng.exponential(5, 400)), times - times[0]) % 2 * 3.0
    return times + offset_s, np.maximum(1, 60 + 25 * busy + rng.normal(0, 4, len(times))), loads


def energy(times: np.ndarray, watts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.diff(times) * (watts[1:] + watts[:-1]) / 2)])


@pytest.mark.parametrize("tick_s", [0.1, 1.0, 2.0])
@pytest.mark.parametrize("offset_s", [7.3, -21.9, 0.0])
def test_a_clock_that_is_off_is_found_within_one_period(tick_s: float, offset_s: float):
    for seed in range(2 if tick_s < 1 else 6):
        times, watts, loads = simulate(seed, tick_s, offset_s)
        loads += [Load(start_utc_s=x.start_utc_s, end_utc_s=x.end_utc_s + 1, busy=9.0) for x in loads[:40:3]]  # overlap
        found = find_offset(times, energy(times, watts), tick_s, loads)
        assert "corrected" in found.note, found.note
        assert abs(found.seconds - offset_s) <= tick_s


def test_a_log_of_something_else_is_never_shifted():
    for seed in range(25):
        times, watts, loads = simulate(seed, 1.0, 0.0, related=False)
        found = find_offset(times, energy(times, watts), 1.0, loads)
        assert (found.seconds, found.note[:23]) == (0.0, "no clock offset applied")


def test_a_load_that_repeats_fits_everywhere_and_is_not_taken():
    times, watts, loads = simulate(1, 0.1, 0.0, period=3.0)
    found = find_offset(times, energy(times, watts), 0.1, loads)
    assert found.seconds == 0.0
    assert "at one offset alone" in found.note


@pytest.mark.parametrize("case", ["few", "constant", "elsewhere", "none"])
def test_without_enough_load_nothing_is_shifted(case: str):
    times, watts, loads = simulate(2, 1.0, 5.0)
    loads = {
        "few": loads[:10],
        "constant": [Load(start_utc_s=T0 + n, end_utc_s=T0 + n + 1, busy=2.0) for n in range(200)],
        "elsewhere": [Load(start_utc_s=x.start_utc_s + 9e3, end_utc_s=x.end_utc_s + 9e3, busy=x.busy) for x in loads],
        "none": [],
    }[case]
    found = find_offset(times, energy(times, watts), 1.0, loads)
    assert found.seconds == 0.0
    assert "no clock offset" in found.note


def test_the_joined_energy_is_that_of_the_shifted_window(tmp_path: Path):
    times, watts, loads = simulate(4, 0.1, 7.3)
    path = write(tmp_path / "log.csv", "time,power_w", [f"{t:.3f},{w:.3f}" for t, w in zip(times, watts, strict=True)])
    meter = CsvMeter(str(path))
    spans = [(x.start_utc_s, x.end_utc_s) for x in loads if x.busy > 2.5 and x.end_utc_s - x.start_utc_s > 4]
    rows = meter.counts_at([edge for span in spans for edge in span], loads)
    counts = [row[0].count for row in rows if isinstance(row[0], Count)]
    joules = sum(counts[1::2]) / 1e6 - sum(counts[::2]) / 1e6
    busy = {x.start_utc_s: x.busy for x in loads}
    truth = sum((60 + 25 * busy[start]) * (end - start) for start, end in spans)
    assert joules == pytest.approx(truth, rel=0.01)
    (note,) = meter.notes()
    assert "ahead of this machine's: corrected" in note
