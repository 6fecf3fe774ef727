"""The peaks of this machine: as they were kept, or measured now in a fresh process (about two seconds)."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from perjoule import host
from perjoule.clock import MonotonicClock
from perjoule.errors import HostError
from perjoule.noise import MAX_FOREIGN_SHARE, MAX_STEAL_SHARE
from perjoule.records import UNSET, Peaks
from perjoule.roofline import caches, jobs, stored
from perjoule.roofline.process import ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from perjoule.protocols import Clock
    from perjoule.records import HostFacts, ModelFacts

NULL_ENGINE = "the null engine computes nothing"
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "numpy")


def _silent(_text: str) -> None:
    return


def peaks_for(
    model: ModelFacts, device: str, machine: HostFacts, threads: int, *, tell: Callable[[str], None] = _silent
) -> Peaks | str:
    """Return the peaks that a run of this model is held against, or why there are none."""
    if device != "cpu":
        return f"the peaks are those of the CPU; the engine runs on {device}"
    if not model.parameters:
        return NULL_ENGINE
    return measure(machine, threads, tell=tell)


def measure(
    machine: HostFacts, threads: int, *, refresh: bool = False, clock: Clock | None = None,
    tell: Callable[[str], None] = _silent,
) -> Peaks | str:  # fmt: skip
    """Return the peaks with so many threads, kept ones unless ``refresh``; or why they cannot be measured.

    Nothing else may be measured meanwhile. ``tell`` hears when measuring starts and what could not be kept.
    Peaks that others disturbed twice are returned, marked, but not kept; nor are those of a made-up machine.
    """
    runtime = runtime_version()
    kept = None if refresh else stored.load(machine, threads, runtime)
    if kept is not None:
        return kept
    tell("measuring what memory and processor can do at most")
    clock = clock or MonotonicClock()
    peaks = _measure(threads, runtime, clock)
    if isinstance(peaks, Peaks) and peaks.disturbed is not None:
        tell("once more: others used the machine")
        peaks = _measure(threads, runtime, clock)
    if isinstance(peaks, Peaks) and peaks.disturbed is None and not machine.simulated:
        before = stored.load(machine, threads, runtime)
        peaks = peaks if before is None else highest(peaks, before)
        problem = stored.save(peaks, machine)
        if problem:
            tell(problem)
    return peaks


def highest(peaks: Peaks, before: Peaks) -> Peaks:
    """Return ``peaks`` with whatever was found higher ``before``, of the same machine, threads and kernels.

    A peak is an upper bound. Neighbours of a virtual machine take bandwidth that no counter of the guest shows (half
    of it was seen missing), so that a later, lower reading says nothing of the machine.
    """
    changes: dict[str, Any] = {}
    for name in ("bandwidth", "int8", "fp32", "bf16"):
        new, old = getattr(peaks, name), getattr(before, name)
        if old is not None and (new is None or old.best > new.best):
            changes |= {name: old, f"{name}_missing": UNSET}
    return replace(peaks, **changes)


def runtime_version() -> str:
    """Return the libraries that do the work, as ``onnxruntime 1.32.0, numpy 2.4.6``, without importing them."""
    found = []
    for name in _RUNTIMES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue  # the kernels do without
    return ", ".join(found) or "none"


def _measure(threads: int, runtime: str, clock: Clock) -> Peaks | str:
    size = caches.last_level_bytes()
    job = jobs.PeaksJob(threads=threads, buffer_bytes=caches.buffer_bytes(size))
    try:
        before = _Edge(clock)
        found = ask(job)
        after = _Edge(clock)
    except HostError as error:
        return error.message
    if isinstance(found, str):
        return found
    if not isinstance(found, jobs.PeaksFound):
        return "the kernel process answered another question"
    return Peaks(
        measured_utc=clock.utc_now().isoformat(timespec="seconds").replace("+00:00", "Z"),
        threads=threads, runtime=runtime, kernels=jobs.KERNELS, disturbed=_disturbance(before, after),
        cache_bytes=size, cache_bytes_missing=UNSET if size else "the kernel shows no cache",
        bandwidth=found.bandwidth, bandwidth_missing=found.bandwidth_missing,
        int8=found.int8, int8_missing=found.int8_missing,
        fp32=found.fp32, fp32_missing=found.fp32_missing,
        bf16=found.bf16, bf16_missing=found.bf16_missing,
    )  # fmt: skip


class _Edge:
    """CPU seconds of the machine, and of this process with all its children that have ended."""

    def __init__(self, clock: Clock) -> None:
        self.times = host.read_cpu_times()
        own = os.times()
        self.own_s = own.user + own.system + own.children_user + own.children_system
        self.at_ns = clock.now_ns()


def _disturbance(before: _Edge, after: _Edge) -> str | None:
    """Return what others did in between, if it is more than a request may suffer."""
    capacity_s = after.times.cores * (after.at_ns - before.at_ns) / 1e9
    if capacity_s <= 0:
        return None
    foreign_s = after.times.busy_s - before.times.busy_s - (after.own_s - before.own_s)
    foreign, steal = foreign_s / capacity_s, (after.times.steal_s - before.times.steal_s) / capacity_s
    if foreign > MAX_FOREIGN_SHARE:
        return f"other processes used {foreign:.1%} of all cores (limit {MAX_FOREIGN_SHARE:.0%})"
    if steal > MAX_STEAL_SHARE:
        return f"the hypervisor took {steal:.1%} of all cores (limit {MAX_STEAL_SHARE:.0%})"
    return None
