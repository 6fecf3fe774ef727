"""The AMD SMI reader on a made-up `amdsmi`: counters, power where there is none, and what is refused."""

from __future__ import annotations

import sys
from fractions import Fraction
from types import ModuleType
from typing import Any

import pytest
from fake_nvml import FakeClock

from perjoule.meters.amdsmi import AmdSmiMeter
from perjoule.meters.gauge import GaugePoller
from perjoule.protocols import Count
from perjoule.records import MeterRefusal

UJ = 15.300000190734863  # 15.3 as the 32-bit float that the library returns
ALL_ONES = (1 << 64) - 1


@pytest.fixture(autouse=True)
def _polled_by_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GaugePoller, "start", GaugePoller.poll)


class AmdSmiLibraryException(Exception):  # noqa: N818 - as AMD names it
    def __str__(self) -> str:
        return "Error code:\n\t2 | AMDSMI_STATUS_NOT_SUPPORTED - Feature not supported"


class FakeAmdSmi(ModuleType):
    """Boards are dicts: ``watts`` drawn, ``power`` and ``energy`` as the library returns them (None: an error)."""

    def __init__(self, clock: FakeClock, *boards: dict[str, Any]) -> None:
        super().__init__("amdsmi")
        self.boards, self._clock, self._start_ns = boards, clock, clock.now_ns()
        self.inits = self.stops = 0

    def amdsmi_init(self) -> None:
        self.inits += 1

    def amdsmi_shut_down(self) -> None:
        self.stops += 1

    def amdsmi_get_processor_handles(self) -> list[Any]:
        return list(self.boards)

    def amdsmi_get_power_info(self, board: Any) -> Any:
        return self._or_raise(board["power"])

    def amdsmi_get_energy_count(self, board: Any) -> Any:
        told = self._or_raise(board["energy"])
        key = "energy_accumulator" if "energy_accumulator" in told else "power"
        joules = board["watts"] * (self._clock.now_ns() - self._start_ns) / 1e9
        moved = 0 if board.get("frozen") else int(joules / 15.3e-6)
        return {**told, key: told[key] + moved if isinstance(told[key], int) else told[key]}

    @staticmethod
    def _or_raise(told: Any) -> Any:
        if told is None:
            raise AmdSmiLibraryException
        return told


def board(watts: float = 300.0, **changes: Any) -> dict[str, Any]:
    power = {"current_socket_power": int(watts), "average_socket_power": "N/A", "power_limit": 750}
    energy = {"energy_accumulator": 4_750_896_266, "counter_resolution": UJ, "timestamp": 1}
    return {"watts": watts, "power": power, "energy": energy, **changes}


def opened(patch: pytest.MonkeyPatch, *boards: dict[str, Any]) -> tuple[AmdSmiMeter, Any, FakeAmdSmi, FakeClock]:
    clock = FakeClock()
    library = FakeAmdSmi(clock, *boards)
    patch.setitem(sys.modules, "amdsmi", library)
    meter = AmdSmiMeter(clock)
    probe = meter.probe()
    meter.open()
    return meter, probe, library, clock


def pass_time(meter: AmdSmiMeter, clock: FakeClock, seconds: float) -> None:
    for _ in range(round(seconds / 0.1)):
        clock.sleep(0.1)
        if meter._poller is not None:
            meter._poller.poll()


def joules(fact: Any, before: Any, after: Any) -> float:
    return float((after.count - before.count) * Fraction(fact.unit_j))


@pytest.mark.parametrize("key", ["energy_accumulator", "power"])  # the latter up to ROCm 6.3
def test_a_counter_is_worth_its_resolution(monkeypatch: pytest.MonkeyPatch, key: str):
    energy = {key: 4_750_896_266, "counter_resolution": UJ, "timestamp": 1}
    meter, probe, _library, clock = opened(monkeypatch, board(energy=energy))
    (fact,) = probe.domains
    assert (fact.domain, fact.scope, fact.kind, fact.unit_j) == ("gpu-0", "gpu", "counter", "153/10000000")
    assert fact.only_simulated
    (before,) = meter.read()
    clock.sleep(20.0)
    (after,) = meter.read()
    assert joules(fact, before, after) == pytest.approx(6000, rel=1e-6)


