"""Apple silicon through the package ``zeus-apple-silicon``: the chip's own energy model, as IOReport shows it.

Only by ``--meter apple``. The counters are mJ since an unspecified start (README of ml-energy/zeus-apple-silicon,
``get_cumulative_energy``). "CPU Energy" covers cores and their caches, and neither graphics nor memory, so the three
domains stand side by side and add up; the display, the disk, the Neural Engine and the losses of the power supply are
in none of them. The Neural Engine is left out because no engine here runs on it, and a counter at rest looks dead.

Under some systems the counters of cores and memory stand still unless a privileged sampler runs beside; one that
stands still is refused, never taken for 0 J.
"""

from __future__ import annotations

import platform
from fractions import Fraction
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from perjoule.clock import MonotonicClock
from perjoule.meters.sysfs import EnergyCounter
from perjoule.protocols import Count, Probe
from perjoule.records import MeterFact, MeterRefusal

if TYPE_CHECKING:
    from perjoule.protocols import Clock

WINDOW_S = 10.0  # as for NVML's counter: Apple documents no update period
TOLERANCE = 0.15  # measurement by a model inside the chip; estimated by us
MAX_COUNT = (1 << 63) - 1
_UNIT_J = Fraction(1, 1000)
_MOVE = "run sudo powermetrics --samplers cpu_power -i 500 beside, which keeps the counters moving; or use a wall meter"


class _Channel(NamedTuple):
    field: str
    domain: str
    scope: str
    frozen_s: float | None  # graphics may rest; cores and memory cannot
    covers: str


_CHANNELS = (
    _Channel("cpu_total_mj", "package-0", "package", WINDOW_S, "cores and their caches, without graphics and memory"),
    # its scope is that of a board: this chip's package counter does not contain it
    _Channel("gpu_mj", "package-0:igpu", "gpu", None, "graphics of the chip, beside the package's counter"),
    _Channel("dram_mj", "package-0:dram", "dram", WINDOW_S, "memory on the chip's package"),
)


class AppleMeter:
    """Reads cores, graphics and memory of an Apple chip."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock: Clock = MonotonicClock() if clock is None else clock
        self._monitor: Any = None
        self._counters: dict[_Channel, EnergyCounter] = {}

    def probe(self) -> Probe:
        self.close()
        if platform.system() != "Darwin":
            why = f"Apple silicon is metered under macOS; this is {platform.system()}"
            return Probe(refusals=(_refusal(why, "leave --meter apple out"),))
        try:
            self._monitor = import_module("zeus_apple_silicon").AppleEnergyMonitor()
            told = self._monitor.get_cumulative_energy()
        except Exception as error:  # noqa: BLE001 - an extension module may raise anything; it is reported
            self._monitor = None
            why, fix = f"IOReport: {type(error).__name__}: {error}", "pip install 'perjoule[apple]' on an Apple chip"
            return Probe(refusals=(_refusal(why, fix),))
        refusals: list[MeterRefusal] = []
        for channel in _CHANNELS:
            count = _count(told, channel)
            if isinstance(count, MeterRefusal):
                refusals.append(count)
            else:
                self._counters[channel] = EnergyCounter(_UNIT_J, unwrap=True, frozen_s=channel.frozen_s)
        return Probe(domains=tuple(_fact(channel) for channel in self._counters), refusals=tuple(refusals))

    def open(self) -> None:
        """The monitor was made by ``probe``."""

    def read(self) -> list[Count | MeterRefusal]:
        if self._monitor is None:
            return []
        before_ns = self._clock.now_ns()
        try:
            told = self._monitor.get_cumulative_energy()
        except Exception as error:  # noqa: BLE001 - as in probe
            why = f"IOReport: {type(error).__name__}: {error}"
            return [_refusal(f"{c.domain}: {why}", "run again", c.domain) for c in self._counters]
        after_ns = self._clock.now_ns()
        return [self._taken(channel, told, before_ns, after_ns) for channel in self._counters]

    def close(self) -> None:
        self._monitor = None  # it frees its subscription when it is forgotten
        self._counters = {}

    def _taken(self, channel: _Channel, told: Any, before_ns: int, after_ns: int) -> Count | MeterRefusal:
        raw = _count(told, channel)
        if isinstance(raw, MeterRefusal):
            return raw
        count = self._counters[channel].take(raw, (before_ns + after_ns) // 2)
        if isinstance(count, str):
            return _refusal(f"{channel.domain}: {count}", _MOVE, channel.domain)
        return Count(domain=channel.domain, count=count, before_ns=before_ns, after_ns=after_ns)


def _count(told: Any, channel: _Channel) -> int | MeterRefusal:
    count = getattr(told, channel.field, None)
    if count is None:
        why = f"{channel.domain}: this chip or this macOS does not report {channel.field}"
        # without graphics or memory the rest still stands; without cores there is nothing to say
        return _refusal(why, "use a wall meter", channel.domain if channel.scope == "package" else None)
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MAX_COUNT:
        return _refusal(f"{channel.domain}: {count!r} is no count", "use a wall meter", channel.domain)
    return count


def _fact(channel: _Channel) -> MeterFact:
    return MeterFact(
        domain=channel.domain, scope=channel.scope, kind="counter", label="measured", grade="apple-ioreport",
        tick_s=None, tick_s_missing="Apple documents no update period", source="IOReport Energy Model",
        unit_j=str(_UNIT_J), min_window_s=WINDOW_S, tolerance=TOLERANCE, only_simulated=True, note=channel.covers,
    )  # fmt: skip


def _refusal(reason: str, fix: str, domain: str | None = None) -> MeterRefusal:
    return MeterRefusal(meter="apple", reason=reason, fix=fix, domain=domain)
