"""Energy of a host without a sensor: CPU seconds and streamed bytes, times coefficients with their ranges.

E_cpu = full-load thread seconds * W per visible hardware thread at full load; how thread seconds follow from CPU
seconds is said by ``HostModel.full_load_seconds``.
E_dram = 8 * bytes streamed * energy per bit; nothing at the low end where the weights fit the last-level cache.
Ranges are multiplied corner by corner, so an interval holds whichever combination is true. docs/energy.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from perjoule.meters.amounts import Part as Part  # noqa: PLC0414 - a model's answers belong to its interface
from perjoule.meters.amounts import Range as Range  # noqa: PLC0414
from perjoule.meters.coefficients import CpuRow, power_share, spread
from perjoule.meters.coefficients import coefficients as coefficients  # noqa: PLC0414
from perjoule.meters.coefficients import find_row as find_row  # noqa: PLC0414

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.records import Convention, CpuFacts, HostFacts, Label, Window

_PICO = 1e-12
_AMD, _INTEL = "AuthenticAMD", "GenuineIntel"
_TDP_IGNORED = "the TDP given is ignored: on a virtual machine it says nothing about a share of a server"

# How the figure for a thread was had: from the family (share of a server, or a whole one), the family and a TDP,
# a TDP alone, or from neither.
Rest = Literal["family-guest", "unknown-guest", "family", "family-tdp", "tdp"]


class HostModel:
    """The model applied to one host. ``grade`` says on what it rests, ``notes`` what a reader should know of it.

    ``thread_w`` is W per visible hardware thread at full load, ``threads`` hardware threads per visible one.
    """

    label: Label = "utilisation-modelled"
    convention: Convention = "fair-share"

    def __init__(self, host: HostFacts, weights_bytes: int, row: CpuRow, rest: Rest, tdp_w: float | None) -> None:
        self.row, self.rest, self.tdp_w = row, rest, tdp_w
        self._host, self.visible_threads = host, max(1, host.cpu.threads)
        self.threads = _threads_per_visible(host, rest)
        self.thread_w = _thread_w(row, rest, self.threads, tdp_w, self.visible_threads)
        cache_bytes = max((c.size_bytes for c in host.cpu.caches), default=0)
        self.cached = 0 < weights_bytes <= cache_bytes
        self.grade = _grade(row, rest, tdp_w)
        self.scope = f"share of {'a server' if host.virtualization else 'this machine'}: CPU + DRAM"
        self.notes = _notes(host, row, rest, tdp_w, self.threads)

    @property
    def curved(self) -> bool:
        """Whether power follows the load curve of servers: on bare metal of a known family."""
        return self.rest in ("family", "family-tdp")

    def parts(self, windows: Sequence[Window]) -> list[Part] | str:
        """Return the energy of CPU and DRAM in the windows, or why one of the two cannot be had."""
        seconds = self.full_load_seconds(windows)
        if isinstance(seconds, str):
            return seconds
        if any(w.bytes_streamed is None for w in windows):
            return "the engine does not say how many bytes it streams, so DRAM energy cannot be modelled"
        dram = self.dram_j_per_bit.times(8 * sum(w.bytes_streamed or 0 for w in windows))
        return [Part(domain="cpu", joules=self.thread_w.times(seconds)), Part(domain="dram", joules=dram)]

    def full_load_seconds(self, windows: Sequence[Window], *, above_idle: bool = False) -> float | str:
        """Return for how many seconds one thread at full load costs what the windows cost, or why it is unknown.

        Without a curve: their CPU seconds, cpu_s. With a curve, for each window: its load is
        u = (cpu_s + foreign_cpu_s) / (threads * seconds), the machine draws full power * curve(u), and our part of
        it is our part of the busy time: cpu_s / (cpu_s + foreign_cpu_s) * curve(u) * threads * seconds.
        At full load both are cpu_s. ``above_idle`` counts only what the load adds: curve(u) - curve(0).
        """
        if any(w.cpu_s is None for w in windows):
            return "the engine's CPU time was not read"
        if not self.curved:
            return sum(w.cpu_s or 0.0 for w in windows)
        if any(w.foreign_cpu_s is None for w in windows):
            return "the CPU time of other processes was not read, so the machine's load is unknown"
        least = power_share(0.0) if above_idle else 0.0
        return sum(
            share * (power_share(load) - least) * self.visible_threads * w.duration_s
            for w in windows
            for share, load in [self._share_and_load(w)]
        )

    def _share_and_load(self, window: Window) -> tuple[float, float]:
        ours = window.cpu_s or 0.0
        busy, capacity = ours + (window.foreign_cpu_s or 0.0), self.visible_threads * window.duration_s
        return (ours / busy, busy / capacity) if busy > 0 and capacity > 0 else (0.0, 0.0)

    def floor_j(self, windows: Sequence[Window], macs: int = 0) -> float:
        """Return the least energy of moving the streamed bytes once, and of ``macs`` 8-bit multiply-accumulates."""
        moved = self.dram_j_per_bit.low * 8 * sum(w.bytes_streamed or 0 for w in windows)
        return moved + macs * coefficients().mac.picojoule * _PICO

    def ceiling_j(self, windows: Sequence[Window]) -> float:
        """Return what all visible threads at full load and the streamed bytes could cost at most."""
        seconds = sum(w.duration_s for w in windows)
        dram = self.dram_j_per_bit.high * 8 * sum(w.bytes_streamed or 0 for w in windows)
        return self.thread_w.high * self.visible_threads * seconds + dram

    def outside(self, windows: Sequence[Window]) -> list[Part]:
        """Return what the headline leaves out: standing memory and, of a guest, its share of idle power.

        On bare metal idle power is inside, so the part that the load added over it stands here, for comparison.
        """
        seconds = sum(w.duration_s for w in windows)
        parts = [
            Part(
                domain="memory standby",
                joules=self._standby_w().times(seconds),
                note="memory beyond what the CPU figure contains",
            )
        ]
        if self.curved:
            above = self.full_load_seconds(windows, above_idle=True)
            if not isinstance(above, str):
                note = "inside the headline, not beside it: what the load added to an idle machine"
                parts.append(Part(domain="above idle", joules=self.thread_w.times(above), note=note))
        elif self.row.idle is not None:
            busy_s = sum(w.cpu_s or 0.0 for w in windows)
            idle = self.row.idle.by(self.threads).times(max(0.0, self.visible_threads * seconds - busy_s))
            parts.append(Part(domain="idle share", joules=idle, note="the vCPUs' share of the server's idle power"))
        return parts

    def _standby_w(self) -> Range:
        standby, gigabytes = coefficients().memory_standby, self._host.memory_bytes / 1e9
        few, central, many = (
            max(0.0, gigabytes - standby.included_gb_per_thread * self.visible_threads * m)
            for m in (self.threads.low, self.threads.value, self.threads.high)
        )
        return Range(
            low=many * standby.low_w_per_gb, value=central * standby.central_w_per_gb, high=few * standby.high_w_per_gb
        )

    @property
    def dram_j_per_bit(self) -> Range:
        dram = coefficients().dram
        low = 0.0 if self.cached else dram.low_pj_per_bit
        return Range(low=low, value=dram.central_pj_per_bit, high=dram.high_pj_per_bit).times(_PICO)


def host_model(host: HostFacts, weights_bytes: int, tdp_w: float | None) -> HostModel | str:
    """Return the model for this host, or why there is none. ``tdp_w`` is that of all its processors together."""
    row = find_row(host.cpu)
    if host.virtualization is not None:
        rest: Rest = "family-guest" if row else "unknown-guest"
        row = row or next((r for r in coefficients().unknown if _stands_for(r, host.cpu)), None)
        ignored = "" if tdp_w is None else f"; {_TDP_IGNORED}"
        return HostModel(host, weights_bytes, row, rest, tdp_w) if row else f"no sensor, and {_no_row(host)}{ignored}"
    if row is not None:
        return HostModel(host, weights_bytes, row, "family" if tdp_w is None else "family-tdp", tdp_w)
    if tdp_w is None:
        return f"no sensor, and {_no_row(host)}: give its TDP with --tdp W"
    source = "given with --tdp"
    plain = CpuRow(name="its TDP", vendor=host.cpu.vendor, full_w=tdp_w / max(1, host.cpu.threads), source=source)
    return HostModel(host, weights_bytes, plain, "tdp", tdp_w)


def _stands_for(unknown: CpuRow, cpu: CpuFacts) -> bool:
    return cpu.vendor in (_AMD, _INTEL) and unknown.vendor in (cpu.vendor, "")


def _no_row(host: HostFacts) -> str:
    return "no power figures for this CPU" + (" on a virtual machine" if host.virtualization else "")


def _threads_per_visible(host: HostFacts, rest: Rest) -> Range:
    """Return hardware threads per visible one. A guest cannot know; with SMT off a core is two of the table's."""
    threads = coefficients().threads_per_vcpu
    if rest in ("family-guest", "unknown-guest"):
        return Range(low=threads.low, value=threads.central, high=threads.high)
    smt_off = rest != "tdp" and host.cpu.cores_visible >= host.cpu.threads
    return _exactly(2.0 if smt_off else 1.0)


