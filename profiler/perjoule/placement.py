"""Where the measured process runs, and how the kernel ranks it against others: CPU affinity and niceness."""

from __future__ import annotations

import os

from perjoule.errors import HostError, UsageError

_MOST_CPUS = 4096  # a range beyond this is a slip, not a machine
NICEST, RUDEST = 19, -20  # setpriority(2)


def usable_cpus() -> frozenset[int]:
    """Return the CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def parse_cpus(text: str) -> tuple[int, ...]:
    """Return the CPUs of a list such as ``0-1,4``, in order. Raises ``UsageError`` for one that may not be used."""
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError("--pin: this system has no way to pin a process", hint="leave --pin out")
    wanted: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (_is_number(first) and (not dash or _is_number(last))):
            raise UsageError(f"--pin {text!r} is no list of CPUs", hint="e.g. --pin 0-1,4")
        low, high = int(first), int(last) if dash else int(first)
        if not low <= high < _MOST_CPUS:
            raise UsageError(f"--pin {text!r}: {part.strip()} is no range of CPUs", hint="e.g. --pin 0-1,4")
        wanted |= set(range(low, high + 1))
    allowed = usable_cpus()
    if not wanted <= allowed:
        lost = ", ".join(str(cpu) for cpu in sorted(wanted - allowed)[:8])
        raise UsageError(
            f"--pin {text}: this process may not use CPU {lost}", hint=f"it may use: {_shown(sorted(allowed))}"
        )
    return tuple(sorted(wanted))


def place(pin: tuple[int, ...] | None, nice: int | None) -> None:
    """Bind this process to CPUs and set its niceness; called before an engine starts threads, which inherit both.

    Raises ``HostError`` where the kernel refuses, as it does niceness below 0 without the right to it.
    """
    try:
        if pin is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, pin)
        if nice is not None:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
    except OSError as error:
        what = f"nice {nice}" if isinstance(error, PermissionError) else f"CPUs {pin}"
        raise HostError(
            f"the worker was refused {what}: {error.strerror}",
            hint="niceness below 0 needs CAP_SYS_NICE or a limit in /etc/security/limits.conf; CPUs must be online",
        ) from error


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6  # noqa: PLR2004 - int() of long text is refused


def _shown(cpus: list[int]) -> str:
    """Return sorted CPUs as a list of ranges."""
    ranges: list[list[int]] = []
    for cpu in cpus:
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(f"{a}-{b}" if a != b else str(a) for a, b in ranges)
