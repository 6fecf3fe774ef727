"""The RAPL reader on trees like the kernel's, and the facts of a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from perjoule import host
from perjoule.meters import open_meters
from perjoule.meters.powercap import PowercapMeter
from perjoule.protocols import Count

if TYPE_CHECKING:
    from pathlib import Path

CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Some Xeon
stepping\t: 8
flags\t\t: fpu avx2 avx512f amx_int8

processor\t: 1
vendor_id\t: GenuineIntel
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with one package, its DRAM, a platform domain at index 1, and the MMIO twin of the package."""
    monkeypatch.setenv("PERJOULE_SYSFS", str(tmp_path / "sys"))
    monkeypatch.setenv("PERJOULE_PROCFS", str(tmp_path / "proc"))
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(CPUINFO)
    (tmp_path / "proc" / "stat").write_text("cpu  100 0 50 800 5 1 2 7 0 0\n")
    for folder, name in (
        ("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "dram"), ("intel-rapl:1", "psys"),
        ("intel-rapl-mmio:0", "package-0"),
    ):  # fmt: skip
        domain = tmp_path / "sys/class/powercap" / folder
        domain.mkdir(parents=True)
        (domain / "name").write_text(name + "\n")
        (domain / "energy_uj").write_text("1000\n")
        (domain / "max_energy_range_uj").write_text("65532610987\n")
    return tmp_path / "sys/class/powercap"


def test_domains_are_told_apart_by_name_and_the_twin_is_left_out(tree: Path):
    probe = PowercapMeter().probe()
    assert tree.exists()
    assert [d.domain for d in probe.domains] == ["package-0", "package-0:dram", "psys"]
    assert all(d.simulated for d in probe.domains)
    assert probe.domains[0].wrap_count == 65532610988
    assert probe.domains[1].grade == "rapl-dram"


def test_counts_are_read_raw(tree: Path):
    (tree / "intel-rapl:0" / "energy_uj").write_text("4242\n")
    with open_meters(["rapl-powercap"]) as meters:
        counts = {r.domain: r.count for r in meters.read() if isinstance(r, Count)}
    assert counts["package-0"] == 4242


@pytest.mark.parametrize("text", ["", "garbage", "-5", "1.5", "9" * 5 + "x"])
def test_a_malformed_counter_is_refused_with_a_reason(tree: Path, text: str):
    (tree / "intel-rapl:0" / "energy_uj").write_text(text)
    probe = PowercapMeter().probe()
    assert "package-0" not in [d.domain for d in probe.domains]
    assert any("not a count" in r.reason for r in probe.refusals)


def test_a_counter_that_vanishes_is_a_refusal_not_a_zero(tree: Path):
    meter = PowercapMeter()
    meter.probe()
    (tree / "intel-rapl:0" / "energy_uj").unlink()
    domains = [r.domain for r in meter.read() if isinstance(r, Count)]
    assert "package-0" not in domains
    assert len(meter.read()) == 3


def test_no_rapl_is_refused_with_a_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PERJOULE_SYSFS", str(tmp_path))
    probe = PowercapMeter().probe()
    assert not probe.domains
    assert probe.refusals[0].fix


def test_host_facts_name_the_cpu_and_nothing_private(tree: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host.platform, "node", lambda: "secret-host-name")
    facts = host.read_host({"numpy": "2"})
    assert (facts.cpu.family, facts.cpu.model, facts.cpu.isa) == (6, 143, ("avx2", "avx512f", "amx_int8"))
    assert facts.simulated
    assert "secret-host-name" not in str(facts)
    assert str(tree) not in str(facts)


def test_busy_time_leaves_out_idle_waiting_and_stolen_time(tree: Path):
    assert tree.exists()
    times = host.read_cpu_times()
    assert times.busy_s == pytest.approx(1.53)
    assert times.steal_s == pytest.approx(0.07)
