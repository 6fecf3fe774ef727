"""Wall plugs that answer over plain HTTP: Shelly of the second generation and newer, and Tasmota.

Shelly: ``Switch.GetStatus`` gives ``apower`` in W and ``aenergy.total`` in Wh (Shelly API documentation, Gen2+,
component Switch, section Status). Tasmota: ``Status 8`` gives ``StatusSNS.ENERGY`` with ``Power`` in W and ``Total`` in
kWh (Tasmota documentation, Commands and JSON status responses). Power is polled and integrated; the energy register,
which comes in the same answer, is held against the integral.
"""

from __future__ import annotations

import threading
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from perjoule.clock import MonotonicClock
from perjoule.errors import UsageError
from perjoule.meters import http
from perjoule.meters.gauge import GaugePoller, Integrator, integral_unit_j
from perjoule.protocols import Count, Probe
from perjoule.records import MeterFact, MeterRefusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perjoule.protocols import Clock

PERIOD_S = 1.0  # of polls, and the update period taken for a plug: its makers document none
TIMEOUT_S = 1.5
MIN_WINDOW_S = 120.0
TOLERANCE = 0.10
CALIBRATED_TOLERANCE = 0.03
MAX_PLUG_W = 10_000.0  # above what any plug of these makers switches (16 A at 230 V is 3.7 kW)
MAX_DISAGREEMENT = 0.10  # between the register and the integral of power
_MAX_REGISTER_WH = 1e12
_J_PER_WH = 3600.0
_COARSEST_J = 3600.0  # Tasmota shows thousandths of a kWh; a register that stood still may move in such steps
_MILLI = 1000
_DOMAIN = "wall"
_FIX = "check that the plug answers in a browser, and that this machine alone is plugged into it"


class RegisterCheck:
    """Holds a plug's energy register against the integral of the power it reported, over the same polls."""

    def __init__(self) -> None:
        self._power = Integrator()
        self._lock = threading.Lock()
        self._first_wh = self._last_wh = 0.0
        self._step_wh = 0.0  # the largest step between two polls: how coarsely the register moves
        self._fell = False
        self._at_ns = 0

    def add(self, milliwatts: int, register_wh: float, at_ns: int) -> None:
        with self._lock:
            if not self._power.polls:
                self._first_wh = self._last_wh = register_wh
            self._fell = self._fell or register_wh < self._last_wh
            self._step_wh = max(self._step_wh, register_wh - self._last_wh)
            self._last_wh = register_wh
            self._power.add(milliwatts, at_ns)
            self._at_ns = at_ns

    def notes(self) -> list[str]:
        """Say where the two disagree, or why they cannot be compared; nothing while they agree."""
        with self._lock:
            if not self._power.polls:
                return []
            power_j = self._power.count(self._at_ns) / (_MILLI * 1e9)
            register_j = (self._last_wh - self._first_wh) * _J_PER_WH
            step_j = self._step_wh * _J_PER_WH
            fell = self._fell
        if fell:
            return ["the plug's energy register went backwards: it was reset during the run"]
        limit_j = MAX_DISAGREEMENT * power_j
        counted = f"{register_j:.4g} J by the plug's energy register, {power_j:.4g} J by its power"
        if max(step_j, 0 if register_j else _COARSEST_J) > limit_j:
            return [f"{counted}: the register moves too coarsely to check such a run"]
        if abs(register_j - power_j) > limit_j + step_j:
            return [f"{counted}: they differ by more than {MAX_DISAGREEMENT:.0%}, trust neither"]
        return []


