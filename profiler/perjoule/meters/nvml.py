"""NVIDIA boards through NVML: the energy counter of Volta and newer, and the power of every board.

A board that counts gives two domains: ``gpu-0``, its counter in millijoules, which is what a total is made of, and
``gpu-0:power`` (grade ``nvml-power``), its power as it is polled, inside the first and so never added to it. They are
two looks at one sensor: where they differ by more than 10 % over a window, the energy layer flags the board. A board
without a counter gives ``gpu-0`` from its power alone.

Work on a board is asynchronous: the device must be synchronised before both reads of a window, or the window ends
before its work does. That is for an engine on the board to do before a token is stamped; nothing here can.

Sources: the NVML API reference (nvmlDeviceGetTotalEnergyConsumption, nvmlDeviceGetPowerUsage, the fields
NVML_FI_DEV_POWER_*); Yang, Adamek, Armour, "Part-time Power Measurements", arXiv 2312.02741: readings are 11 % low to
7 % high by board, and on A100 and H100 the sensor looks for 25 ms of every 100 ms. A load that repeats in step with
that is misread by both domains alike, and no interval here covers it; requests of random length do not repeat so.
"""

from __future__ import annotations

import contextlib
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from perjoule.clock import MonotonicClock
from perjoule.meters.gauge import GaugePoller, integral_unit_j
from perjoule.protocols import Count, Probe
from perjoule.records import GpuFacts, MeterFact, MeterRefusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from perjoule.protocols import Clock

_T = TypeVar("_T")

TICK_S = 0.1  # update period of counter and power (arXiv 2312.02741, table of update periods: 20 to 100 ms)
POLL_S = 0.05
AVERAGE_S = 1.0  # what averaged power is averaged over (NVML API reference)
COUNTER_WINDOW_S = 10.0
PART_TIME_WINDOW_S = 30.0
AVERAGED_WINDOW_S = 50.0
TOLERANCE = 0.08
TURING_TOLERANCE = 0.12
MAX_BOARD_MW = 5_000_000  # above any board sold
# Polls of a part-time sensor see each value twice, and perjoule.meters.gauge takes polls for independent: of 120
# made-up loads (bursts of tests/fake_nvml.py) 90 % intervals held the truth in 79 % without this, and in all with it.
_HELD_VARIANCE = (TICK_S / POLL_S) ** 2

# nvml.h
_POWER_AVERAGE, _POWER_INSTANT, _SCOPE_GPU = 185, 186, 0  # the memory's scope is a part of the board's
_NOT_SUPPORTED, _FUNCTION_NOT_FOUND, _LOST, _RESET_REQUIRED = 3, 13, 15, 16
_NOT_AVAILABLE = (1 << 64) - 1
_VALUE_FIELDS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by nvmlValueType_t
# Compute capabilities. They tell GA100 (A100, A800, A30) from other Amperes (8.6, 8.7); the architecture does not.
_TURING, _GA100, _HOPPER, _UNKNOWN = (7, 5), (8, 0), (9, 0), (99, 0)

_DEFAULT_FIX = "check that nvidia-smi shows the board"
_FIXES = {
    _NOT_SUPPORTED: "use a board of the Volta generation or newer, or a meter at the wall (--meter shelly:ADDRESS)",
    4: "let this user open /dev/nvidia*, or start the container with --gpus all",
    9: "load the driver, if there is a board: sudo modprobe nvidia",
    12: "install the NVIDIA driver, if there is a board; nvidia-smi must run",
    _LOST: "reboot; then look for Xid in the kernel's log: sudo dmesg | grep -i xid",
    _RESET_REQUIRED: "sudo nvidia-smi --gpu-reset, or reboot",
    18: "reboot: the driver was updated while it was loaded",
}


