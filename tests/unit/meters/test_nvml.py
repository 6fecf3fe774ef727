"""The NVML reader on made-up boards whose power is known: what it counts, refuses and says of itself."""

from __future__ import annotations

import random
import sys
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from fake_nvml import (
    ADA,
    AMPERE,
    BLACKWELL,
    DRIVER_NOT_LOADED,
    FUNCTION_NOT_FOUND,
    GA100,
    HOPPER,
    LIBRARY_NOT_FOUND,
    LOST,
    NO_PERMISSION,
    NOT_SUPPORTED,
    PASCAL,
    RESET_REQUIRED,
    TURING,
    Board,
    FakeClock,
    FakeNvml,
    NVMLError,
    bursts,
    install,
    steady,
)

from perjoule.meters.compose import Composition
from perjoule.meters.gauge import GaugePoller
from perjoule.meters.nvml import POLL_S, NvmlMeter, gpu_facts
from perjoule.protocols import Count
from perjoule.records import MeterRefusal

if TYPE_CHECKING:
    from perjoule.records import MeterFact

Z90 = 1.645


@pytest.fixture(autouse=True)
def _polled_by_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no thread poll: a test does, on the clock of the made-up boards."""
    monkeypatch.setattr(GaugePoller, "start", GaugePoller.poll)


def opened(patch: pytest.MonkeyPatch, *boards: Board) -> tuple[NvmlMeter, dict[str, MeterFact], FakeNvml, FakeClock]:
    nvml, clock = install(patch, list(boards))
    meter = NvmlMeter(clock)
    probe = meter.probe()
    meter.open()
    return meter, {fact.domain: fact for fact in probe.domains}, nvml, clock


def pass_time(meter: NvmlMeter, clock: FakeClock, seconds: float, seed: int = 1) -> None:
    """Move the clock as the poller's thread would find it: polls at random intervals around its period."""
    intervals, end_ns = random.Random(seed), clock.at_ns + round(seconds * 1e9)
    while clock.at_ns < end_ns:
        clock.at_ns = min(end_ns, clock.at_ns + round(POLL_S * intervals.uniform(0.5, 1.5) * 1e9))
        if meter._poller is not None:
            meter._poller.poll()


def read(meter: NvmlMeter) -> tuple[dict[str, Count], str]:
    """Return counts by domain, and every reason together."""
    readings = meter.read()
    reasons = " | ".join(r.reason for r in readings if isinstance(r, MeterRefusal))
    return {r.domain: r for r in readings if isinstance(r, Count)}, reasons


def joules(fact: MeterFact, before: Count, after: Count) -> float:
    return float((after.count - before.count) * Fraction(fact.unit_j or "0"))


def test_the_counter_is_the_truth_within_one_tick(monkeypatch: pytest.MonkeyPatch):
    board = Board(bursts(3))
    meter, facts, _nvml, clock = opened(monkeypatch, board)
    pass_time(meter, clock, 2.03)
    before, _ = read(meter)
    pass_time(meter, clock, 20.0)
    after, reasons = read(meter)
    assert reasons == ""
    got, truth = joules(facts["gpu-0"], before["gpu-0"], after["gpu-0"]), board.true_j(2030, 22030)
    assert got == pytest.approx(truth, abs=400 * facts["gpu-0"].tick_s)
    assert after["gpu-0"].before_ns == after["gpu-0"].after_ns == clock.now_ns()
    assert before["gpu-0"].count > 7_000_000  # raw: as the board says, not from 0


@pytest.mark.parametrize("seen_ms", [100, 25])
def test_polled_power_lies_within_its_interval_however_little_the_sensor_sees(
    monkeypatch: pytest.MonkeyPatch, seen_ms: int
):
    """In at least 80 % of runs the 90 % interval of the sampling error alone holds the truth, with tolerance in all."""
    alone = 0
    for seed in range(30):
        board = Board(bursts(seed, 36.0), capability=HOPPER, seen_ms=seen_ms)
        meter, facts, _nvml, clock = opened(monkeypatch, board)
        pass_time(meter, clock, 2.0, seed)
        before = read(meter)[0]["gpu-0:power"]
        pass_time(meter, clock, 30.0, seed + 100)
        after = read(meter)[0]["gpu-0:power"]
        fact = facts["gpu-0:power"]
        error = abs(joules(fact, before, after) - board.true_j(2000, 32000))
        sampling = Z90 * (after.variance - before.variance) ** 0.5 * float(Fraction(fact.unit_j))
        alone += error <= sampling
        assert error <= sampling + fact.tolerance * board.true_j(2000, 32000)
        assert sampling < 0.08 * board.true_j(2000, 32000)  # and the interval says something
        assert after.polls > 500
    assert alone >= 24