class _PlugMeter:
    """A plug that answers one GET with its power and its register."""

    name: ClassVar[str]
    source: ClassVar[str]
    options: ClassVar[frozenset[str]] = frozenset({"calibrated"})

    def __init__(self, argument: str = "", clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self._base, self._options = parse_address(self.name, argument, ("http",), self.options)
        self._url = self._base + self.path()
        self.register = RegisterCheck()
        self._poller: GaugePoller | None = None

    def path(self) -> str:
        """Return what is asked for, from the root of the device."""
        raise NotImplementedError

    def values(self, answer: dict[str, Any]) -> tuple[object, object, float] | str:
        """Return power in W, the register, and Wh per unit of the register; or why the answer has none."""
        raise NotImplementedError

    def probe(self) -> Probe:
        seen = self._look()[_DOMAIN]
        if isinstance(seen, str):
            return Probe(refusals=(MeterRefusal(meter=self.name, reason=seen, fix=_FIX, domain=_DOMAIN),))
        calibrated = self._options.get("calibrated") == "1"
        fact = MeterFact(
            domain=_DOMAIN, scope="wall", kind="gauge", label="measured", grade="plug", tick_s=PERIOD_S,
            source=self.source, unit_j=integral_unit_j(Fraction(1, _MILLI)), min_window_s=MIN_WINDOW_S,
            tolerance=CALIBRATED_TOLERANCE if calibrated else TOLERANCE, only_simulated=True,
        )  # fmt: skip
        return Probe(domains=(fact,))

    def open(self) -> None:
        self._poller = GaugePoller(self.name, self._look, (_DOMAIN,), PERIOD_S, self._clock, fresh=False)
        self._poller.start()

    def read(self) -> list[Count | MeterRefusal]:
        return self._poller.snapshot() if self._poller is not None else []

    def close(self) -> None:
        if self._poller is not None:
            self._poller.stop()
            self._poller = None

    def notes(self) -> list[str]:
        """Return what a reader of the result should know; complete once the meter is closed."""
        return self.register.notes()

    def _look(self) -> Mapping[str, int | str]:
        before_ns = self._clock.now_ns()
        answer = http.get_json(self._url, timeout_s=TIMEOUT_S, clock=self._clock)
        middle_ns = (before_ns + self._clock.now_ns()) // 2
        found = answer if isinstance(answer, str) else self.values(answer)
        if isinstance(found, str):
            return {_DOMAIN: found}
        watts = http.number(found[0], "power", largest=MAX_PLUG_W)
        register = http.number(found[1], "the energy register", largest=_MAX_REGISTER_WH)
        if isinstance(watts, str):
            return {_DOMAIN: watts}
        if watts == 0:
            return {_DOMAIN: "it reads 0 W: nothing that runs is plugged into it"}
        milliwatts = round(watts * _MILLI)
        if self._poller is not None and not isinstance(register, str):
            self.register.add(milliwatts, register * found[2], middle_ns)
        return {_DOMAIN: milliwatts}


class ShellyMeter(_PlugMeter):
    """``shelly:http://HOST``; options ``calibrated=1`` and ``id=N`` for another output than the first."""

    name = "shelly"
    source = "Shelly Switch.GetStatus"
    options = frozenset({"calibrated", "id"})

    def path(self) -> str:
        output = self._options.get("id", "0")
        if not (output.isascii() and output.isdigit() and len(output) <= 2):  # noqa: PLR2004 - two digits
            raise UsageError(f"shelly: id={output!r} is not an output", hint="outputs are counted from 0")
        return f"/rpc/Switch.GetStatus?id={output}"

    def values(self, answer: dict[str, Any]) -> tuple[object, object, float] | str:
        if "apower" not in answer:
            return "it has no apower: this Shelly does not meter power, or is of the first generation"
        if answer.get("output") is False:
            return "its output is off: this machine is not plugged into it"
        energy = answer.get("aenergy")
        return answer["apower"], energy.get("total") if isinstance(energy, dict) else None, 1.0


class TasmotaMeter(_PlugMeter):
    """``tasmota:http://HOST``; option ``calibrated=1``."""

    name = "tasmota"
    source = "Tasmota Status 8"

    def path(self) -> str:
        return "/cm?cmnd=Status%208"

    def values(self, answer: dict[str, Any]) -> tuple[object, object, float] | str:
        sensors = answer.get("StatusSNS")
        energy = sensors.get("ENERGY") if isinstance(sensors, dict) else None
        if not isinstance(energy, dict):
            return "it has no StatusSNS.ENERGY: this device does not meter power, or wants a password"
        if isinstance(energy.get("Power"), list):
            return "it meters several outputs at once: use a plug with one"
        return energy.get("Power"), energy.get("Total"), 1000.0


def parse_address(
    name: str, argument: str, schemes: tuple[str, ...], known: frozenset[str]
) -> tuple[str, dict[str, str]]:
    """Split ``http://HOST[:PORT]?option=value``. Raises ``UsageError`` for anything else, and for a password in it."""
    hint = f"e.g. --meter {name}:{schemes[-1]}://192.0.2.7"
    try:
        place = urlsplit(argument)
        port = place.port
    except ValueError as error:
        raise UsageError(f"{name}: not an address", hint=hint) from error
    if place.scheme not in schemes or not place.hostname or port == 0 or place.path not in ("", "/") or place.fragment:
        raise UsageError(f"{name}: needs an address {schemes[-1]}://HOST", hint=hint)
    if "@" in place.netloc:
        raise UsageError(f"{name}: a password does not belong in an address", hint=hint)
    options = dict(parse_qsl(place.query, keep_blank_values=True))
    unknown = sorted(set(options) - known)
    if unknown or options.get("calibrated", "1") != "1":
        allowed = ", ".join(sorted(f"?{k}=" for k in known)) or "none"
        raise UsageError(f"{name}: unknown option {(unknown or ['calibrated'])[0]!r}", hint=f"options: {allowed}")
    return f"{place.scheme}://{place.netloc}", options
