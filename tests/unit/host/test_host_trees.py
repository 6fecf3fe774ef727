"""Host facts from made-up trees: CPU limits, hypervisors, ARM, chassis, and files that hold anything at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated import use_tree

from perjoule import host
from perjoule.errors import HostError

if TYPE_CHECKING:
    from pathlib import Path

X86 = "flags\t\t: fpu avx2 hypervisor\n"
ARM = (
    "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd asimddp sve i8mm\nCPU implementer\t: 0x41\n"
    "CPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: 0xd40\nCPU revision\t: 1\n\n"
)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_tree(tmp_path, monkeypatch)
    return tmp_path


def put(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000", "cpu.max": "400000 100000"}, 1.5),
        ("0::/a\n", {"a/cpu.max": "50000 100000"}, 0.5),
        ("0::/not/mounted/here\n", {"cpu.max": "200000 100000"}, 2.0),
        ("0::/../outside\n", {"cpu.max": "200000 100000"}, 2.0),
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        (
            "4:cpu,cpuacct:/x\n0::/\n",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "-1", "cpu,cpuacct/x/cpu.cfs_period_us": "100000",
             "cpu,cpuacct/cpu.cfs_quota_us": "300000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            3.0,
        ),
        ("2:cpuset:/x\n", {"cpu/x/cpu.cfs_quota_us": "1", "cpu/x/cpu.cfs_period_us": "1"}, None),
        ("0::/a\n", {"unified/a/cpu.max": "250000 100000"}, 2.5),
    ],
)  # fmt: skip
def test_the_smallest_cpu_limit_from_own_cgroup_to_the_root(
    tree: Path, groups: str, files: dict[str, str], cores: float | None
) -> None:
    put(tree / "proc/self/cgroup", groups)
    for name, text in files.items():
        put(tree / "sys/fs/cgroup" / name, f"{text}\n")
    assert host.cgroup_cpus() == cores
    assert host.read_host({}).cpu.quota_cores == cores


@pytest.mark.parametrize(
    "text", ["", "max", "100000", "x y", "-1 100000", "100000 0", "1 2 3", "9" * 400 + " 1", "² 1"]
)
def test_a_malformed_cpu_limit_is_no_limit(tree: Path, text: str) -> None:
    put(tree / "sys/fs/cgroup/cpu.max", text)
    assert host.cgroup_cpus() is None
    assert host.default_threads() >= 1


def test_a_limit_below_one_core_still_leaves_a_thread(tree: Path) -> None:
    put(tree / "sys/fs/cgroup/cpu.max", "10000 100000")
    assert host.default_threads() == 1


CLOCKS = "devices/system/clocksource/clocksource0/available_clocksource"


@pytest.mark.parametrize(
    ("cpuinfo", "files", "name"),
    [
        (X86, {CLOCKS: "tsc kvm-clock"}, "kvm"),
        (X86, {CLOCKS: "hyperv_clocksource_tsc_page acpi_pm"}, "microsoft"),
        (X86, {CLOCKS: "tsc xen"}, "xen"),
        (X86, {CLOCKS: "tsc hpet"}, "unknown hypervisor"),
        (X86, {"hypervisor/type": "xen", CLOCKS: "tsc"}, "xen"),
        (X86, {"class/dmi/id/sys_vendor": "Amazon EC2", "class/dmi/id/product_name": "m7a.large"}, "amazon"),
        (X86, {"class/dmi/id/sys_vendor": "QEMU", CLOCKS: "tsc kvm-clock"}, "kvm"),
        (X86, {"class/dmi/id/sys_vendor": "QEMU", CLOCKS: "tsc"}, "qemu"),
        (X86, {"class/dmi/id/sys_vendor": "VMware, Inc."}, "vmware"),
        ("flags\t: fpu\n", {"class/dmi/id/sys_vendor": "Amazon EC2", "class/dmi/id/product_name": "c5.metal"}, None),
        ("flags\t: fpu\n", {"class/dmi/id/sys_vendor": "Google", CLOCKS: "tsc hpet"}, None),
        (ARM, {"class/dmi/id/sys_vendor": "Amazon EC2", "class/dmi/id/product_name": "c7g.large"}, "amazon"),
        (ARM, {"class/dmi/id/sys_vendor": "Amazon EC2", "class/dmi/id/product_name": "c7g.metal"}, None),
        (ARM, {"../proc/device-tree/hypervisor/compatible": "linux,kvm\0"}, "kvm"),
        (ARM, {"../proc/device-tree/fw-cfg@9020000/reg": "x"}, "qemu"),
        (ARM, {"../proc/device-tree/model": "Raspberry Pi 5\0"}, None),
    ],
)
def test_hypervisors_are_named_by_what_they_leave_behind(
    tree: Path, cpuinfo: str, files: dict[str, str], name: str | None
) -> None:
    put(tree / "proc/cpuinfo", cpuinfo)
    for path, text in files.items():
        put(tree / "sys" / path, text)
    facts = host.read_host({})
    assert facts.virtualization == name
    assert (facts.virtualization_missing is msgspec.UNSET) is (name is not None)


def test_arm_cpus_are_told_by_implementer_and_part(tree: Path) -> None:
    put(tree / "proc/cpuinfo", ARM)
    cpu = host.read_cpu()
    assert (cpu.vendor, cpu.family, cpu.model, cpu.stepping, cpu.name) == ("ARM", 8, 0xD40, 1, "Neoverse-V1")
    assert cpu.isa == ("asimd", "asimddp", "i8mm", "sve")


@pytest.mark.parametrize(
    ("text", "kind"),
    [("9", "laptop"), ("10", "laptop"), ("3", "desktop"), ("23", "server"), ("1", None), ("x", None), ("", None)],
)
def test_the_chassis_is_what_the_firmware_says(tree: Path, text: str, kind: str | None) -> None:
    put(tree / "sys/class/dmi/id/chassis_type", text)
    assert host.chassis() == kind


@pytest.mark.parametrize("text", ["", "cpu", "cpu 1 2 3", "cpu a b c d", "cpu -1 2 3 4", "intr 1 2 3 4", "\0" * 9])
def test_cpu_times_that_are_none_name_the_file(tree: Path, text: str) -> None:
    put(tree / "proc/stat", text)
    with pytest.raises(HostError, match=r"proc/stat") as caught:
        host.read_cpu_times()
    assert caught.value.hint


def test_cpu_times_without_their_file_name_the_file(tree: Path) -> None:
    (tree / "proc/stat").unlink()
    with pytest.raises(HostError, match=r"proc/stat"):
        host.read_cpu_times()


def test_old_kernels_know_no_steal(tree: Path) -> None:
    put(tree / "proc/stat", "cpu 10 0 5 100\n")
    times = host.read_cpu_times()
    assert times.busy_s > 0
    assert times.steal_s == 0


def test_the_names_of_gpus_are_part_of_the_kind_of_machine(tree: Path) -> None:
    cpu = host.read_cpu()
    assert tree.exists()
    assert host.machine_id(cpu, 2**33, ("A",), None) != host.machine_id(cpu, 2**33, ("B",), None)


ODD_FILES = (
    "proc/cpuinfo", "proc/self/cgroup", "sys/fs/cgroup/cpu.max", "sys/hypervisor/type", f"sys/{CLOCKS}",
    "sys/class/dmi/id/sys_vendor", "sys/class/dmi/id/chassis_type",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "sys/devices/system/cpu/cpu0/cache/index0/level", "sys/devices/system/cpu/cpu0/cache/index0/size",
    "sys/devices/system/cpu/cpu0/cache/index0/type",
)  # fmt: skip
PIECES = st.sampled_from(
    [b"0::/", b"/a", b"..", b"\0", b"\xff", b"9" * 30, b"-1", b"1K", b"9G", b" ", b"\n", b"model : ", b"CPU part : 0x",
     b"flags : hypervisor", b"1:cpu:/", b":", "²".encode()]
)  # fmt: skip


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.lists(PIECES, max_size=6).map(b"".join), min_size=len(ODD_FILES), max_size=len(ODD_FILES)))
def test_whatever_the_files_hold_there_are_facts(tree: Path, texts: list[bytes]) -> None:
    for name, text in zip(ODD_FILES, texts, strict=True):
        put(tree / name, text)
    facts = host.read_host({})
    host.chassis()
    assert host.default_threads() >= 1
    assert msgspec.json.decode(msgspec.json.encode(facts), type=type(facts)) == facts