def test_counter_and_power_of_one_board_are_told_apart_and_only_the_counter_is_summed(monkeypatch: pytest.MonkeyPatch):
    """A counter that disagrees with the power that is shown is visible: both integrals are in the readings."""
    meter, facts, _nvml, clock = opened(monkeypatch, Board(steady(300.0), bias=1.25))
    composition = Composition(list(facts.values()))
    assert [f.domain for f in composition.counted] == ["gpu-0"]
    assert composition.left_out == {"gpu-0:power": "inside gpu-0"}
    assert [(f.grade, f.kind) for f in facts.values()] == [("nvml", "counter"), ("nvml-power", "gauge")]
    before, _ = read(meter)
    pass_time(meter, clock, 10.0)
    after, _ = read(meter)
    counted, polled = (joules(facts[d], before[d], after[d]) for d in ("gpu-0", "gpu-0:power"))
    assert (counted, polled) == (pytest.approx(3750, rel=0.01), pytest.approx(3000, rel=0.01))


@pytest.mark.parametrize(
    ("capability", "window_s", "tolerance"),
    [
        (TURING, 10, 0.12),
        (AMPERE, 10, 0.08),
        (ADA, 10, 0.08),
        (GA100, 30, 0.08),
        (HOPPER, 30, 0.08),
        (BLACKWELL, 30, 0.08),
    ],
)
def test_window_and_tolerance_are_those_of_the_generation(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], window_s: float, tolerance: float
):
    _meter, facts, _nvml, _clock = opened(monkeypatch, Board(steady(100.0), capability=capability))
    assert list(facts) == ["gpu-0", "gpu-0:power"]
    for fact in facts.values():
        assert (fact.min_window_s, fact.tolerance, fact.scope) == (window_s, tolerance, "gpu")
        assert fact.only_simulated
        assert not fact.simulated


def test_a_board_without_a_counter_is_metered_by_its_power(monkeypatch: pytest.MonkeyPatch):
    old = {"energy": NOT_SUPPORTED, "fields": FUNCTION_NOT_FOUND}
    board = Board(bursts(5), capability=PASCAL, fails=old)
    meter, facts, _nvml, clock = opened(monkeypatch, board)
    fact = facts["gpu-0"]
    assert (fact.kind, fact.grade, fact.parent, fact.min_window_s) == ("gauge", "nvml-power", None, 10.0)
    assert "energy counter: Not Supported" in (fact.note or "")
    before, _ = read(meter)
    pass_time(meter, clock, 30.0)
    after, _ = read(meter)
    truth = board.true_j(0, 30000)
    assert joules(fact, before["gpu-0"], after["gpu-0"]) == pytest.approx(truth, rel=fact.tolerance)


def test_power_that_is_a_mean_needs_a_longer_window_and_checks_no_counter(monkeypatch: pytest.MonkeyPatch):
    mean = {"instant": NOT_SUPPORTED}
    _meter, facts, _nvml, _clock = opened(
        monkeypatch,
        Board(steady(100.0), fails={**mean, "energy": NO_PERMISSION}),
        Board(steady(100.0), fails=mean),
        Board(steady(100.0), fails={**mean, "average": NOT_SUPPORTED, "energy": NOT_SUPPORTED}),
        Board(steady(100.0), capability=GA100, fails={**mean, "energy": NOT_SUPPORTED}),
    )
    assert {d: (f.kind, f.tick_s, f.min_window_s) for d, f in facts.items()} == {
        "gpu-0": ("gauge", 1.0, 50.0),
        "gpu-1": ("counter", 0.1, 10.0),
        "gpu-2": ("gauge", 1.0, 50.0),
        "gpu-3": ("gauge", 0.1, 30.0),
    }


def test_a_failing_field_is_no_zero_and_does_not_hurt_the_other_board(monkeypatch: pytest.MonkeyPatch):
    sick, well = Board(steady(200.0)), Board(steady(100.0))
    meter, facts, _nvml, clock = opened(monkeypatch, sick, well)
    before, _ = read(meter)
    sick.fails = {"instant": NO_PERMISSION, "energy": NO_PERMISSION}
    pass_time(meter, clock, 10.0)
    during, reasons = read(meter)
    assert set(during) == {"gpu-1", "gpu-1:power"}
    assert "gpu-0: energy counter" in reasons
    assert "gpu-0:power" in reasons
    for domain in during:
        assert joules(facts[domain], before[domain], during[domain]) == pytest.approx(1000, rel=0.02)
    sick.fails = {}
    after, _ = read(meter)
    assert set(after) == {"gpu-0", "gpu-1", "gpu-1:power"}  # the counter went on counting; what polls missed is lost


