"""Energy of a host without a sensor: CPU seconds and streamed bytes, times coefficients with their ranges.

E_cpu = busy CPU seconds * hardware threads per vCPU * W per hardware thread at full load.
E_dram = 8 * bytes streamed * energy per bit; nothing at the low end where the weights fit the last-level cache.
Ranges are multiplied corner by corner, so an interval holds whichever combination is true. docs/energy.md.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import msgspec

from perjoule.records import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.records import CpuFacts, HostFacts, Window

_FAMILY_WIDTH = 0.35  # of a mean without published percentiles
_PICO = 1e-12
_X86 = ("AuthenticAMD", "GenuineIntel")


class Range(Record, frozen=True, kw_only=True):
    """A number with the bounds it certainly lies in (about 90 %)."""

    low: float
    value: float
    high: float

    def times(self, factor: float) -> Range:
        return Range(low=self.low * factor, value=self.value * factor, high=self.high * factor)

    def plus(self, other: Range) -> Range:
        return Range(low=self.low + other.low, value=self.value + other.value, high=self.high + other.high)

    def by(self, other: Range) -> Range:
        """Multiply corner by corner; both ranges are positive."""
        return Range(low=self.low * other.low, value=self.value * other.value, high=self.high * other.high)


class Part(Record, frozen=True, kw_only=True):
    """Joules of one domain."""

    domain: str
    joules: Range
    note: str | None = None


class _Dram(Record, frozen=True, kw_only=True):
    low_pj_per_bit: float
    central_pj_per_bit: float
    high_pj_per_bit: float
    source: str


class _Standby(Record, frozen=True, kw_only=True):
    low_w_per_gb: float
    central_w_per_gb: float
    high_w_per_gb: float
    included_gb_per_thread: float
    source: str


class _Threads(Record, frozen=True, kw_only=True):
    low: float
    central: float
    high: float
    source: str


class _Tdp(Record, frozen=True, kw_only=True):
    low: float
    high: float
    source: str


class CpuRow(Record, frozen=True, kw_only=True):
    name: str
    vendor: str
    family: int = -1
    models: tuple[int, int] = (0, -1)
    results: int = 0
    idle_w: float | None = None
    idle_low_w: float | None = None
    idle_high_w: float | None = None
    full_w: float
    full_low_w: float | None = None
    full_high_w: float | None = None

    @property
    def full(self) -> Range:
        return _around(self.full_w, self.full_low_w, self.full_high_w)

    @property
    def idle(self) -> Range | None:
        return None if self.idle_w is None else _around(self.idle_w, self.idle_low_w, self.idle_high_w)


class Coefficients(Record, frozen=True, kw_only=True):
    spec_power: str
    dram: _Dram
    memory_standby: _Standby
    threads_per_vcpu: _Threads
    tdp: _Tdp
    cpu: tuple[CpuRow, ...]
    unknown: tuple[CpuRow, ...]


class HostModel:
    """The model applied to one host. ``grade`` says on what it rests."""

    scope = "share of a server: CPU + DRAM"

    def __init__(self, row: CpuRow, host: HostFacts, weights_bytes: int) -> None:
        table = coefficients()
        self._row, self._host, self._dram = row, host, table.dram
        guest = host.virtualization is not None
        threads = table.threads_per_vcpu
        self._threads = Range(low=threads.low, value=threads.central, high=threads.high) if guest else _exactly(1.0)
        self._per_thread = row.full.by(self._threads)
        cache_bytes = max((c.size_bytes for c in host.cpu.caches), default=0)
        self._cached = 0 < weights_bytes <= cache_bytes
        self.grade = f"{'virtual machine' if guest else 'bare metal'}, CPU taken as {row.name}"

    def parts(self, windows: Sequence[Window]) -> list[Part] | str:
        """Return the energy of CPU and DRAM in the windows, or why one of the two cannot be had."""
        if any(w.cpu_s is None for w in windows):
            return "the engine's CPU time was not read"
        if any(w.bytes_streamed is None for w in windows):
            return "the engine does not say how many bytes it streams, so DRAM energy cannot be modelled"
        cpu = Part(domain="cpu", joules=self._per_thread.times(sum(w.cpu_s or 0.0 for w in windows)))
        bits = 8 * sum(w.bytes_streamed or 0 for w in windows)
        return [cpu, Part(domain="dram", joules=self._per_bit().times(bits))]

    def floor_j(self, windows: Sequence[Window]) -> float:
        """Return the least energy of moving the streamed bytes once, at the lowest energy per bit."""
        return self._per_bit().low * 8 * sum(w.bytes_streamed or 0 for w in windows)

    def ceiling_j(self, windows: Sequence[Window]) -> float:
        """Return what all visible cores at full load and the streamed bytes could cost at most."""
        seconds = sum(w.duration_s for w in windows)
        dram = self._per_bit().high * 8 * sum(w.bytes_streamed or 0 for w in windows)
        return self._per_thread.high * self._host.cpu.threads * seconds + dram

    def outside(self, windows: Sequence[Window]) -> list[Part]:
        """Return what the headline leaves out: this host's share of idle power and of standing memory."""
        seconds = sum(w.duration_s for w in windows)
        busy_s = sum(w.cpu_s or 0.0 for w in windows)
        vcpus = self._host.cpu.threads
        standby = coefficients().memory_standby
        gigabytes = self._host.memory_bytes / 1e9
        extra = [max(0.0, gigabytes - standby.included_gb_per_thread * vcpus * m) for m in _corners(self._threads)]
        memory = Range(
            low=extra[2] * standby.low_w_per_gb * seconds,
            value=extra[1] * standby.central_w_per_gb * seconds,
            high=extra[0] * standby.high_w_per_gb * seconds,
        )
        parts = [Part(domain="memory standby", joules=memory, note="memory beyond what the CPU figure contains")]
        if self._row.idle is not None:
            idle = self._row.idle.by(self._threads).times(max(0.0, vcpus * seconds - busy_s))
            parts.append(Part(domain="idle share", joules=idle, note="the vCPUs' share of the server's idle power"))
        return parts

    def _per_bit(self) -> Range:
        low = 0.0 if self._cached else self._dram.low_pj_per_bit
        return Range(
            low=low * _PICO, value=self._dram.central_pj_per_bit * _PICO, high=self._dram.high_pj_per_bit * _PICO
        )


