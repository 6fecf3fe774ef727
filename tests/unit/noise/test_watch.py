"""What the kernel shows at the edges of a window, and what is said where it shows nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import sysfs_of, use_tree, write_files
from traces import NS, SimulatedClock

from perjoule.clock import MonotonicClock
from perjoule.noise import Look, Watch, changes, read_pressure
from perjoule.noise.pressure import total_us
from perjoule.noise.watch import MAX_READ_S, WallClock

if TYPE_CHECKING:
    from pathlib import Path

PRESSURE = ("pressure_cpu_s", "pressure_memory_s", "pressure_io_s")
FIELDS = {"throttle_count", "swap_pages", "freq_hz", "clock_jump_s", *PRESSURE}


class JumpingClock(SimulatedClock):
    """A clock whose wall may be moved, alone or with the clock that counts suspended time."""

    offsets_ns = (1_700_000_000 * NS, 0)

    def wall_offsets_ns(self) -> tuple[int, ...]:
        return self.offsets_ns


class Machine:
    """Two cores of two threads each, in one package; everything can be read."""

    def __init__(self, sysfs: Path, proc: Path) -> None:
        self.sysfs, self.proc = sysfs, proc
        for thread in range(4):
            core = thread % 2
            write_files(self.cpu(thread) / "topology", core_cpus_list=f"{core},{core + 2}", package_cpus_list="0-3")
            self.throttle(thread, core=0, package=0)
            self.frequency(thread, 2_000_000)
        self.swap(0, 0)
        for name in ("cpu", "memory", "io"):
            self.wait(name, 0)

    def cpu(self, thread: int) -> Path:
        return self.sysfs / "devices" / "system" / "cpu" / f"cpu{thread}"

    def throttle(self, thread: int, *, core: int, package: int) -> None:
        write_files(self.cpu(thread) / "thermal_throttle", core_throttle_count=core, package_throttle_count=package)

    def frequency(self, thread: int, khz: int | str) -> None:
        write_files(self.cpu(thread) / "cpufreq", scaling_cur_freq=khz)

    def swap(self, came: int | str, went: int | str) -> None:
        (self.proc / "vmstat").write_text(f"nr_free_pages 5\npswpin {came}\npswpout {went}\npgfault 9\n")

    def wait(self, name: str, microseconds: int) -> None:
        (self.proc / "pressure").mkdir(exist_ok=True)
        line = f"some avg10=0.00 avg60=0.00 avg300=0.00 total={microseconds}\n"
        (self.proc / "pressure" / name).write_text(line + "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    powercap = use_tree(tmp_path, monkeypatch)
    return Machine(sysfs_of(powercap), tmp_path / "proc")


@pytest.mark.usefixtures("machine")
def test_a_quiet_machine_shows_zeros_and_nothing_is_missing():
    with Watch(JumpingClock()) as watch:
        found = changes(watch.look(), watch.look())
        assert watch.missing == {}
    assert set(found) == {*FIELDS, "cpu_tick_s"}
    assert found.pop("freq_hz") == 2e9
    assert found.pop("cpu_tick_s") == 1 / os.sysconf("SC_CLK_TCK")
    assert set(found.values()) == {0}


def test_what_happens_between_two_edges_is_in_the_window(machine: Machine):
    clock = JumpingClock()
    with Watch(clock) as watch:
        before = watch.look()
        for thread in range(4):  # all threads count an event of their package, those of a core one of the core
            machine.throttle(thread, core=3 if thread % 2 else 0, package=2)
            machine.frequency(thread, 1_000_000 if thread else 2_000_000)
        machine.swap(7, 5)
        machine.wait("cpu", 1_500_000)
        machine.wait("memory", 20)
        clock.offsets_ns = (clock.offsets_ns[0] - 3 * NS, 0)
        found = changes(before, watch.look())
    assert found["throttle_count"] == 5
    assert found["swap_pages"] == 12
    assert (found["pressure_cpu_s"], found["pressure_memory_s"], found["pressure_io_s"]) == (1.5, 2e-5, 0)
    assert found["freq_hz"] == pytest.approx((2e9 + 1.25e9) / 2)
    assert found["clock_jump_s"] == -3


def test_a_machine_that_slept_jumped_by_the_time_it_slept():
    clock = JumpingClock()
    before = Look({}, None, clock.offsets_ns)
    after = Look({}, None, tuple(ns + 60 * NS for ns in clock.offsets_ns))
    assert changes(before, after)["clock_jump_s"] == 60


def test_an_empty_tree_gives_reasons_and_no_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    use_tree(tmp_path, monkeypatch)
    with Watch(SimulatedClock()) as watch:
        found = changes(watch.look(), watch.look())
        assert set(watch.missing) == FIELDS
        assert all(watch.missing.values())
    assert not FIELDS & {name for name, value in found.items() if isinstance(value, int | float)}


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (lambda m: m.frequency(2, "<unsupported>"), "freq_hz"),
        (lambda m: [m.frequency(t, 0) for t in range(4)], "freq_hz"),
        (lambda m: m.swap("many", 0), "swap_pages"),
        (lambda m: (m.proc / "vmstat").write_text("nr_free_pages 5\n"), "swap_pages"),
        (lambda m: (m.proc / "pressure" / "io").write_text("nonsense"), "pressure_io_s"),
        (lambda m: (m.proc / "pressure" / "io").write_bytes(b"some \xff"), "pressure_io_s"),
        (lambda m: m.throttle(0, core=-1, package=0), "throttle_count"),
    ],
)
def test_one_that_fails_is_left_out_for_good_and_says_why(machine: Machine, spoil, field: str):
    with Watch(JumpingClock()) as watch:
        before = watch.look()
        spoil(machine)
        found = changes(before, watch.look())
        assert set(watch.missing) == {field}
        assert watch.missing[field]
    assert field not in found
    assert set(found) >= FIELDS - {field}


def test_a_counter_that_fell_was_reset_and_says_nothing(machine: Machine):
    machine.swap(9, 9)
    with Watch(JumpingClock()) as watch:
        before = watch.look()
        machine.swap(0, 1)
        assert "swap_pages" not in changes(before, watch.look())


@pytest.mark.usefixtures("machine")
def test_a_source_that_takes_long_is_not_read_at_an_edge():
    class SlowClock(JumpingClock):
        """Every reading of the time is late, as if a file had taken that long."""

        def now_ns(self) -> int:
            self.advance(2 * MAX_READ_S)
            return super().now_ns()

    with Watch(SlowClock()) as watch:
        assert set(watch.missing) == FIELDS - {"clock_jump_s"}
        assert all("too long" in why for why in watch.missing.values())
        assert watch.look().counts == {}


def test_many_processors_are_asked_for_their_frequency_in_part(machine: Machine):
    for thread in range(4, 100):
        machine.frequency(thread, 2_000_000 + 1000 * thread)
    with Watch(JumpingClock()) as watch:
        assert watch.look().freq_hz == pytest.approx(2.0485e9, rel=0.01)


@pytest.mark.usefixtures("machine")
def test_files_are_closed_at_the_end(monkeypatch: pytest.MonkeyPatch):
    opened: list[int] = []
    real_open = os.open

    def noted_open(path: Path, flags: int) -> int:
        opened.append(real_open(path, flags))
        return opened[-1]

    monkeypatch.setattr(os, "open", noted_open)
    with Watch(JumpingClock()):
        descriptors = opened[-1:]
        assert all(os.fstat(d) for d in descriptors)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptors[0])


def test_the_real_clock_knows_its_wall():
    assert isinstance(MonotonicClock(), WallClock)
    assert not isinstance(SimulatedClock(), WallClock)


@given(text=st.text(max_size=200))
def test_any_pressure_is_a_count_or_an_error(text: str):
    assert isinstance(count_or_reason(text), int | str)
    assert count_or_reason(f"some total={len(text)}") == len(text)


def count_or_reason(text: str) -> int | str:
    try:
        return total_us(text)
    except ValueError as error:
        return str(error)


def test_pressure_of_the_last_minute_is_read_with_the_total(machine: Machine):
    machine.wait("cpu", 2_000_000)
    found = read_pressure()
    assert not isinstance(found, str)
    assert (found.total_s, found.minute_share) == (2, 0)
