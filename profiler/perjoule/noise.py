"""What others do on this machine while perjoule does nothing: their CPU time, steal, and waiting for a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule import host
from perjoule.errors import HostError
from perjoule.meters import sysfs
from perjoule.records import UNSET, Reason, Record

if TYPE_CHECKING:
    from perjoule.protocols import Clock

WINDOW_S = 1.0
_ODD = "pressure/cpu is not what the kernel writes"


class Pressure(Record, frozen=True, kw_only=True):
    """The share of the last minute in which some task waited for a CPU, and the seconds of it since boot."""

    minute_share: float
    total_s: float


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


def read_pressure() -> Pressure | str:
    """Read pressure stall information of the CPU (Documentation/accounting/psi.rst), or say why there is none.

    The first line is ``some avg10=0.00 avg60=0.00 avg300=0.00 total=0``: per cent of the time, and microseconds.
    """
    try:
        text = sysfs.read_text(host.procfs_root() / "pressure" / "cpu")
        head, *words = text.partition("\n")[0].split()
        values = dict(word.split("=", 1) for word in words)
        found = Pressure(minute_share=float(values["avg60"]) / 100, total_s=int(values["total"]) / 1e6)
    except OSError as error:
        return f"the kernel shows no pressure: {sysfs.why(error)}"
    except (ValueError, KeyError):  # too long, no numbers, negative, not finite
        return _ODD
    return found if head == "some" and found.minute_share <= 1 else _ODD
