"""Facts about the machine that name no person, host, path or address; read from sysfs and procfs.

``PERJOULE_SYSFS`` and ``PERJOULE_PROCFS`` say where the host's trees are mounted, for containers.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path

import msgspec
import psutil

from perjoule.records import UNSET, CpuCache, CpuFacts, HostFacts, Reason, Record

_GIB = 1 << 30
# the instruction sets that decide how fast quantized matrices run
_ISA = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)
_SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class CpuTimes(Record, frozen=True, kw_only=True):
    """CPU seconds of the whole machine since boot: busy on all cores, and stolen by the hypervisor."""

    busy_s: float
    steal_s: float
    cores: int


def sysfs_root() -> Path:
    return Path(os.environ.get("PERJOULE_SYSFS", "/sys"))


def procfs_root() -> Path:
    return Path(os.environ.get("PERJOULE_PROCFS", "/proc"))


def simulated() -> bool:
    """Tell whether a root is not the kernel's own: what is read there proves nothing about this machine."""
    return not (_is_mount(sysfs_root(), "sysfs") and _is_mount(procfs_root(), "proc"))


def _is_mount(root: Path, kind: str) -> bool:
    if sys.platform != "linux":
        return True
    real = os.path.realpath(root)
    with Path("/proc/self/mounts").open() as mounts:
        return any(line.split()[1] == real and line.split()[2] == kind for line in mounts)


def read_cpu_times() -> CpuTimes:
    """Read the first line of /proc/stat: user, nice, system, irq and softirq are busy; steal is apart (proc(5))."""
    path = procfs_root() / "stat"
    if sys.platform != "linux" and not path.exists():
        times = psutil.cpu_times()
        busy = times.user + times.system + getattr(times, "nice", 0.0)
        return CpuTimes(busy_s=busy, steal_s=0.0, cores=os.cpu_count() or 1)
    with path.open("rb") as file:
        fields = [int(x) for x in file.readline().split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    return CpuTimes(
        busy_s=(user + nice + system + irq + softirq) * tick_s, steal_s=steal * tick_s, cores=os.cpu_count() or 1
    )


def default_threads() -> int:
    """Return min(physical cores, cores this process may run on, cgroup CPU limit), at least 1."""
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed, int(cgroup_cpus() or physical)))


def cgroup_cpus() -> float | None:
    """Return the cgroup v2 CPU limit in cores; None where there is none."""
    text = _text(sysfs_root() / "fs" / "cgroup" / "cpu.max")
    if not text or text.startswith("max"):
        return None
    quota, period = text.split()
    return int(quota) / int(period)


def read_host(libraries: dict[str, str]) -> HostFacts:
    """Read the facts that a result carries."""
    cpu = _cpu()
    memory = psutil.virtual_memory().total
    hypervisor, why_not = _virtualization()
    return HostFacts(
        os=platform.system(),
        kernel=platform.release().split("-")[0],
        cpu=cpu,
        memory_bytes=memory,
        gpus=(),
        virtualization=hypervisor,
        virtualization_missing=why_not,
        container=_container(),
        libraries=libraries,
        machine_id=machine_id(cpu, memory, (), hypervisor),
        simulated=simulated(),
    )


def machine_id(cpu: CpuFacts, memory_bytes: int, gpus: tuple[str, ...], hypervisor: str | None) -> str:
    """Return a short hash of what kind of machine this is; two machines of one kind share it."""
    facts = [
        cpu.vendor, cpu.family, cpu.model, cpu.stepping, cpu.cores_visible, cpu.threads,
        round(memory_bytes / _GIB), list(gpus), hypervisor,
    ]  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()[:12]


def _cpu() -> CpuFacts:
    info = _cpuinfo()
    governor = _text(sysfs_root() / "devices/system/cpu/cpu0/cpufreq/scaling_governor")
    frequency = _text(sysfs_root() / "devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    hidden = "the kernel shows no cpufreq here"
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return CpuFacts(
        vendor=info.get("vendor_id") or info.get("CPU implementer") or "unknown",
        family=_int(info.get("cpu family")),
        model=_int(info.get("model")),
        stepping=_int(info.get("stepping")),
        name=info.get("model name") or platform.machine(),
        isa=tuple(name for name in _ISA if name in flags),
        cores_visible=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        threads=os.cpu_count() or 1,
        quota_cores=cgroup_cpus(),
        governor=governor,
        governor_missing=UNSET if governor else hidden,
        freq_max_hz=int(frequency) * 1000.0 if frequency and frequency.isdigit() else None,
        freq_max_hz_missing=UNSET if frequency and frequency.isdigit() else hidden,
        caches=_caches(),
    )


def _cpuinfo() -> dict[str, str]:
    found: dict[str, str] = {}
    for line in (_text(procfs_root() / "cpuinfo") or "").splitlines():
        key, colon, value = line.partition(":")
        if not colon:
            if found:
                break  # the first processor is enough
            continue
        found[key.strip()] = value.strip()
    return found


def _caches() -> tuple[CpuCache, ...]:
    caches = []
    for folder in sorted((sysfs_root() / "devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (_text(folder / name) for name in ("level", "type", "size"))
        if level and kind and size and size[-1] in _SIZES and size[:-1].isdigit():
            caches.append(CpuCache(level=int(level), kind=kind.lower(), size_bytes=int(size[:-1]) * _SIZES[size[-1]]))
    return tuple(caches)


def _virtualization() -> tuple[str | None, Reason]:
    """Name the hypervisor class: what a guest cannot see decides how wide modelled energy must be."""
    flags = _cpuinfo().get("flags", "").split()
    kind = _text(sysfs_root() / "hypervisor/type")
    if kind:
        return kind, UNSET
    if "hypervisor" not in flags:
        return None, "no hypervisor flag: bare metal"
    vendor = (_text(sysfs_root() / "class/dmi/id/sys_vendor") or "").lower()
    for name in ("qemu", "vmware", "xen", "microsoft", "amazon", "google"):
        if name in vendor:
            return name, UNSET
    return "unknown hypervisor", UNSET


def _container() -> str | None:
    if Path("/.dockerenv").exists():
        return "docker"
    return "podman" if Path("/run/.containerenv").exists() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None  # a file that this kernel does not have is an absent fact, not a failure


def _int(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
