"""What others do on this machine while perjoule does nothing: their CPU time, steal, and waiting for a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule import host
from perjoule.errors import HostError
from perjoule.noise.pressure import read_pressure
from perjoule.records import UNSET, Reason, Record

if TYPE_CHECKING:
    from perjoule.protocols import Clock

WINDOW_S = 1.0


class Noise(Record, frozen=True, kw_only=True):
    """One quiet second. Shares of all cores; those of waiting are shares of the time."""

    window_s: float
    foreign_cpu_share: float
    steal_share: float
    waiting_share: float | None
    waiting_share_missing: Reason = UNSET
    waiting_minute_share: float | None  # over the last minute, as the kernel keeps it
    waiting_minute_share_missing: Reason = UNSET


def listen(clock: Clock) -> Noise | str:
    """Sleep for a second and return what others did, or why it cannot be known."""
    try:
        before = host.read_cpu_times()
        waited, own_ns, start_ns = read_pressure(), clock.cpu_ns(), clock.now_ns()
        clock.sleep(WINDOW_S)
        after = host.read_cpu_times()
    except HostError as error:
        return error.message
    waited_after, window_s = read_pressure(), (clock.now_ns() - start_ns) / 1e9
    capacity_s = after.cores * window_s
    foreign_s = after.busy_s - before.busy_s - (clock.cpu_ns() - own_ns) / 1e9
    share = minute = None
    why: Reason = UNSET
    if isinstance(waited, str) or isinstance(waited_after, str):
        why = waited if isinstance(waited, str) else str(waited_after)
    else:
        share = max(0.0, waited_after.total_s - waited.total_s) / window_s
        minute = waited_after.minute_share
    return Noise(
        window_s=window_s,
        foreign_cpu_share=max(0.0, foreign_s) / capacity_s,
        steal_share=max(0.0, after.steal_s - before.steal_s) / capacity_s,
        waiting_share=share, waiting_share_missing=why, waiting_minute_share=minute, waiting_minute_share_missing=why,
    )  # fmt: skip
