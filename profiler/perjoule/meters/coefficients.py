"""The coefficients of the energy model, from coefficients.toml: each block with the source of its figures."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import msgspec

from perjoule.meters.amounts import Range
from perjoule.records import Record

if TYPE_CHECKING:
    from perjoule.records import CpuFacts

# Workstation processors share family and model with servers, but not the machine around them that was measured.
_WORKSTATIONS = ("threadripper", "xeon(r) w")


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
    amd_server: float
    intel_server: float
    source: str


class _Widths(Record, frozen=True, kw_only=True):
    family: float
    sku: float
    unknown_factor: float
    source: str


class _Curve(Record, frozen=True, kw_only=True):
    name: str
    share_of_full_power: tuple[float, ...]  # at equal steps of load from 0 to 1
    source: str


class _Mac(Record, frozen=True, kw_only=True):
    picojoule: float
    source: str


class CpuRow(Record, frozen=True, kw_only=True):
    name: str
    vendor: str
    family: int = -1
    models: tuple[int, int] = (0, -1)
    idle_w: float | None = None
    idle_low_w: float | None = None
    idle_high_w: float | None = None
    full_w: float
    full_low_w: float | None = None
    full_high_w: float | None = None
    source: str

    @property
    def full(self) -> Range:
        return _around(self.full_w, self.full_low_w, self.full_high_w)

    @property
    def idle(self) -> Range | None:
        return None if self.idle_w is None else _around(self.idle_w, self.idle_low_w, self.idle_high_w)


class Coefficients(Record, frozen=True, kw_only=True):
    spec_power: str
    widths: _Widths
    curve: _Curve
    mac: _Mac
    dram: _Dram
    memory_standby: _Standby
    threads_per_vcpu: _Threads
    tdp: _Tdp
    cpu: tuple[CpuRow, ...]
    unknown: tuple[CpuRow, ...]


_PICO = 1e-12


@cache
def coefficients() -> Coefficients:
    data = files("perjoule.meters").joinpath("coefficients.toml").read_bytes()
    return msgspec.toml.decode(data, type=Coefficients)


def analytic_floor_j(streamed_bytes: int, macs: int) -> float:
    """Return the least joules of moving bytes once at the lowest energy per bit, and of 8-bit multiply-accumulates."""
    table = coefficients()
    return (8 * streamed_bytes * table.dram.low_pj_per_bit + macs * table.mac.picojoule) * _PICO


def power_share(load: float) -> float:
    """Return a server's power at ``load`` (0 to 1, beyond it clamped) as a share of its power at full load."""
    shares = coefficients().curve.share_of_full_power
    place = min(max(load, 0.0), 1.0) * (len(shares) - 1)
    step = min(int(place), len(shares) - 2)
    return shares[step] + (place - step) * (shares[step + 1] - shares[step])


def find_row(cpu: CpuFacts) -> CpuRow | None:
    """Return the row of the processor's family and model; clouds mask its name, which only tells workstations."""
    if cpu.model is None or any(name in cpu.name.lower() for name in _WORKSTATIONS):
        return None
    for row in coefficients().cpu:
        if (row.vendor, row.family) == (cpu.vendor, cpu.family) and row.models[0] <= cpu.model <= row.models[1]:
            return row
    return None


def spread(value: float, relative: float) -> Range:
    """Return ``value`` with bounds a relative half-width to either side."""
    return Range(low=value * (1 - relative), value=value, high=value * (1 + relative))


def _around(value: float, low: float | None, high: float | None) -> Range:
    wide = spread(value, coefficients().widths.family)
    return Range(low=wide.low if low is None else low, value=value, high=wide.high if high is None else high)
