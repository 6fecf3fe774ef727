"""Memory of the calling process, from the kernel's own high-water mark. Never sampled inside a window."""

from __future__ import annotations

import sys
from pathlib import Path

from perjoule.records import UNSET, MemoryPeak, Reason

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_ROLLUP = Path("/proc/self/smaps_rollup")
_RESET_PEAK = "5"  # proc(5), clear_refs: reset the peak resident set size to the current one
_KIB = 1024


def reset_peak() -> str | None:
    """Set VmHWM back to the present resident size. Returns why not where the kernel does not let us."""
    if sys.platform != "linux":
        return "resetting the peak needs Linux"
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError as error:
        return f"clear_refs: {error.strerror}"
    return None


def read_peak(process: int, phase: str, *, reset_refused: str | None = None) -> MemoryPeak:
    """Read VmHWM and PSS of this process (milliseconds: call it outside of windows).

    Where the peak could not be reset before the phase, VmHWM is that of the whole process and thus still
    an upper bound, but not of this phase: it is then reported as missing.
    """
    peak, peak_reason = _field(_STATUS, "VmHWM")
    pss, pss_reason = _field(_ROLLUP, "Pss")
    if reset_refused is not None:
        peak, peak_reason = None, reset_refused
    return MemoryPeak(
        process=process,
        phase=phase,  # type: ignore[arg-type]  # one of the four literals; the record's decoder checks it
        rss_peak_bytes=peak,
        rss_peak_bytes_missing=peak_reason,
        pss_bytes=pss,
        pss_bytes_missing=pss_reason,
        gpu_bytes=None,
        gpu_bytes_missing="the engine runs on the CPU",
    )


def _field(path: Path, key: str) -> tuple[int | None, Reason]:
    try:
        for line in path.read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == key:
                return int(rest.split()[0]) * _KIB, UNSET
    except OSError as error:
        return None, f"{path.name}: {error.strerror}"
    return None, f"{path.name} has no {key}"
