"""AMD boards through AMD SMI (the package ``amdsmi`` of ROCm): the energy accumulator, else the power of the socket.

Only by ``--meter amdsmi``: without it, hwmon reads the power that the kernel's amdgpu driver shows.

Counters are known to freeze (github.com/ROCm/amdsmi issue 38: MI100 until a reboot; ROCm/rocm_smi_lib issue 180:
during a whole program) and to go back (ROCm/amdsmi issue 115); either is refused here, and one that does not move
under load is refused before the run. Of a board with two dies (MI250) only the first shows power, that of both; the
second shows 0 W and is refused (ml-energy/zeus pull request 203).
"""

from __future__ import annotations

import contextlib
import io
from fractions import Fraction
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from perjoule.clock import MonotonicClock
from perjoule.meters.gauge import GaugePoller, integral_unit_j
from perjoule.meters.sysfs import EnergyCounter
from perjoule.protocols import Count, Probe
from perjoule.records import MeterFact, MeterRefusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from perjoule.protocols import Clock

_T = TypeVar("_T")

POLL_S = 0.1
WINDOW_S = 10.0  # as for NVML's counter: AMD documents no update period
AVERAGED_WINDOW_S = 50.0  # as for NVML's mean of 1 s: AMD does not say over what it averages
TOLERANCE = 0.20  # no comparison with a meter is known to us: the widest of the sensors that have one
MAX_BOARD_W = 5000
_FINEST_UJ, _COARSEST_UJ = 0.01, 1e6  # boards show 15.3; a nonsense is further off than this
_NO_TICK = "AMD documents no update period"
# amdsmi.h: W on bare metal. MI300 shows power now, MI200 and Navi a mean; what a board lacks is N/A or all ones.
_POWER_KEYS = ("current_socket_power", "average_socket_power", "socket_power")
_ABSENT = frozenset({0xFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF})

_INSTALL = (
    "install ROCm's amd-smi-lib, then pip install 'perjoule[amd]', in the version that /opt/rocm/.info/version names"
)
_FIX = "check that amd-smi list shows the board, and that this user is in the groups render and video"


