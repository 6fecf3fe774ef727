"""Cheap kernel facts at the edges of windows: what disturbs a measurement beside CPU time of others.

Files are opened once and read again from their start, as procfs and sysfs allow. What is not there, or takes too long
to read, is left out for the whole process, and the reason is kept.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, runtime_checkable

from perjoule import host
from perjoule.meters import sysfs
from perjoule.noise.pressure import RESOURCES, total_us
from perjoule.records import UNSET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from perjoule.protocols import Clock

# One source may cost this much at an edge. Some cannot: before Linux 5.18 scaling_cur_freq of x86 interrupts the CPU
# that it asks and may sleep 10 ms (arch_freq_get_on_cpu in arch/x86/kernel/cpu/aperfmperf.c).
MAX_READ_S = 250e-6
_TRIES = 2  # the first reading finds cold caches
_MAX_FREQUENCIES = 16  # CPUs asked for their frequency, evenly spread
_MAX_DIGITS = 18
_BYTES = 1 << 14  # procfs vmstat is 4 kB
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_NS = 1_000_000_000


@runtime_checkable
class WallClock(Protocol):
    """Optional capability of a clock: how far others are ahead of it, ns; changes are jumps."""

    def wall_offsets_ns(self) -> tuple[int, ...]: ...


class Look(NamedTuple):
    """What was read at one edge; ``counts`` by the name of the window's field, pressure in microseconds."""

    counts: Mapping[str, int]
    freq_hz: float | None
    offsets_ns: tuple[int, ...]


class Watch:
    """Open files of one measured process. ``missing`` says, by the window's field, what cannot be seen and why."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._files: dict[str, _Files] = {}
        self.missing: dict[str, str] = {}
        for name, (find, read, absent) in _sources().items():
            self._open(name, find, read, absent)
        if not isinstance(clock, WallClock):
            self.missing["clock_jump_s"] = "this clock knows no other"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for files in self._files.values():
            files.close()
        self._files.clear()

    def look(self) -> Look:
        """Read everything that can be read, in 40 us (cold caches: 130). What fails is left out from then on."""
        found = {name: value for name in tuple(self._files) if (value := self._read(name)) is not None}
        freq_hz = found.pop("freq_hz", None)
        return Look(
            counts=found,
            freq_hz=None if freq_hz is None else float(freq_hz),
            offsets_ns=self._clock.wall_offsets_ns() if isinstance(self._clock, WallClock) else (),
        )

    def _open(
        self, name: str, find: Callable[[], list[Path]], read: Callable[[Sequence[str]], int], absent: str
    ) -> None:
        try:
            paths = find()
            if not paths:
                self.missing[name] = absent
                return
            self._files[name] = _Files(paths, read)
        except OSError as error:
            self.missing[name] = absent if isinstance(error, FileNotFoundError) else sysfs.why(error)
            return
        least_ns = min(self._time(name) for _ in range(_TRIES))
        if name in self._files and least_ns > MAX_READ_S * _NS:
            self._drop(name, f"reading it takes {least_ns / 1e6:.2g} ms, too long for the edge of a window")

    def _time(self, name: str) -> int:
        start_ns = self._clock.now_ns()
        self._read(name)
        return self._clock.now_ns() - start_ns

    def _read(self, name: str) -> int | None:
        files = self._files.get(name)
        if files is None:
            return None
        try:
            return files.read()
        except (OSError, ValueError) as error:
            self._drop(name, sysfs.why(error))
            return None

    def _drop(self, name: str, reason: str) -> None:
        self._files.pop(name).close()
        self.missing[name] = reason


def changes(before: Look, after: Look) -> dict[str, Any]:
    """Return the fields of a window that follow from the looks at its two edges; what is not known is left out."""
    found: dict[str, Any] = {"cpu_tick_s": 1 / os.sysconf("SC_CLK_TCK")}
    for name, count in after.counts.items():
        step = count - before.counts.get(name, count + 1)
        if step >= 0:  # a counter that fell was reset
            found[name] = step / 1e6 if name.endswith("_s") else step
    if before.freq_hz is not None and after.freq_hz is not None:
        found["freq_hz"] = (before.freq_hz + after.freq_hz) / 2
    jumps = [b - a for a, b in zip(before.offsets_ns, after.offsets_ns, strict=False)]
    found["clock_jump_s"] = max(jumps, key=abs) / _NS if jumps else UNSET
    return found


class _Files:
    """Files that are read together, each from its start."""

    def __init__(self, paths: Sequence[Path], parse: Callable[[Sequence[str]], int]) -> None:
        self._parse = parse
        self._descriptors: list[int] = []
        try:
            for path in paths:
                self._descriptors.append(os.open(path, _FLAGS))
        except OSError:
            self.close()
            raise

    def read(self) -> int:
        """Return the number. Raises ``OSError`` and ``ValueError``."""
        return self._parse([os.pread(d, _BYTES, 0).decode("ascii") for d in self._descriptors])

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())


def _sources() -> dict[str, tuple[Callable[[], list[Path]], Callable[[Sequence[str]], int], str]]:
    """Return, by the window's field: how to find its files, how to read them, and what to say if there are none."""
    proc = host.procfs_root()
    pressure = {
        f"pressure_{name}_s": (_one(proc / "pressure" / name), _waited_us, "the kernel shows no pressure")
        for name in RESOURCES
    }
    return {
        "throttle_count": (_throttle_files, _total, "the kernel counts no thermal throttling here"),
        "freq_hz": (_frequency_files, _mean_hz, "the kernel shows no frequency here"),
        "swap_pages": (_one(proc / "vmstat"), _swapped, "the kernel shows no vmstat here"),
        **pressure,
    }


