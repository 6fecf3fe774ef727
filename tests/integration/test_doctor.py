"""perjoule doctor on counters that move, on a plug that answers, and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fake_plugs as fake
import pytest
from simulated import WRAP_UJ, write_files

from perjoule.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

WATTS = {"package-0": 47.0, "psys": 120.0}
PERIOD_S = 0.01  # of counter_driver.py
DRIVER = Path(__file__).parents[1] / "counter_driver.py"


@pytest.fixture
def driven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    drivers = []
    for number, (name, watts) in enumerate(WATTS.items()):
        folder = tmp_path / "sys" / "class" / "powercap" / f"intel-rapl:{number}"
        write_files(folder, name=name, max_energy_range_uj=WRAP_UJ, energy_uj="0" * 18)
        drivers.append(subprocess.Popen([sys.executable, str(DRIVER), str(folder / "energy_uj"), str(watts)]))
    monkeypatch.setenv("PERJOULE_SYSFS", str(tmp_path / "sys"))
    yield
    for driver in drivers:
        driver.kill()
        driver.wait()


def test_moving_counters_are_found_with_their_tick_and_their_idle_power(
    driven: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "found.json"
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PERJOULE_LOCK", str(tmp_path / "lock"))  # not to wait for a measurement of somebody else
    assert main(["doctor", "--meter", "rapl-powercap", "--json", str(path)]) == 0
    assert driven is None
    text = capsys.readouterr().out
    found: dict[str, Any] = json.loads(path.read_text())
    assert found["answer"]["measured"] == "yes"
    for sensor in found["sensors"]:
        assert sensor["fact"]["tick_s"] == pytest.approx(PERIOD_S, rel=0.3)
        assert sensor["resolution_j"] == 1e-6
    [(domain, idle)] = found["idle_power"].items()
    assert (domain, idle["label"]) == ("package-0", "measured")
    assert idle["value"] == pytest.approx(WATTS["package-0"], rel=0.03)
    assert idle["low"] < WATTS["package-0"] < idle["high"]
    assert "joules?  YES" in text
    assert 0 <= found["noise"]["foreign_cpu_share"] <= 1
    assert 0 < found["harness"]["token_cpu_s"] < 0.01
    assert all(0 < floor_s < 0.01 for floor_s in found["harness"]["floor_cpu_s"])
    assert 0 < found["reading"]["null_read_s"] < 0.01
    assert 0 < found["reading"]["read_s"] < 0.02
    assert found["peaks"]["threads"] == found["threads_default"]
    assert found["peaks"]["int8"]["best"] >= 0.5 * found["peaks"]["fp32"]["best"]
    assert not (tmp_path / "cache").exists(), "peaks of a made-up machine are not kept"
    floor = found["noise_floor"]
    assert len(floor["round_s"]) == 10
    assert floor["half_width_share"] >= 0
    assert "GB/s" in text
    assert "cannot be told apart in a quick run" in text


def test_a_plug_can_be_checked_before_a_run(capsys: pytest.CaptureFixture[str]):
    with fake.FakeDevice(lambda _path, _headers: fake.shelly(61.5, 1000.0)) as plug:
        name = f"shelly:{plug.address}"
        assert main(["doctor", "--quick", "--json", "-", "--meter", name]) == 0
        found = json.loads(capsys.readouterr().out)
    assert (found["answer"]["measured"], found["answer"]["scope"]) == ("yes", "wall")
    assert found["meters_named"] == [name]
    [wall] = found["sensors"]
    assert wall["resolution_w"] == pytest.approx(0.001)
    assert wall["resolution_j"] is None
    with fake.FakeDevice(lambda _path, _headers: fake.status(401)) as plug:
        assert main(["doctor", "--quick", "--meter", f"shelly:{plug.address}"]) == 0
    text = capsys.readouterr().out
    assert "joules?  NO" in text
    assert "401" in text


def test_a_log_can_be_checked_before_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = tmp_path / "wall.csv"
    log.write_text("time,power_w\n" + "".join(f"2026-01-31T12:00:{n:02}Z,143.2\n" for n in range(30)))
    assert main(["doctor", "--quick", "--meter", f"csv:{log}", "--json", "-"]) == 0
    [wall] = json.loads(capsys.readouterr().out)["sensors"]
    assert (wall["fact"]["domain"], wall["fact"]["tick_s"]) == ("wall", 1.0)
    assert (wall["resolution_w"], wall["resolution_w_missing"]) == (None, "as fine as its log")


@pytest.mark.parametrize("plain", [True, False])
def test_a_terminal_gets_colour_unless_it_is_not_wanted(plain: bool):
    ours, theirs = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color"} | ({"NO_COLOR": "1"} if plain else {})
    command = [sys.executable, "-m", "perjoule", "doctor", "--quick"]
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=environment) as process:
        os.close(theirs)
        shown = _all(ours)
        assert process.stderr is not None
        assert process.stderr.read() == b"", "progress is for terminals"
    assert process.returncode == 0
    assert b"Can this machine measure joules?" in shown
    assert (b"\x1b" in shown) is not plain


def _all(descriptor: int) -> bytes:
    """Return everything until the other side of the terminal is closed, which Linux reports as EIO."""
    found = b""
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        try:
            while chunk := file.read(4096):
                found += chunk
        except OSError:
            return found
    return found