class AmdSmiMeter:
    """Reads one domain a board: its counter, or its power where it does not count."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock: Clock = MonotonicClock() if clock is None else clock
        self._library: Any = None
        self._counting: list[_Board] = []
        self._powered: dict[str, _Board] = {}
        self._poller: GaugePoller | None = None

    def probe(self) -> Probe:
        library = _opened() if self._library is None else self._library
        if isinstance(library, MeterRefusal):
            return Probe(refusals=(library,))
        self._library, self._counting, self._powered = library, [], {}
        try:
            handles = list(library.amdsmi_get_processor_handles())
        except Exception as error:  # noqa: BLE001 - a driver may raise anything; it is reported
            return Probe(refusals=(_refusal(f"AMD SMI: {_why(error)}", _FIX),))
        domains: list[MeterFact] = []
        refusals = [] if handles else [_refusal("AMD SMI: no board", _FIX)]
        for index, handle in enumerate(handles):
            board = _Board(library, handle, f"gpu-{index}")
            fact = board.survey()
            if isinstance(fact, MeterRefusal):
                refusals.append(fact)
                continue
            domains.append(fact)
            if fact.kind == "counter":
                self._counting.append(board)
            else:
                self._powered[fact.domain] = board
        return Probe(domains=tuple(domains), refusals=tuple(refusals))

    def open(self) -> None:
        if self._powered and self._poller is None:
            self._poller = GaugePoller("amdsmi", self._look, tuple(self._powered), POLL_S, self._clock)
            self._poller.start()

    def read(self) -> list[Count | MeterRefusal]:
        counted = [board.read(self._clock) for board in self._counting]
        return counted + (self._poller.snapshot() if self._poller is not None else [])

    def close(self) -> None:
        """Shut the library down if ``probe`` opened it, once. Raises what the library raises."""
        library, poller, self._library, self._poller = self._library, self._poller, None, None
        self._counting, self._powered = [], {}
        if poller is not None:
            poller.stop()
        if library is not None:
            library.amdsmi_shut_down()

    def _look(self) -> dict[str, int | str]:
        seen = {domain: board.ask("power", board.power_w) for domain, board in self._powered.items()}
        return {domain: w.reason if isinstance(w, MeterRefusal) else w or "0 W" for domain, w in seen.items()}


class _Board:
    def __init__(self, library: Any, handle: Any, name: str) -> None:
        self.name = name
        self._library, self._handle = library, handle
        self._unit_j: Fraction | None = None
        self._power_key = ""
        self._counter = EnergyCounter(Fraction(1))

    def survey(self) -> MeterFact | MeterRefusal:
        power, energy = self.ask("power", self.power_w), self.ask("energy counter", self._energy)
        if power == 0:
            why = "shows 0 W: the second die of a board whose first one shows the power of both, or a board at rest"
            return _refusal(f"{self.name}: {why}", "read the first die's domain; or run on it, then again", self.name)
        if isinstance(energy, int):
            unit_j = self._unit_j or Fraction(1)
            self._counter = EnergyCounter(unit_j, unwrap=True, frozen_s=WINDOW_S)
            return self._fact("counter", "amdsmi", "energy accumulator", str(unit_j), WINDOW_S)
        if isinstance(power, MeterRefusal):
            return _refusal(f"{energy.reason}; {power.reason}", _FIX, self.name)
        averaged = self._power_key == "average_socket_power"
        window_s, unit = AVERAGED_WINDOW_S if averaged else WINDOW_S, integral_unit_j(Fraction(1))
        gauge = self._fact("gauge", "amdsmi-power", self._power_key.replace("_", " "), unit, window_s)
        return msgspec.structs.replace(gauge, note=energy.reason)

    def read(self, clock: Clock) -> Count | MeterRefusal:
        before_ns = clock.now_ns()
        raw = self.ask("energy counter", self._energy)
        after_ns = clock.now_ns()
        if isinstance(raw, MeterRefusal):
            return raw
        count = self._counter.take(raw, (before_ns + after_ns) // 2)
        if isinstance(count, str):
            return _refusal(f"{self.name}: {count}", "reboot, or meter the board's power: --meter hwmon", self.name)
        return Count(domain=self.name, count=count, before_ns=before_ns, after_ns=after_ns)

    def ask(self, what: str, question: Callable[[], _T]) -> _T | MeterRefusal:
        try:
            return question()
        except Exception as error:  # noqa: BLE001 - a driver may raise anything; it is reported
            return _refusal(f"{self.name}: {what}: {_why(error)}", _FIX, self.name)

    def power_w(self) -> int:
        """Return watts; 0 where the board shows 0. Raises ``ValueError`` where it shows none."""
        told = self._library.amdsmi_get_power_info(self._handle)
        shown = {key: told[key] for key in _POWER_KEYS if _is_count(told.get(key)) and told[key] not in _ABSENT}
        for key in (self._power_key,) if self._power_key else shown:
            watts = int(shown.get(key, 0))
            if watts > MAX_BOARD_W:
                raise ValueError(f"{watts} W is no power of a board")
            if watts:
                self._power_key = key
                return watts
        if not shown:
            raise ValueError("it shows none")
        return 0

    def _energy(self) -> int:
        """Return the accumulator's count; keeps what one is worth. Raises ``ValueError`` for what is no count."""
        told = self._library.amdsmi_get_energy_count(self._handle)
        count = told["energy_accumulator"] if "energy_accumulator" in told else told["power"]  # so up to ROCm 6.3
        resolution_uj = float(told["counter_resolution"])
        if not _is_count(count) or count == 0 or count in _ABSENT:
            raise ValueError(f"{count!r} is no count")
        if not _FINEST_UJ <= resolution_uj <= _COARSEST_UJ:
            raise ValueError(f"{resolution_uj} uJ is no resolution")
        # a 32-bit float, such as 15.300000190734863 for 15.3
        unit_j = Fraction(resolution_uj).limit_denominator(1000) / 1_000_000
        if self._unit_j not in {None, unit_j}:
            raise ValueError(f"its resolution changed to {resolution_uj} uJ")
        self._unit_j = unit_j
        return int(count)

    def _fact(self, kind: Any, grade: str, source: str, unit_j: str, window_s: float) -> MeterFact:
        return MeterFact(
            domain=self.name, scope="gpu", kind=kind, label="measured", grade=grade, tick_s=None,
            tick_s_missing=_NO_TICK, source=f"AMD SMI {source}", unit_j=unit_j, min_window_s=window_s,
            tolerance=TOLERANCE, only_simulated=True,
        )  # fmt: skip


def _opened() -> Any:
    """Return the initialised library, or a refusal. Its import prints to stdout where libamd_smi.so is missing."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            library = import_module("amdsmi")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it raises KeyError, OSError and AttributeError, too
        return _refusal(f"AMD SMI: {_why(error)} {_line(printed.getvalue())}".rstrip(), _INSTALL)
    try:
        library.amdsmi_init()
    except Exception as error:  # noqa: BLE001 - a driver may raise anything; it is reported
        return _refusal(f"AMD SMI: {_why(error)}", "load the driver, if there is a board: sudo modprobe amdgpu")
    return library


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {_line(str(error))}"


def _line(text: str) -> str:
    return " ".join(text.split())


def _refusal(reason: str, fix: str, domain: str | None = None) -> MeterRefusal:
    return MeterRefusal(meter="amdsmi", reason=reason, fix=fix, domain=domain)