@cache
def coefficients() -> Coefficients:
    data = files("perjoule.meters").joinpath("coefficients.toml").read_bytes()
    return msgspec.toml.decode(data, type=Coefficients)


def host_model(host: HostFacts, weights_bytes: int, tdp_w: float | None) -> HostModel | str:
    """Return the model for this host, or why there is none."""
    row = find_row(host.cpu)
    if row is None and tdp_w is not None:
        row = _tdp_row(host.cpu, tdp_w)
    if row is None and host.virtualization is not None and host.cpu.vendor in _X86:
        row = next(r for r in coefficients().unknown if r.vendor in (host.cpu.vendor, ""))
    if row is None:
        return "no sensor, and no power figures for this CPU: give its TDP with --tdp W"
    return HostModel(row, host, weights_bytes)


def find_row(cpu: CpuFacts) -> CpuRow | None:
    for row in coefficients().cpu:
        if (row.vendor, row.family) == (cpu.vendor, cpu.family) and cpu.model is not None:
            first, last = row.models
            if first <= cpu.model <= last:
                return row
    return None


def _tdp_row(cpu: CpuFacts, tdp_w: float) -> CpuRow:
    per_thread = tdp_w / cpu.threads
    tdp = coefficients().tdp
    return CpuRow(
        name=f"a TDP of {tdp_w:g} W",
        vendor=cpu.vendor,
        full_w=per_thread,
        full_low_w=per_thread * tdp.low,
        full_high_w=per_thread * tdp.high,
    )


def _around(value: float, low: float | None, high: float | None) -> Range:
    return Range(
        low=value * (1 - _FAMILY_WIDTH) if low is None else low,
        value=value,
        high=value * (1 + _FAMILY_WIDTH) if high is None else high,
    )


def _exactly(value: float) -> Range:
    return Range(low=value, value=value, high=value)


def _corners(span: Range) -> tuple[float, float, float]:
    return span.low, span.value, span.high
