"""Pressure stall information of the kernel: for how long some task waited (Documentation/accounting/psi.rst)."""

from __future__ import annotations

from perjoule import host
from perjoule.meters import sysfs
from perjoule.records import Record

RESOURCES = ("cpu", "memory", "io")
_ODD = "pressure/cpu is not what the kernel writes"


class Pressure(Record, frozen=True, kw_only=True):
    """The share of the last minute in which some task waited for a CPU, and the seconds of it since boot."""

    minute_share: float
    total_s: float


def read_pressure() -> Pressure | str:
    """Read pressure stall information of the CPU, or say why there is none."""
    try:
        values = _some(sysfs.read_text(host.procfs_root() / "pressure" / "cpu"))
        found = Pressure(minute_share=float(values["avg60"]) / 100, total_s=int(values["total"]) / 1e6)
    except OSError as error:
        return f"the kernel shows no pressure: {sysfs.why(error)}"
    except (ValueError, KeyError):  # too long, no numbers, negative, not finite
        return _ODD
    return found if found.minute_share <= 1 else _ODD


def total_us(text: str) -> int:
    """Return the microseconds since boot in which some task waited, from the text of a pressure file.

    Raises ``ValueError`` for what the kernel does not write.
    """
    try:
        return int(_some(text)["total"])
    except (ValueError, KeyError):
        raise ValueError("it is not what the kernel writes") from None


def _some(text: str) -> dict[str, str]:
    """Return the words of the line ``some avg10=0.00 avg60=0.00 avg300=0.00 total=0``: per cent and microseconds."""
    head, *words = text.partition("\n")[0].split() or [""]
    if head != "some":
        raise ValueError("it does not begin with `some`")
    return dict(word.split("=", 1) for word in words)
