"""Memory of the process that holds the model, from the kernel's own high-water mark. Never sampled inside a window."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from perjoule.records import UNSET, MemoryPeak, Reason
from perjoule.server_process import ELSEWHERE, NOT_NAMED, process_tree

if TYPE_CHECKING:
    from perjoule.protocols import Whereabouts

_RESET_PEAK = "5"  # proc(5), clear_refs: reset the peak resident set size to the current one
_KIB = 1024


class Holder(NamedTuple):
    """Who holds the model: this process, or a server, whose processes are known by the id of the first if at all.

    ``device``: where the engine computes, ``cpu`` or ``cuda:N``.
    """

    server: Whereabouts | None = None
    pid: int | None = None
    device: str = "cpu"

    @property
    def unknown(self) -> str:
        """Why nothing can be read; empty where it can."""
        if self.server is None or (self.server == "here" and self.pid is not None):
            return ""
        return ELSEWHERE if self.server == "elsewhere" else NOT_NAMED

    def gpu_bytes(self) -> int | str:
        """Return what it holds of the boards' memory now, or why that is not known."""
        if self.server is not None:
            return "it is not read of a server"
        if self.device == "cpu":
            return "the engine runs on the CPU"
        if not self.device.startswith("cuda"):
            return f"it is not read of {self.device}"
        from perjoule.meters.nvml_processes import memory_of_process  # noqa: PLC0415 - only where there is a board

        return memory_of_process(os.getpid())

    def folders(self) -> list[Path]:
        """Return the /proc folder of each of its processes."""
        if self.server is None:
            return [Path("/proc/self")]
        return [Path(f"/proc/{pid}") for pid, _started in process_tree(self.pid or 0)]


OURSELVES = Holder()


def reset_peak(holder: Holder = OURSELVES) -> str | None:
    """Set VmHWM back to the present resident size. Returns why not where the kernel does not let us."""
    if sys.platform != "linux":
        return "resetting the peak needs Linux"
    if holder.unknown:
        return holder.unknown
    try:
        for folder in holder.folders():
            (folder / "clear_refs").write_text(_RESET_PEAK)
    except OSError as error:
        return f"clear_refs: {error.strerror}"
    return None


def read_peak(
    process: int, phase: str, *, reset_refused: str | None = None, holder: Holder = OURSELVES
) -> MemoryPeak:  # fmt: skip
    """Read VmHWM and PSS of this process, or the sums over a server's (milliseconds: call it outside of windows).

    Where the peak could not be reset before the phase, VmHWM is that of the whole process and thus still
    an upper bound, but not of this phase: it is then reported as missing. Several processes need not have had their
    peaks at the same time, so that the sum is an upper bound of theirs together.
    """
    folders = [] if holder.unknown else holder.folders()
    peak, peak_reason = _sum(folders, "status", "VmHWM", holder.unknown)
    pss, pss_reason = _sum(folders, "smaps_rollup", "Pss", holder.unknown)
    on_board = holder.gpu_bytes()
    if reset_refused is not None:
        peak, peak_reason = None, reset_refused
    return MemoryPeak(
        process=process,
        phase=phase,  # type: ignore[arg-type]  # one of the four literals; the record's decoder checks it
        rss_peak_bytes=peak,
        rss_peak_bytes_missing=peak_reason,
        pss_bytes=pss,
        pss_bytes_missing=pss_reason,
        gpu_bytes=None if isinstance(on_board, str) else on_board,
        gpu_bytes_missing=on_board if isinstance(on_board, str) else UNSET,
    )


def _sum(folders: list[Path], file: str, key: str, unknown: str) -> tuple[int | None, Reason]:
    found = [_field(folder / file, key) for folder in folders]
    missing = next((reason for value, reason in found if value is None), UNSET if found else "no process is left")
    if unknown or missing is not UNSET:
        return None, unknown or missing
    return sum(value or 0 for value, _reason in found), UNSET


def _field(path: Path, key: str) -> tuple[int | None, Reason]:
    try:
        for line in path.read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == key:
                return int(rest.split()[0]) * _KIB, UNSET
    except OSError as error:
        return None, f"{path.name}: {error.strerror}"
    return None, f"{path.name} has no {key}"