@pytest.mark.parametrize(
    ("power", "window_s"),
    [
        ({"current_socket_power": 250, "average_socket_power": "N/A"}, 10.0),
        ({"current_socket_power": "N/A", "average_socket_power": 250}, 50.0),
        ({"current_socket_power": 0, "average_socket_power": 250}, 50.0),
        ({"current_socket_power": 0xFFFF, "average_socket_power": 0xFFFFFFFF, "socket_power": 250}, 10.0),
    ],
)
def test_a_board_that_does_not_count_is_metered_by_the_power_it_shows(
    monkeypatch: pytest.MonkeyPatch, power: dict[str, Any], window_s: float
):
    meter, probe, library, clock = opened(monkeypatch, board(power=power, energy=None), board())
    fact = probe.domains[0]
    assert (fact.kind, fact.grade, fact.min_window_s) == ("gauge", "amdsmi-power", window_s)
    assert "NOT_SUPPORTED" in fact.note
    before = {r.domain: r for r in meter.read() if isinstance(r, Count)}
    pass_time(meter, clock, 50.0)
    after = {r.domain: r for r in meter.read() if isinstance(r, Count)}
    assert joules(fact, before["gpu-0"], after["gpu-0"]) == pytest.approx(250 * 50)
    library.boards[0]["power"] = dict.fromkeys(power, 0)
    pass_time(meter, clock, 2.0)
    (count, refusal) = meter.read()
    assert isinstance(count, Count)
    assert isinstance(refusal, MeterRefusal)
    assert "gpu-0" in refusal.reason


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"energy": None, "power": None}, "NOT_SUPPORTED"),
        ({"power": {"current_socket_power": 0, "average_socket_power": 0}}, "0 W"),  # the second die of an MI250
        ({"energy": {"energy_accumulator": "N/A", "counter_resolution": UJ}, "power": {}}, "'N/A' is no count"),
        ({"energy": {"energy_accumulator": ALL_ONES, "counter_resolution": UJ}, "power": {}}, "is no count"),
        ({"energy": {"energy_accumulator": 0, "counter_resolution": UJ}, "power": {}, "watts": 0.0}, "0 is no count"),
        ({"energy": {"energy_accumulator": 5, "counter_resolution": float("nan")}, "power": {}}, "no resolution"),
        ({"energy": None, "power": {"socket_power": 300_000_000}}, "no power of a board"),  # uW, as on a host of guests
        ({"energy": None, "power": {"socket_power": -5}}, "it shows none"),
    ],
)
def test_what_a_board_cannot_say_is_refused_and_the_other_is_read(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], says: str
):
    _meter, probe, _library, _clock = opened(monkeypatch, board(**changes), board())
    assert [f.domain for f in probe.domains] == ["gpu-1"]
    assert [r.domain for r in probe.refusals] == ["gpu-0"]
    assert says in probe.refusals[0].reason
    assert "\n" not in probe.refusals[0].reason
    assert probe.refusals[0].fix


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"frozen": True}, "frozen"),
        ({"energy": {"energy_accumulator": 1, "counter_resolution": UJ}}, "went backwards"),
        ({"energy": {"energy_accumulator": 4_750_896_266, "counter_resolution": 1.0}}, "resolution changed"),
        ({"energy": None}, "NOT_SUPPORTED"),
    ],
)
def test_a_counter_that_freezes_or_goes_back_is_a_refusal_not_a_zero(
    monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any], says: str
):
    meter, _probe, library, clock = opened(monkeypatch, board(), board())
    meter.read()
    if "frozen" in fault:
        library.boards[0]["frozen"] = True
    meter.read()
    library.boards[0].update(fault)
    clock.sleep(11.0)
    (refusal, count) = meter.read()
    assert isinstance(count, Count)
    assert isinstance(refusal, MeterRefusal)
    assert refusal.domain == "gpu-0"
    assert says in refusal.reason


def test_without_the_library_there_is_one_refusal_and_nothing_on_stdout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delitem(sys.modules, "amdsmi", raising=False)
    (tmp_path / "amdsmi.py").write_text("print('Unable to find\\nlibamd_smi.so')\nraise KeyError('libamd_smi.so')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    meter = AmdSmiMeter()
    probe = meter.probe()
    meter.close()
    assert probe.refusals[0].reason == "AMD SMI: KeyError: 'libamd_smi.so' Unable to find libamd_smi.so"
    assert "perjoule[amd]" in probe.refusals[0].fix
    assert capsys.readouterr().out == ""


def test_the_library_is_shut_down_once(monkeypatch: pytest.MonkeyPatch):
    meter, _probe, library, _clock = opened(monkeypatch, board(), board(energy=None))
    meter.probe()
    meter.close()
    meter.close()
    assert (library.inits, library.stops) == (1, 1)
    assert meter.read() == []