def _one(path: Path) -> Callable[[], list[Path]]:
    return lambda: [path]


def _cpus() -> Iterator[Path]:
    folder = host.sysfs_root() / "devices" / "system" / "cpu"
    yield from sorted(folder.glob("cpu[0-9]*"), key=lambda p: (len(p.name), p.name))


def _throttle_files() -> list[Path]:
    """Return one file a core and one a package: every thread of them counts the same event (therm_throt.c of Linux)."""
    chosen: dict[tuple[str, str], Path] = {}
    for cpu in _cpus():
        for kind, older in (("core", "thread_siblings_list"), ("package", "core_siblings_list")):
            path = cpu / "thermal_throttle" / f"{kind}_throttle_count"
            if path.exists():
                mates = (_short(cpu / "topology" / name) for name in (f"{kind}_cpus_list", older))
                chosen.setdefault((kind, next(filter(None, mates), cpu.name)), path)
    return list(chosen.values())


def _frequency_files() -> list[Path]:
    found = [path for cpu in _cpus() if (path := cpu / "cpufreq" / "scaling_cur_freq").exists()]
    return found[:: -(-len(found) // _MAX_FREQUENCIES)] if found else []


def _short(path: Path) -> str:
    try:
        return sysfs.read_text(path)
    except (OSError, ValueError):
        return ""


def _total(texts: Sequence[str]) -> int:
    return sum(_count(text) for text in texts)


def _mean_hz(texts: Sequence[str]) -> int:
    """Return the mean of frequencies in kHz, in Hz."""
    hertz = 1000 * _total(texts) // len(texts)
    if hertz == 0:
        raise ValueError("it is zero")
    return hertz


def _swapped(texts: Sequence[str]) -> int:
    """Return the pages swapped in and out since boot (proc(5): pswpin and pswpout of vmstat)."""
    words = texts[0]
    counts = []
    for name in ("\npswpin ", "\npswpout "):
        _, found, rest = words.partition(name)
        if not found:
            raise ValueError("the kernel counts no swapped pages")
        counts.append(_count(rest.partition("\n")[0]))
    return sum(counts)


def _waited_us(texts: Sequence[str]) -> int:
    return total_us(texts[0])


def _count(text: str) -> int:
    digits = text.strip()
    if not digits.isdigit() or len(digits) > _MAX_DIGITS:
        raise ValueError(f"it says {digits[:32]!r}, not a count")
    return int(digits)
