"""A program that writes watts: the lines, and the process with everything it started."""

from __future__ import annotations

import itertools
import shlex
import sys
import threading
from fractions import Fraction
from pathlib import Path

import pytest

from perjoule.clock import MonotonicClock
from perjoule.errors import UsageError
from perjoule.meters import build, command
from perjoule.meters.command import CommandMeter, WattLines
from perjoule.protocols import Count
from perjoule.records import MeterRefusal

S = 1_000_000_000
# writes a line of watts every 20 ms for ever, as an instrument's tool does
STEADY = "import threading\nwhile True:\n print(42.5, flush=True); threading.Event().wait(0.02)"


def run(script: str) -> str:
    return shlex.join([sys.executable, "-c", script])


def test_lines_integrate_to_the_truth_however_they_are_cut():
    whole, cut = WattLines(), WattLines()
    data = b"".join(b"%d.5\r\n" % (100 + n % 7) for n in range(50))
    for n, line in enumerate(data.splitlines(keepends=True)):
        whole.feed(line, (n + 1) * S)
    for n, line in enumerate(data.splitlines(keepends=True)):
        cut.feed(line[:3], n * S + S // 2)
        cut.feed(line[3:], (n + 1) * S)
    truth_mw = [100_500 + 1000 * (n % 7) for n in range(50)]
    joules = sum((a + b) / 2 for a, b in itertools.pairwise(truth_mw)) / 1e3
    for lines in (whole, cut):
        assert lines.integral.count(50 * S) / 1e12 == pytest.approx(joules, rel=1e-12)
        assert lines.period_s() == 1.0
        assert lines.notes() == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"watts: 5", "not a number"),
        (b"nan", "not a number"),
        (b"inf", "not a number"),
        (b"1_000", "not a number"),
        (b"", "not a number"),
        ("٣".encode(), "not a number"),
        (b"\x00\xff5", "not a number"),
        (b"-4", "not above 0 W"),
        (b"0.0", "not above 0 W"),
        (b"1e9", "above 100000 W"),
        (b"1e999", "not a number|above"),
        (b"9" * 200, "too long"),
        (b"9" * 100_000, "too long"),
    ],
)
def test_a_line_that_is_no_power_is_counted_and_never_zero(line: bytes, why: str):
    lines = WattLines()
    for n in range(10):
        lines.feed(b"50\n" if n != 4 else line[:5000] + (b"\n" if len(line) <= 5000 else b""), (n + 1) * S)
        if n == 4 and len(line) > 5000:
            lines.feed(line[5000:] + b"\n", (n + 1) * S)
    assert lines.integral.count(10 * S) / 1e12 == 50 * 9
    (note,) = lines.notes()
    assert any(part in note for part in why.split("|")), note
    assert "line 5" in note
    assert "of 10 lines" in note


def test_silence_of_ten_periods_is_a_hole_that_later_lines_do_not_close():
    lines = WattLines()
    for n in range(20):
        lines.feed(b"50\n", (n + 1) * S)
    assert lines.silence(29 * S) is None
    lines.feed(b"rubbish\n", 30 * S)
    lines.feed(b"50\n", 31 * S)  # 11 s after the last: too late
    assert lines.silence(31 * S) == "no watts for 11.0 s, 1 line not a number"
    assert lines.integral.polls == 20


def test_lines_that_come_together_show_the_period_of_their_arrival():
    lines = WattLines()
    for n in range(8):
        lines.feed(b"50\n60\n70\n", (n + 1) * S)
    assert lines.period_s() == 1.0


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a /proc to see that the program is gone")
def test_a_program_is_read_and_ends_with_all_it_started(tmp_path: Path):
    marker = tmp_path / "child"
    script = (
        "import subprocess, sys, os\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import threading; threading.Event().wait()'])\n"
        f"open({str(marker)!r}, 'w').write(str(child.pid))\n{STEADY}"
    )
    meter = CommandMeter(run(script))
    (fact,) = meter.probe().domains
    meter.open()
    (start,) = meter.read()
    threading.Event().wait(0.1)
    (end,) = meter.read()
    meter.close()
    assert (fact.domain, fact.grade, fact.tolerance, fact.min_window_s) == (
        "wall",
        "command",
        0.10,
        pytest.approx(2, abs=2),
    )
    assert isinstance(start, Count)
    assert isinstance(end, Count)
    joules = float((end.count - start.count) * Fraction(fact.unit_j or "0"))
    assert joules == pytest.approx(42.5 * (end.before_ns - start.before_ns) / S, rel=1e-6)
    assert (end.polls or 0) > (start.polls or 0)
    assert not alive(int(marker.read_text()))


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that is dead and waits for its parent does not."""
    deadline_ns = MonotonicClock.now_ns() + S
    while MonotonicClock.now_ns() < deadline_ns:
        try:
            with Path(f"/proc/{pid}/stat").open("rb") as stat:
                if stat.read().rpartition(b")")[2].split()[0] in (b"Z", b"X"):
                    return False
        except FileNotFoundError:
            return False
        threading.Event().wait(0.01)
    return True


def test_a_program_that_ignores_the_request_to_end_is_killed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "_TERM_S", 0.05)
    meter = CommandMeter(run("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + STEADY))
    assert meter.probe().domains
    process = meter._process
    assert process is not None
    meter.close()
    assert process.returncode == -9


def test_a_program_that_ends_is_a_refusal_from_then_on():
    lines = "import threading\nfor _ in range(6):\n print(7, flush=True); threading.Event().wait(0.02)"
    meter = CommandMeter(run(lines))
    assert meter.probe().domains
    meter.open()
    with meter._changed:
        assert meter._changed.wait_for(lambda: meter._ended, 5)
    (gone,) = meter.read()
    meter.close()
    assert isinstance(gone, MeterRefusal)
    assert gone.reason == "wall: the program ended its output after 6 lines"


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("/nowhere/read-watts", "cannot be started: No such file"),
        (
            run("print('hello'); print('-3')"),
            "ended its output after 2 lines, 1 line not a number, 1 line not above 0 W",
        ),
        (run("import threading; threading.Event().wait()"), "fewer than two lines of watts in 0.2 s"),
        (run("import os\nwhile True: os.write(1, b'9' * 65536)"), "fewer than two lines"),
    ],
)
def test_a_program_that_is_no_meter_is_refused(argument: str, reason: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "PROBE_S", 0.2 if "print" not in argument else 10.0)
    meter = CommandMeter(argument)
    (refusal,) = meter.probe().refusals
    assert reason in refusal.reason
    assert "one number of watts per line" in refusal.fix
    assert meter._process is None


@pytest.mark.parametrize("name", ["command", "command:", "command:  ", "command:a 'b"])
def test_no_program_is_a_usage_error(name: str):
    with pytest.raises(UsageError):
        build(name)


def test_no_shell_reads_the_arguments(tmp_path: Path):
    script = tmp_path / "echo.py"
    script.write_text(
        "import sys, threading\nfor _ in range(9):\n print(len(sys.argv[1]), flush=True); threading.Event().wait(.01)"
    )
    meter = CommandMeter(f"{shlex.quote(sys.executable)} {shlex.quote(str(script))} '$(reboot); `x` > y'")
    assert meter.probe().domains
    meter.close()
    assert meter._lines.notes() == []