class NvmlMeter:
    """Reads energy counter and power of every whole board; a part of a board (MIG) cannot be attributed."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock: Clock = MonotonicClock() if clock is None else clock
        self._nvml: Any = None
        self._counting: list[_Board] = []
        self._powered: dict[str, _Board] = {}
        self._poller: GaugePoller | None = None

    def probe(self) -> Probe:
        nvml = opened() if self._nvml is None else self._nvml
        if isinstance(nvml, MeterRefusal):
            return Probe(refusals=(nvml,))
        self._nvml, self._counting, self._powered = nvml, [], {}
        try:
            boards = [_Board(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
        except Exception as error:  # noqa: BLE001 - a driver may raise anything; it is reported
            return Probe(refusals=(_refused(error, "NVML"),))
        domains: list[MeterFact] = []
        refusals = [] if boards else [_refusal("NVML: no board", _DEFAULT_FIX)]
        for board in boards:
            facts = board.survey()
            if isinstance(facts, MeterRefusal):
                refusals.append(facts)
                continue
            domains += facts
            self._counting += [board for fact in facts if fact.kind == "counter"]
            self._powered |= {fact.domain: board for fact in facts if fact.kind == "gauge"}
        return Probe(domains=tuple(domains), refusals=tuple(refusals))

    def open(self) -> None:
        if self._powered and self._poller is None:
            self._poller = GaugePoller("nvml", self._look, tuple(self._powered), POLL_S, self._clock)
            self._poller.start()

    def read(self) -> list[Count | MeterRefusal]:
        """Return counters, then powers; a board that was reset or lost is refused from then on."""
        readings: list[Count | MeterRefusal] = []
        for board in self._counting:
            before_ns = self._clock.now_ns()
            count = board.energy_mj()
            after_ns = self._clock.now_ns()
            if isinstance(count, MeterRefusal):
                readings.append(count)
            else:
                readings.append(Count(domain=board.name, count=count, before_ns=before_ns, after_ns=after_ns))
        return readings + [self._told(reading) for reading in (self._poller.snapshot() if self._poller else [])]

    def close(self) -> None:
        """Shut NVML down if ``probe`` could open it, once. Raises ``NVMLError`` if the driver cannot."""
        nvml, poller, self._nvml, self._poller = self._nvml, self._poller, None, None
        self._counting, self._powered = [], {}
        if poller is not None:
            poller.stop()
        if nvml is not None:
            nvml.nvmlShutdown()

    def _look(self) -> dict[str, int | str]:
        seen = {domain: board.power_mw() for domain, board in self._powered.items()}
        return {domain: mw.reason if isinstance(mw, MeterRefusal) else mw for domain, mw in seen.items()}

    def _told(self, reading: Count | MeterRefusal) -> Count | MeterRefusal:
        if isinstance(reading, MeterRefusal):
            return reading
        board = self._powered[reading.domain]
        return board.gone or msgspec.structs.replace(reading, variance=reading.variance * board.held_variance)


class _Board:
    """One board. Each question is answered, or comes back as a refusal with the reason."""

    def __init__(self, nvml: Any, index: int) -> None:
        self.name = f"gpu-{index}"
        self.gone: MeterRefusal | None = None  # why nothing that this board says counts any more
        self.held_variance = 1.0
        self._nvml, self._index = nvml, index
        self._handle: Any = None
        self._last_mj = 0
        self._power: Callable[[], int]  # settled by survey

    def survey(self) -> tuple[MeterFact, ...] | MeterRefusal:
        """Return what can be metered, and settle where power is read from."""
        partitioned = self._ask("the board", self._is_partitioned)
        if partitioned:  # or why that cannot be told
            why = f"{self.name}: MIG is on: the board's energy cannot be attributed to a part of it"
            fix = f"sudo nvidia-smi -i {self._index} -mig 0"
            return partitioned if isinstance(partitioned, MeterRefusal) else _refusal(why, fix, self.name)
        energy, averaged = self.energy_mj(), self._find_power()
        self.held_variance = _HELD_VARIANCE if self._sampling()[0] > COUNTER_WINDOW_S else 1.0
        if self.gone is not None:
            return self.gone
        if isinstance(energy, MeterRefusal):
            return energy if averaged is None else (self._gauge_fact(energy.reason, averaged=averaged),)
        if averaged is False:
            return self._counter_fact(), self._gauge_fact(parent=self.name)
        return (self._counter_fact("no power now to check the counter by"),)  # a mean of 1 s is no check of 10 s

    def energy_mj(self) -> int | MeterRefusal:
        count = self._ask("energy counter", lambda: int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)))
        if isinstance(count, MeterRefusal):
            return count
        if not 0 <= count < _NOT_AVAILABLE:
            return _refusal(f"{self.name}: energy counter: {count} is no energy", _DEFAULT_FIX, self.name)
        if count < self._last_mj:
            why = f"{self.name}: the energy counter went back from {self._last_mj} to {count} mJ: a reset"
            self.gone = _refusal(why, "run again, and leave board and driver alone meanwhile", self.name)
            return self.gone
        self._last_mj = count
        return count

    def power_mw(self) -> int | MeterRefusal:
        power = self._ask("power", self._power)
        if isinstance(power, int) and not 0 < power <= MAX_BOARD_MW:
            return _refusal(f"{self.name}: power: {power} mW is no power of a board", _DEFAULT_FIX, self.name)
        return power

    def _ask(self, what: str, question: Callable[[], _T]) -> _T | MeterRefusal:
        if self.gone is not None:
            return self.gone
        try:
            return question()
        except Exception as error:  # noqa: BLE001 - a driver may raise anything; it is reported
            refusal = _refused(error, f"{self.name}: {what}", self.name)
            if getattr(error, "value", None) in {_LOST, _RESET_REQUIRED}:
                self.gone = refusal
            return refusal

    def _is_partitioned(self) -> bool:
        self._handle = self._nvml.nvmlDeviceGetHandleByIndex(self._index)
        try:
            mode, _pending = self._nvml.nvmlDeviceGetMigMode(self._handle)
        except self._nvml.NVMLError as error:
            if error.value in {_NOT_SUPPORTED, _FUNCTION_NOT_FOUND}:
                return False  # a board, or a driver, from before MIG
            raise
        return bool(mode)

    def _find_power(self) -> bool | None:
        """Settle on the best power there is: now, else averaged (return True), else none (return None)."""
        usage_is_averaged = self._capability() > _GA100  # NVML API reference of nvmlDeviceGetPowerUsage
        sources = (
            (lambda: self._field_mw(_POWER_INSTANT), False),
            (lambda: self._field_mw(_POWER_AVERAGE), True),
            (lambda: int(self._nvml.nvmlDeviceGetPowerUsage(self._handle)), usage_is_averaged),
        )
        for source, averaged in sources:
            self._power = source
            if isinstance(self.power_mw(), int):
                return averaged
        return None

    def _field_mw(self, field: int) -> int:
        value = self._nvml.nvmlDeviceGetFieldValues(self._handle, [(field, _SCOPE_GPU)])[0]
        if value.nvmlReturn:  # the call succeeds while a field in it fails and shows 0
            raise self._nvml.NVMLError(value.nvmlReturn)
        return int(getattr(value.value, _VALUE_FIELDS[value.valueType]))

    def _capability(self) -> tuple[int, ...]:
        found = self._ask("capability", lambda: tuple(self._nvml.nvmlDeviceGetCudaComputeCapability(self._handle)))
        return _UNKNOWN if isinstance(found, MeterRefusal) else found

    def _sampling(self) -> tuple[float, tuple[str, ...]]:
        """Return the shortest window for a sensor that may look for a part of the time, and what to say of it."""
        if self._capability() in {_GA100, _HOPPER}:
            return PART_TIME_WINDOW_S, ("the sensor looks for 25 ms of every 100 ms (arXiv 2312.02741)",)
        if self._capability() > _HOPPER:
            return PART_TIME_WINDOW_S, ("how much of the time the sensor looks is not known: taken to be as on Hopper",)
        return COUNTER_WINDOW_S, ()

    def _counter_fact(self, *notes: str) -> MeterFact:
        window_s, sampling = self._sampling()
        return MeterFact(
            domain=self.name, scope="gpu", kind="counter", label="measured", grade="nvml", tick_s=TICK_S,
            source="NVML total energy", unit_j="1/1000", min_window_s=window_s,
            tolerance=TURING_TOLERANCE if self._capability() in {_TURING, _UNKNOWN} else TOLERANCE,
            only_simulated=True, note="; ".join(sampling + notes) or None,
        )  # fmt: skip

    def _gauge_fact(self, *notes: str, averaged: bool = False, parent: str | None = None) -> MeterFact:
        counter = self._counter_fact(*notes)
        return msgspec.structs.replace(
            counter, domain=self.name if parent is None else f"{parent}:power", kind="gauge", grade="nvml-power",
            tick_s=AVERAGE_S if averaged else TICK_S, unit_j=integral_unit_j(Fraction(1, 1000)),
            source=f"NVML power, {'mean of 1 s' if averaged else 'now'}", parent=parent,
            min_window_s=AVERAGED_WINDOW_S if averaged else counter.min_window_s,
        )  # fmt: skip


def gpu_facts() -> tuple[GpuFacts, ...]:
    """Return name, memory and driver of each NVIDIA board; () where NVML is not there. No serial, UUID or address.

    A board that does not answer is left out: it is an absent fact here, and the meter says why.
    """
    nvml = opened()
    if isinstance(nvml, MeterRefusal):
        return ()
    found: list[GpuFacts] = []
    with contextlib.suppress(Exception):
        driver = str(nvml.nvmlSystemGetDriverVersion())
        for index in range(nvml.nvmlDeviceGetCount()):
            with contextlib.suppress(Exception):
                board = nvml.nvmlDeviceGetHandleByIndex(index)
                memory = int(nvml.nvmlDeviceGetMemoryInfo(board).total)
                found.append(GpuFacts(name=str(nvml.nvmlDeviceGetName(board)), memory_bytes=memory, driver=driver))
    with contextlib.suppress(Exception):
        nvml.nvmlShutdown()
    return tuple(found)


def opened() -> Any:
    """Return the initialised library, or a refusal."""
    try:
        import pynvml  # noqa: PLC0415 - provided by nvidia-ml-py; opens no driver by itself

        pynvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 - a broken driver may raise anything at import
        return _refused(error, "NVML")
    return pynvml


def _refused(error: Exception, what: str, domain: str | None = None) -> MeterRefusal:
    code = getattr(error, "value", None)
    kind = "" if isinstance(code, int) else f"{type(error).__name__}: "
    fix = _FIXES.get(code, _DEFAULT_FIX) if isinstance(code, int) else _DEFAULT_FIX
    return _refusal(f"{what}: {kind}{error}", fix, domain)


def _refusal(reason: str, fix: str, domain: str | None = None) -> MeterRefusal:
    return MeterRefusal(meter="nvml", reason=reason, fix=fix, domain=domain)