def test_a_field_that_fails_at_probe_leaves_the_other_board_and_the_counter(monkeypatch: pytest.MonkeyPatch):
    _meter, facts, _nvml, _clock = opened(
        monkeypatch,
        Board(steady(200.0), fails=dict.fromkeys(("instant", "average", "usage"), NO_PERMISSION)),
        Board(steady(0.0)),
        Board(steady(100.0)),
    )
    assert list(facts) == ["gpu-0", "gpu-1", "gpu-2", "gpu-2:power"]  # 0 W is no power of a board, either


def test_a_partitioned_board_is_refused_with_the_command_and_the_whole_one_is_read(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, [Board(steady(100.0), mig=1), Board(steady(100.0), mig=0)])
    probe = NvmlMeter().probe()
    assert [f.domain for f in probe.domains] == ["gpu-1", "gpu-1:power"]
    assert [(r.domain, r.fix) for r in probe.refusals] == [("gpu-0", "sudo nvidia-smi -i 0 -mig 0")]
    assert "cannot be attributed" in probe.refusals[0].reason


def test_a_counter_that_goes_back_is_refused_from_then_on(monkeypatch: pytest.MonkeyPatch):
    meter, _facts, _nvml, clock = opened(monkeypatch, Board(steady(300.0), reset_at_ms=5000), Board(steady(300.0)))
    pass_time(meter, clock, 4.0)
    assert set(read(meter)[0]) == {"gpu-0", "gpu-0:power", "gpu-1", "gpu-1:power"}
    for seconds in (2.0, 50.0):  # it has risen above its old count by the second
        pass_time(meter, clock, seconds)
        counts, reasons = read(meter)
        assert set(counts) == {"gpu-1", "gpu-1:power"}
        assert "went back from" in reasons


@pytest.mark.parametrize(("code", "says"), [(LOST, "lost"), (RESET_REQUIRED, "restart")])
def test_a_board_that_is_lost_is_refused_at_once_and_for_good(monkeypatch: pytest.MonkeyPatch, code: int, says: str):
    gone = Board(steady(300.0))
    meter, _facts, _nvml, clock = opened(monkeypatch, gone, Board(steady(300.0)))
    pass_time(meter, clock, 1.0)
    gone.fails = {"all": code, "fields": code}
    for _ in range(2):
        counts, reasons = read(meter)
        assert set(counts) == {"gpu-1", "gpu-1:power"}
        assert reasons.count(says) == 2
        gone.fails = {}


@pytest.mark.parametrize(
    ("code", "fix"), [(LIBRARY_NOT_FOUND, "install the NVIDIA driver"), (DRIVER_NOT_LOADED, "sudo modprobe nvidia")]
)
def test_no_driver_is_one_refusal_with_the_fix(monkeypatch: pytest.MonkeyPatch, code: int, fix: str):
    nvml, _clock = install(monkeypatch, [], init_error=code)
    meter = NvmlMeter()
    probe = meter.probe()
    meter.close()
    assert not probe.domains
    assert [r.meter for r in probe.refusals] == ["nvml"]
    assert fix in probe.refusals[0].fix
    assert nvml.shutdowns == 0  # what was not opened is not shut
    assert gpu_facts() == ()


def test_a_library_that_breaks_at_import_is_reported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "NVML: ModuleNotFoundError" in NvmlMeter().probe().refusals[0].reason


def test_the_library_is_opened_and_shut_once_also_after_errors(monkeypatch: pytest.MonkeyPatch):
    meter, _facts, nvml, _clock = opened(monkeypatch, Board(steady(1.0), fails={"handle": LOST}), Board(steady(1.0)))
    meter.probe()
    assert nvml.inits == 1
    meter.close()
    meter.close()
    assert (nvml.inits, nvml.shutdowns) == (1, 1)
    assert meter.read() == []
    monkeypatch.setattr(nvml, "nvmlDeviceGetCount", lambda: nvml._answer(Board(steady(1.0), fails={"x": 9}), "x", int))
    assert meter.probe().refusals[0].fix == "load the driver, if there is a board: sudo modprobe nvidia"
    monkeypatch.setattr(nvml, "nvmlShutdown", lambda: nvml._answer(Board(steady(1.0), fails={"x": 9}), "x", int))
    with pytest.raises(NVMLError):
        meter.close()
    meter.close()  # nothing is left to shut


def test_host_facts_name_the_boards_and_nothing_private(monkeypatch: pytest.MonkeyPatch):
    boards = [Board(steady(1.0)), Board(steady(1.0), fails={"memory": LOST}), Board(steady(1.0), name="NVIDIA A")]
    nvml, _clock = install(monkeypatch, boards)  # it has no function for serial, UUID or address
    facts = gpu_facts()
    assert [(f.name, f.memory_bytes, f.driver) for f in facts] == [
        ("NVIDIA Made-Up 9000", 24 << 30, "580.65.06"),
        ("NVIDIA A", 24 << 30, "580.65.06"),
    ]
    assert (nvml.inits, nvml.shutdowns) == (1, 1)
