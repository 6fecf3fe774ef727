"""Memory of NVIDIA boards by process, as the driver counts it.

Source: the NVML API reference, nvmlDeviceGetComputeRunningProcesses: what a process holds now, its context included.
Engines keep what they once took, so that it is read at the edges of phases and not sampled. In a container the driver
may know processes by other numbers than the container does: then ours is not among them, which is said and is not 0.
"""

from __future__ import annotations

import contextlib

from perjoule.meters.nvml import opened
from perjoule.records import MeterRefusal


def memory_of_process(pid: int) -> int | str:
    """Return bytes that a process holds on all boards together, or in words why they are not known. Milliseconds."""
    nvml = opened()
    if isinstance(nvml, MeterRefusal):
        return nvml.reason
    try:
        held = [
            process.usedGpuMemory
            for number in range(nvml.nvmlDeviceGetCount())
            for process in nvml.nvmlDeviceGetComputeRunningProcesses(nvml.nvmlDeviceGetHandleByIndex(number))
            if process.pid == pid
        ]
    except Exception as error:  # noqa: BLE001 - a driver may raise anything; it is reported
        return f"NVML: {error}"
    finally:
        with contextlib.suppress(Exception):
            nvml.nvmlShutdown()
    if not held:
        return f"NVML lists no process {pid} on a board: in a container it may go by another number"
    if any(count is None for count in held):
        return "NVML: the driver does not tell the memory of a process"
    return sum(int(count) for count in held)