def _thread_w(row: CpuRow, rest: Rest, threads: Range, tdp_w: float | None, vcpus: int) -> Range:
    widths, tdp = coefficients().widths, coefficients().tdp
    if rest == "family-guest":
        return row.full.by(threads)
    if rest == "unknown-guest":
        corners = row.full.by(threads)
        low, high = corners.value / widths.unknown_factor, corners.value * widths.unknown_factor
        return Range(low=min(low, corners.low), value=corners.value, high=max(high, corners.high))
    per_thread = (tdp_w or 0.0) / vcpus
    if rest == "tdp":
        return Range(low=per_thread * tdp.low, value=per_thread, high=per_thread * tdp.high)
    if rest == "family-tdp":
        return spread(per_thread * (tdp.amd_server if row.vendor == _AMD else tdp.intel_server), widths.sku)
    return spread(row.full_w * threads.value, widths.family)


def _grade(row: CpuRow, rest: Rest, tdp_w: float | None) -> str:
    where = "virtual machine" if rest in ("family-guest", "unknown-guest") else "bare metal"
    given = f" with a TDP of {tdp_w:g} W" if rest == "family-tdp" else ""
    return f"{where}, a TDP of {tdp_w:g} W" if rest == "tdp" else f"{where}, CPU taken as {row.name}{given}"


def _notes(host: HostFacts, row: CpuRow, rest: Rest, tdp_w: float | None, threads: Range) -> tuple[str, ...]:
    notes = []
    if host.virtualization is not None and tdp_w is not None:
        notes.append(_TDP_IGNORED)
    curve = coefficients().curve
    if rest in ("family", "family-tdp") and row.name != curve.name:
        notes.append(f"{row.name} is taken to follow the load curve of {curve.name}")
    if rest == "family" and threads.value > 1:
        notes.append("SMT is off: a core is taken to draw what its two threads would")
    return tuple(notes)


def _exactly(value: float) -> Range:
    return Range(low=value, value=value, high=value)
