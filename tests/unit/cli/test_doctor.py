"""perjoule doctor: whether joules can be measured, what to type if not, and every number in its JSON."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from rich.console import Console
from simulated import add_domain, use_tree
from traces import NS, SimulatedClock

from perjoule import examine as examining
from perjoule import noise, own_cost, registry, roofline
from perjoule.cli import main
from perjoule.examine import IDLE_PATIENCE_S, QUIET_WAITING_SHARE, Examination, examine
from perjoule.meters import alive, sysfs
from perjoule.meters.explain import explain
from perjoule.meters.model import host_model
from perjoule.noise_floor import NoiseFloor, noise_floor
from perjoule.protocols import Count, Probe
from perjoule.records import MeterFact, MeterRefusal, Peak, Peaks
from perjoule.render.doctor import report

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WATTS = {"package-0": 80.0, "package-0:core": 30.0}
READ_S = 50e-6
PEAK = Peak(
    unit="ops/s", best=880e9, median=860e9, spread_share=0.021, repeats=34, way="MatMulInteger 1024", slower={}
)  # fmt: skip
PEAKS = Peaks(
    measured_utc="2026-01-02T03:04:05Z", threads=2, runtime="onnxruntime 1.32.0", kernels=1, cache_bytes=2**25,
    bandwidth=Peak(
        unit="bytes/s", best=38.7e9, median=35e9, spread_share=0.04, repeats=63, way="ReduceMax", slower={}
    ),
    int8=PEAK, fp32=None, fp32_missing="no BLAS", bf16=None, bf16_missing="no bf16 kernel",
)  # fmt: skip


class MovingClock(SimulatedClock):
    """While this process sleeps, others use 0.1 s of CPU a second, 0.02 s are stolen, and tasks wait a quarter."""

    proc: Path | None = None
    minute_percent = 7.5

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if self.proc is not None:
            busy, stolen, waited = self.ns / NS * 1.1, self.ns / NS * 0.02, self.ns // 4000
            self.write(busy, stolen, waited)

    def write(self, busy_s: float, stolen_s: float, waited_us: int) -> None:
        assert self.proc is not None
        ticks = os.sysconf("SC_CLK_TCK")
        (self.proc / "stat").write_text(f"cpu {round(busy_s * ticks)} 0 0 4 0 0 0 {round(stolen_s * ticks)} 0 0\n")
        (self.proc / "pressure").mkdir(exist_ok=True)
        line = f"some avg10=1.00 avg60={self.minute_percent:.2f} avg300=0.00 total={waited_us}\n"
        (self.proc / "pressure" / "cpu").write_text(line + line.replace("some", "full"))

    def cpu_ns(self) -> int:
        return self.ns // 1000  # this process is busy a thousandth of the time


CLOCK = MovingClock()


class Sensor:
    """A package of 80 W with its cores; reading takes 50 us; and a memory that may not be read."""

    min_window_s = 1.0

    def probe(self) -> Probe:
        domains = tuple(
            MeterFact(
                domain=domain, scope=domain.rpartition(":")[2].partition("-")[0], kind="counter", label="measured",
                grade="rapl-package", tick_s=0.001, source="test", unit_j="1/1000000", min_window_s=self.min_window_s,
            )
            for domain in WATTS
        )  # fmt: skip
        lost = MeterRefusal(meter="made-up", reason="package-0:dram: no", fix="sudo open dram", domain="package-0:dram")
        return Probe(domains=domains, refusals=(lost,))

    def open(self) -> None:
        return

    def read(self) -> Sequence[Count | MeterRefusal]:
        before_ns = CLOCK.ns
        CLOCK.advance(READ_S)
        ticks_ms = CLOCK.ns // 1_000_000
        return [
            Count(domain=d, count=int(1000 * w * ticks_ms), before_ns=before_ns, after_ns=CLOCK.ns)
            for d, w in WATTS.items()
        ]

    def close(self) -> None:
        return


class SlowSensor(Sensor):
    min_window_s = 2 * IDLE_PATIENCE_S


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MovingClock:
    use_tree(tmp_path, monkeypatch)
    monkeypatch.setattr(alive, "_LOOPS", 1)
    for name, kind in (("made-up", "Sensor"), ("slow", "SlowSensor")):
        monkeypatch.setitem(registry.BUILT_IN["perjoule.meters"], name, f"{__name__}:{kind}")
    load = registry.load
    classes = {"made-up": Sensor, "slow": SlowSensor}
    monkeypatch.setattr(registry, "load", lambda group, name: classes.get(name) or load(group, name))
    monkeypatch.setattr(roofline, "measure", lambda *_args, **_options: PEAKS)
    floor = noise_floor([0.01, 0.0101] * 5, threads=2, rounds=30)
    monkeypatch.setattr(examining, "measure_noise_floor", lambda *_args: floor)
    CLOCK.proc = tmp_path / "proc"
    CLOCK.write(0.0, 0.0, 0)
    CLOCK.sleep(0.0)
    return CLOCK


def shown(found: Examination, *, width: int = 80, explained: bool = False) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as text:
        console.print(report(found, width=width, explained=explained))
    return text.get()


def doctor(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[str, dict[str, Any]]:
    assert main(["doctor", "--quick", *options]) == 0
    text = capsys.readouterr().out
    assert main(["doctor", "--quick", "--json", "-", *options]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return text, found


def test_ticks_idle_power_noise_and_own_cost_are_what_was_made_up(clock: MovingClock):
    found = examine(["made-up"], clock)
    assert found.answer.measured == "yes"
    assert (found.answer.label, found.answer.scope) == ("measured", "package")
    package, core = found.sensors
    assert package.fact.tick_s == pytest.approx(0.001, rel=0.1)
    assert (package.resolution_j, package.not_in_total) == (1e-6, None)
    assert core.not_in_total == "inside package-0"
    assert found.idle_power is not None
    assert set(found.idle_power) == {"package-0"}
    assert found.idle_power["package-0"].value == pytest.approx(WATTS["package-0"], rel=0.01)
    assert found.noise is not None
    assert found.host.cpu.threads == os.cpu_count()
    cores = os.cpu_count() or 1
    assert found.noise.foreign_cpu_share == pytest.approx(1.099 / cores, abs=0.02)
    assert found.noise.steal_share == pytest.approx(0.02 / cores, abs=0.01)
    assert found.noise.waiting_share == pytest.approx(0.25, abs=0.01)
    assert found.noise.waiting_minute_share == pytest.approx(0.075)
    assert found.harness is not None
    assert found.harness.harness_share == pytest.approx(0.001, rel=0.05)
    assert found.harness.floor_share == pytest.approx(0.001, rel=0.05)
    assert found.reading is not None
    assert found.reading.read_s == pytest.approx(READ_S)
    assert found.reading.null_read_s < READ_S
    text = shown(found)
    for part in (
        "YES",
        "80.0 W",
        "1 ms",
        "1 \u00b5J",
        "inside package-0",
        "25 %",
        "7.5 %",
        "sudo open dram",
        "50.0 \u00b5s",
    ):
        assert part in text


def test_peaks_and_noise_floor_are_shown_with_their_spread(clock: MovingClock):
    found = examine(["made-up"], clock)
    assert found.peaks == PEAKS
    assert isinstance(found.noise_floor, NoiseFloor)
    text = " ".join(shown(found).split())
    assert "38.7 GB/s best of 63, spread 4.0 %; ReduceMax" in text
    assert "880 Gop/s best of 34, spread 2.1 %" in text
    assert "fp32 none no BLAS" in text
    assert "1.2 %: a difference below it cannot be told apart in a quick run (5 processes each)" in text


def test_what_could_not_be_measured_says_why(clock: MovingClock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(roofline, "measure", lambda *_args, **_options: "it crashed")
    monkeypatch.setattr(examining, "measure_noise_floor", lambda *_args: "it hung")
    found = examine([], clock)
    assert (found.peaks, found.peaks_missing) == (None, "it crashed")
    assert (found.noise_floor, found.noise_floor_missing) == (None, "it hung")
    assert "not measured: it crashed" in shown(found)
    assert "not measured: it hung" in shown(found)


def test_disturbed_peaks_are_not_to_be_used(clock: MovingClock, monkeypatch: pytest.MonkeyPatch):
    noisy = msgspec.structs.replace(PEAKS, disturbed="other processes used 7.0% of all cores (limit 2%)")
    monkeypatch.setattr(roofline, "measure", lambda *_args, **_options: noisy)
    assert "too low to be used: other processes used 7.0%" in shown(examine([], clock))


@pytest.mark.parametrize(("percent", "verdict"), [(0.0, "quiet"), (5.0, "quiet"), (5.01, "busy"), (90.0, "busy")])
def test_the_last_minute_has_a_verdict(clock: MovingClock, percent: float, verdict: str):
    clock.minute_percent = percent
    try:
        found = examine([], clock)
    finally:
        clock.minute_percent = MovingClock.minute_percent
    assert found.waiting_verdict == verdict
    assert f"{verdict} (quiet is up to {100 * QUIET_WAITING_SHARE:g} %)" in " ".join(shown(found).split())


@pytest.mark.parametrize("guest", [True, False])
def test_a_guest_is_not_told_to_load_a_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], guest: bool
):
    use_tree(tmp_path, monkeypatch)
    info = tmp_path / "proc" / "cpuinfo"
    if guest:
        info.write_text(info.read_text().replace("avx2", "avx2 hypervisor"))
    _, found = doctor(capsys)
    [fix] = [r["fix"] for r in found["refused"] if r["meter"] == "rapl-powercap"]
    assert ("modprobe" in fix) is not guest
    assert ("virtual machine" in fix) is guest


def test_a_sensor_too_slow_for_idle_power_now_says_how_long_a_run_takes(clock: MovingClock):
    found = examine(["slow"], clock)
    assert found.idle_power is None
    assert f"{2 * IDLE_PATIENCE_S:g} s" in str(found.idle_power_missing)
    assert f"{2 * IDLE_PATIENCE_S:g} s" in shown(found)


def test_two_sockets_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    powercap = use_tree(tmp_path, monkeypatch)
    for package in range(2):
        add_domain(powercap, f"intel-rapl:{package}", f"package-{package}")
        add_domain(powercap, f"intel-rapl:{package}:0", "dram")
    add_domain(powercap, "intel-rapl:2", "psys")
    text, found = doctor(capsys, "--meter", "rapl-powercap")
    assert "Can this machine measure joules?  YES\n" in text
    assert "perjoule run --meter rapl-powercap  measured joules\n" in text
    assert "SIMULATED" in text
    assert found["answer"]["to_allow"] == []
    assert found["answer"]["scope"] == "package+dram"
    assert [s["fact"]["domain"] for s in found["sensors"] if s["not_in_total"]] == ["psys"]
    assert found["host"]["simulated"]
    left_out = ("noise", "waiting_verdict", "harness", "peaks", "noise_floor")
    assert {found[f"{name}_missing"] for name in left_out} == {"left out by --quick"}


def test_counters_that_may_not_be_read_give_the_command_that_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    powercap = use_tree(tmp_path, monkeypatch)
    add_domain(powercap, "intel-rapl:0", "package-0")
    add_domain(powercap, "intel-rapl:0:0", "dram")
    real_open = os.open

    def refused(path: Any, *args: Any, **more: Any) -> int:
        if str(path).endswith("energy_uj"):
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, *args, **more)

    monkeypatch.setattr(sysfs.os, "open", refused)
    text, found = doctor(capsys)
    last = text[text.index("Can this machine measure joules?") :]
    assert "joules?  NO\n  It has sensors, and none of them can be read." in last
    assert "To measure\n  sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj" in last
    assert "package-0, package-0:dram: Permission denied" in text, "one line for all domains"
    assert found["answer"]["measured"] == "no"
    assert [r["domain"] for r in found["refused"] if r["meter"] == "rapl-powercap"] == ["package-0", "package-0:dram"]


def test_a_part_is_not_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    powercap = use_tree(tmp_path, monkeypatch, family=25, model=17, vendor="AuthenticAMD")
    add_domain(powercap, "intel-rapl:0", "package-0")
    add_domain(powercap, "intel-rapl:1", "package-1", energy_uj="no number")
    text, found = doctor(capsys)
    assert "joules?  IN PART\n  Package-1 cannot be read" in text
    assert "To measure\n  sudo dmesg" in text
    assert found["answer"]["label"] == "utilisation-modelled"


def test_without_a_sensor_the_model_is_one_line_and_explained_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    use_tree(tmp_path, monkeypatch, vendor="AuthenticAMD", family=25, model=17)
    text, found = doctor(capsys, "--explain")
    power, threads = found["model_power"], found["threads_default"]
    assert power["low"] < power["value"] < power["high"]
    assert (power["label"], power["unit"]) == ("utilisation-modelled", "W")
    assert f"{threads} busy threads are {power['value']:.2g} W" in text
    assert "perjoule run --meter shelly:http://HOST" in text
    examination = examine(None, SimulatedClock(), quick=True)
    lines = explain(examination.host, host_model(examination.host, 0, None), threads)
    assert found["model_explained"] == lines
    assert " ".join("\n".join(lines).split()) in " ".join(text.split())


def test_a_cpu_that_nobody_knows_asks_for_its_tdp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    use_tree(tmp_path, monkeypatch, vendor="Nobody", family=1, model=1)
    text, found = doctor(capsys)
    assert "time and memory, but no joules: no sensor, and no power figures" in " ".join(text.split())
    assert "perjoule run --tdp WATTS" in text
    assert found["model_power"] is None
    assert "--tdp" in found["model_power_missing"]


def test_text_of_the_machine_is_shown_not_obeyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    use_tree(tmp_path, monkeypatch)
    info = tmp_path / "proc" / "cpuinfo"
    info.write_text(info.read_text().replace("made-up CPU", "evil \x1b[31m [bold]\u202ename[/bold]"))
    text, _ = doctor(capsys)
    assert "evil \\u001b[31m [bold]\\u202ename[/bold]" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(clock: MovingClock, width: int):
    for found in (examine(["made-up"], clock), examine(None, clock, quick=True)):
        lines = shown(found, width=width, explained=True).splitlines()
        assert max(len(line.rstrip()) for line in lines) <= width
        assert "Can this machine measure joules?" in "".join(lines[-12:]), "the answer is on the last screen"


def test_a_backend_that_cannot_be_asked_is_shown(clock: MovingClock, monkeypatch: pytest.MonkeyPatch):
    def broken(_name: str) -> Any:
        raise RuntimeError("no libgpu")

    monkeypatch.setattr(registry, "backend", broken)
    found = examine([], clock, quick=True)
    assert {b.available for b in found.backends} == {False}
    assert "no libgpu" in found.backends[0].summary


@pytest.mark.parametrize(
    "text",
    ["", "some", "full avg60=1.00 total=1", "some avg60=nan total=1", "some avg60=1.00 total=-1",
     "some avg60=101 total=1", "some avg60=1.00 total=1e9", "some avg60 total", "x" * 5000],
)  # fmt: skip
def test_odd_pressure_is_no_pressure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str):
    use_tree(tmp_path, monkeypatch)
    (tmp_path / "proc" / "pressure").mkdir()
    (tmp_path / "proc" / "pressure" / "cpu").write_text(text)
    assert "not what the kernel writes" in str(noise.read_pressure())


def test_a_procfs_without_cpu_times_is_a_reason(clock: MovingClock):
    assert clock.proc is not None
    (clock.proc / "stat").write_text("nothing\n")
    heard = noise.listen(SimulatedClock())
    assert isinstance(heard, str)
    assert "CPU times" in heard


def test_mistakes_are_named_before_anything_is_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "--meter", "rapl"]) == 2
    assert "rapl-powercap" in capsys.readouterr().err
    (tmp_path / "there.json").write_text("{}")
    assert main(["doctor", "--quick", "--json", str(tmp_path / "there.json")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_json_file_is_written_beside_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    use_tree(tmp_path, monkeypatch)
    path = tmp_path / "doctor.json"
    assert main(["doctor", "--quick", "--json", str(path)]) == 0
    assert "Can this machine measure joules?" in capsys.readouterr().out
    found = json.loads(path.read_text())
    assert (found["schema"], found["schema_version"]) == ("perjoule.doctor", 1)


def test_reading_stops_at_its_budget():
    clock = SimulatedClock()
    seconds, count = own_cost.read_time(lambda: clock.advance(0.1), clock)
    assert (seconds, count) == (pytest.approx(0.1), 3)
