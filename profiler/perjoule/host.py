"""Facts about the machine that name no person, host, path or address; read from sysfs and procfs.

``PERJOULE_SYSFS`` and ``PERJOULE_PROCFS`` say where the host's trees are mounted, for containers.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from perjoule.errors import HostError
from perjoule.records import UNSET, CpuCache, CpuFacts, HostFacts, Reason, Record

if TYPE_CHECKING:
    from collections.abc import Iterator

_GIB = 1 << 30
_DRIVER_TIMEOUT_S = 15.0
# the instruction sets that decide how fast quantized matrices run
_ISA = (
    "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm",
    "sve",
)  # fmt: skip
_SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_MAX_FILE_BYTES = 1 << 16  # no file read here needs more
_MAX_DIGITS = 15
_MAX_CACHE_BYTES = 1 << 40
_MAX_CGROUP_DEPTH = 64
# What product_name and sys_vendor of class/dmi/id say in guests. A vendor alone proves nothing: Microsoft, Google and
# Amazon build machines too. The clouds' metal instances carry the same names, so x86 asks for the CPU flag as well.
_DMI = {
    "kvm": "kvm", "openstack": "kvm", "kubevirt": "kvm", "amazon ec2": "amazon", "google compute engine": "google",
    "alibaba cloud ecs": "kvm", "microsoft corporation virtual machine": "microsoft", "vmware": "vmware",
    "virtualbox": "virtualbox", "parallels": "parallels", "bhyve": "bhyve", "hvm domu": "xen",
    "apple virtualization": "apple", "bochs": "bochs",
}  # fmt: skip
# Clocks that a kernel offers only where it found that hypervisor: kvmclock.c, hyperv_timer.c, xen/time.c of Linux.
_CLOCKS = {"kvm-clock": "kvm", "hyperv_clocksource_": "microsoft", "xen": "xen"}
# MIDR_EL1 implementer and part numbers, as in lscpu of util-linux.
_ARM_VENDORS = {
    0x41: "ARM", 0x42: "Broadcom", 0x43: "Cavium", 0x46: "Fujitsu", 0x48: "HiSilicon", 0x4E: "NVIDIA", 0x50: "APM",
    0x51: "Qualcomm", 0x53: "Samsung", 0x56: "Marvell", 0x61: "Apple", 0x6D: "Microsoft", 0xC0: "Ampere",
}  # fmt: skip
_ARM_PARTS = {
    (0x41, 0xD03): "Cortex-A53", (0x41, 0xD05): "Cortex-A55", (0x41, 0xD08): "Cortex-A72", (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1", (0x41, 0xD40): "Neoverse-V1", (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4F): "Neoverse-V2", (0xC0, 0xAC3): "Ampere-1",
}  # fmt: skip
# System Enclosure or Chassis Types of SMBIOS (DMTF DSP0134); others, such as 1 (other) in most guests, say nothing.
_CHASSIS = {
    "laptop": (8, 9, 10, 11, 14, 30, 31, 32),
    "desktop": (3, 4, 5, 6, 7, 13, 15, 16, 24, 35, 36),
    "server": (17, 23, 25, 28, 29),
}


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
    mounts = (_text(Path("/proc/self/mounts"), limit=-1) or "").splitlines()
    return any(line.split()[1:3] == [real, kind] for line in mounts)


def read_cpu_times() -> CpuTimes:
    """Read the first line of /proc/stat: user, nice, system, irq and softirq are busy; steal is apart (proc(5)).

    Raises ``HostError`` where the file is missing or is not what the kernel writes: without it nobody can tell
    whether others used the machine.
    """
    path = procfs_root() / "stat"
    cores = os.cpu_count() or 1
    if sys.platform != "linux" and not path.exists():
        import psutil  # noqa: PLC0415 - the meter layer needs none of it to be imported

        times = psutil.cpu_times()
        busy = times.user + times.system + getattr(times, "nice", 0.0)
        return CpuTimes(busy_s=busy, steal_s=0.0, cores=cores)
    head, *ticks = (_text(path) or "").partition("\n")[0].split() or [""]
    fields = [_int(x) for x in ticks[:8]]
    known = [x for x in fields if x is not None]
    if head != "cpu" or len(known) < 4 or len(known) < len(fields):  # noqa: PLR2004 - user, nice, system, idle
        hint = "mount the kernel's procfs, or point PERJOULE_PROCFS at it"
        raise HostError(f"{path} does not hold the CPU times of this machine", hint=hint)
    user, nice, system, _idle, _iowait, irq, softirq, steal = [*known, 0, 0, 0, 0][:8]
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    return CpuTimes(busy_s=(user + nice + system + irq + softirq) * tick_s, steal_s=steal * tick_s, cores=cores)


def default_threads() -> int:
    """Return min(physical cores, cores this process may run on, cgroup CPU limit), at least 1."""
    import psutil  # noqa: PLC0415

    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed, int(cgroup_cpus() or physical)))


def cgroup_cpus() -> float | None:
    """Return the smallest CPU limit, in cores, of this process's cgroup and all above it; None where there is none.

    v2: cpu.max holds quota and period. v1: cpu.cfs_quota_us (-1: no limit) and cpu.cfs_period_us. An ancestor may
    allow less than its child (cgroups(7)).
    """
    limits = []
    for folder in _cgroups():
        quota, _, period = (_text(folder / "cpu.max") or "").partition(" ")
        if not period:
            quota, period = (_text(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period"))
        quota_us, period_us = _int(quota), _int(period)
        if quota_us and period_us:
            limits.append(quota_us / period_us)
    return min(limits, default=None)


def _cgroups() -> Iterator[Path]:
    """Yield the folders of this process's CPU cgroups, own and above, in every place they are mounted by custom.

    In a container the path may be the host's while only a part of the tree is mounted: folders that are not there
    are passed over when they are read, and the mount itself is always among them.
    """
    root = sysfs_root() / "fs" / "cgroup"
    for line in (_text(procfs_root() / "self" / "cgroup") or "0::/").splitlines():
        _number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = ("cpu", "cpu,cpuacct", "cpuacct,cpu") if controllers else (".", "unified")
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")][:_MAX_CGROUP_DEPTH]
        for mount in mounts:
            yield from (root / mount / Path(*parts[:depth]) for depth in range(len(parts) + 1))


def read_host(libraries: dict[str, str]) -> HostFacts:
    """Read the facts that a result carries."""
    import platform  # noqa: PLC0415

    import psutil  # noqa: PLC0415

    from perjoule.meters import nvml  # noqa: PLC0415 - only where facts are read
    from perjoule.meters.guard import within  # noqa: PLC0415

    cpu = read_cpu()
    memory = psutil.virtual_memory().total
    hypervisor, why_not = _virtualization()
    gpus = within(nvml.gpu_facts, _DRIVER_TIMEOUT_S, ())
    return HostFacts(
        os=platform.system(),
        kernel=platform.release().split("-")[0],
        cpu=cpu,
        memory_bytes=memory,
        gpus=gpus,
        virtualization=hypervisor,
        virtualization_missing=why_not,
        container=_container(),
        libraries=libraries,
        machine_id=machine_id(cpu, memory, tuple(gpu.name for gpu in gpus), hypervisor),
        simulated=simulated(),
    )


def machine_id(cpu: CpuFacts, memory_bytes: int, gpus: tuple[str, ...], hypervisor: str | None) -> str:
    """Return a short hash of what kind of machine this is; two machines of one kind share it."""
    facts = [
        cpu.vendor, cpu.family, cpu.model, cpu.stepping, cpu.cores_visible, cpu.threads,
        round(memory_bytes / _GIB), list(gpus), hypervisor,
    ]  # fmt: skip
    import hashlib  # noqa: PLC0415

    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()[:12]


def chassis() -> str | None:
    """Return what the firmware says this machine is: laptop, desktop or server; None where it says nothing useful."""
    kind = _int(_text(sysfs_root() / "class/dmi/id/chassis_type"))
    return next((name for name, kinds in _CHASSIS.items() if kind in kinds), None)


def read_cpu() -> CpuFacts:
    """Read what is known of the CPU. ARM: family is the architecture, model the part, stepping the revision."""
    import platform  # noqa: PLC0415

    import psutil  # noqa: PLC0415

    info = _cpuinfo()
    governor = _text(sysfs_root() / "devices/system/cpu/cpu0/cpufreq/scaling_governor") or None
    khz = _int(_text(sysfs_root() / "devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"))
    hidden = "the kernel shows no cpufreq here"
    flags = set((info.get("flags") or info.get("Features") or "").split())
    implementer, part = _int(info.get("CPU implementer"), 16), _int(info.get("CPU part"), 16)
    arm = _ARM_VENDORS.get(implementer or 0) or info.get("CPU implementer")
    arm_name = _ARM_PARTS.get((implementer or 0, part or 0)) or (f"{arm} part {part:#x}" if arm and part else None)
    return CpuFacts(
        vendor=info.get("vendor_id") or arm or "unknown",
        family=_int(info.get("cpu family") or info.get("CPU architecture")),
        model=part if part is not None else _int(info.get("model")),
        stepping=_int(info.get("stepping") or info.get("CPU revision")),
        name=info.get("model name") or arm_name or platform.machine(),
        isa=tuple(name for name in _ISA if name in flags),
        cores_visible=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        threads=os.cpu_count() or 1,
        quota_cores=cgroup_cpus(),
        governor=governor,
        governor_missing=UNSET if governor else hidden,
        freq_max_hz=None if khz is None else khz * 1000.0,
        freq_max_hz_missing=hidden if khz is None else UNSET,
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
        level, size = _int(_text(folder / "level")), _text(folder / "size") or " "
        kind, amount = _text(folder / "type"), _int(size[:-1])
        size_bytes = (amount or 0) * _SIZES.get(size[-1], 0)
        if level and kind and 0 < size_bytes <= _MAX_CACHE_BYTES:
            caches.append(CpuCache(level=level, kind=kind.lower(), size_bytes=size_bytes))
    return tuple(caches)


def _virtualization() -> tuple[str | None, Reason]:
    """Name the hypervisor class: what a guest cannot see decides how wide modelled energy must be."""
    info, named = _cpuinfo(), _hypervisor()
    if "flags" not in info:  # only x86 has a CPU flag for it
        return named, UNSET if named else "nothing here names a hypervisor: taken as bare metal"
    if "hypervisor" in info["flags"].split():
        return named or "unknown hypervisor", UNSET
    return None, "no hypervisor flag: bare metal"


def _hypervisor() -> str | None:
    """Return what the kernel, the firmware, the clocks or the device tree call the hypervisor, if one of them does."""
    kernel = _text(sysfs_root() / "hypervisor/type")
    if kernel:
        return kernel
    vendor, product = (_text(sysfs_root() / "class/dmi/id" / name) or "" for name in ("sys_vendor", "product_name"))
    firmware = f"{vendor} {product}".lower()
    if "flags" not in _cpuinfo() and ".metal" in firmware:
        return None  # a whole machine of a cloud, named like the shares of one
    tree = procfs_root() / "device-tree"
    device = (_text(tree / "hypervisor/compatible") or "").lower()
    clocks = _text(sysfs_root() / "devices/system/clocksource/clocksource0/available_clocksource") or ""
    found = [name for text, name in _DMI.items() if text in firmware]
    found += [name for name in ("kvm", "xen", "vmware") if name in device]
    found += [name for clock, name in _CLOCKS.items() if clock in clocks]
    found += ["qemu"] if "qemu" in firmware or any(tree.glob("fw-cfg*")) else []
    found += ["unknown hypervisor"] if device else []
    return found[0] if found else None


def _container() -> str | None:
    if Path("/.dockerenv").exists():
        return "docker"
    return "podman" if Path("/run/.containerenv").exists() else None


def _text(path: Path, limit: int = _MAX_FILE_BYTES) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(limit).decode(errors="replace").strip()
    except (OSError, ValueError):  # ValueError: a NUL in a path that a file named
        return None  # a file that this kernel does not have is an absent fact, not a failure


def _int(text: str | None, base: int = 10) -> int | None:
    """Return a whole number of believable length that is not negative; None for anything else."""
    try:
        number = int(text or "", base)
    except ValueError:
        return None
    return number if 0 <= number < 10**_MAX_DIGITS else None
