"""A machine with somebody's names, addresses and serial numbers in every file that a host fact or sensor is read from.

The files are found by reading: whatever the host's facts and the sensors of a full made-up machine read is planted, one
file after the other, so that a new reader is covered without anybody thinking of it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from published_results import publishable
from simulated import add_domain, add_grace, add_hwmon, add_ina3221, add_power_pmu, add_supply, sysfs_of, use_tree
from simulated import write_files as put

from perjoule import host
from perjoule.assemble import derive
from perjoule.errors import PerjouleError
from perjoule.meters import DEFAULT_METERS, build, sysfs
from perjoule.publish.gate import examine
from perjoule.publish.private import Identity
from perjoule.records import HostFacts, MeterFact, MeterRefusal
from perjoule.store.write import encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WHO = Identity(words=("mallory", "vault-17"))
HOME = "/ho" + "me/mallory"
SECRETS = (
    "mallory", "vault-17", "10.11.12.13", "fe80::7:1", "de:ad:be:ef:00:01", "WD40EFRX123", f"{HOME}/tiny.gguf",
    "mallory@example.org", "Europe/Berlin",
)  # fmt: skip
SENSORS = tuple(name for name in DEFAULT_METERS if name != "nvml")  # whose driver reads no text of these trees


@pytest.fixture(params=["kernel", "firmware"])
def machine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Build a machine that has every file some reader looks for; who names the hypervisor decides what else is read."""
    powercap = use_tree(tmp_path, monkeypatch)
    tree = sysfs_of(powercap)
    add_domain(powercap, "intel-rapl:0", "package-0")
    add_domain(powercap, "intel-rapl:0:0", "dram")
    add_hwmon(tree, 0, "amd_energy", energy1_input=1000, energy1_label="Esocket0")
    add_hwmon(tree, 1, "amdgpu", power1_average=10_000_000, power1_label="PPT")
    add_ina3221(tree, 2, ("VDD_IN", 5000, 1000))
    add_grace(tree, 3, "Module Power Socket 0", 50_000_000)
    add_supply(tree, "BAT0", "Battery", status="Discharging", power_now=8_000_000, scope="System", present=1,
               manufacturer="M", model_name="B", serial_number="1")  # fmt: skip
    add_power_pmu(tree, {"energy-pkg": 2}, {0: (0, 0)})
    cpu = tree / "devices/system/cpu/cpu0"
    put(cpu / "cpufreq", scaling_governor="performance", cpuinfo_max_freq=3_000_000)
    put(cpu / "cache/index0", level=1, type="Data", size="32K")
    if request.param == "kernel":
        put(tree / "hypervisor", type="xen")
    put(tree / "class/dmi/id", sys_vendor="QEMU", product_name="Standard PC", chassis_type=1, product_serial="1")
    put(tree / "devices/system/clocksource/clocksource0", available_clocksource="tsc kvm-clock")
    put(tree / "fs/cgroup", **{"cpu.max": "100000 100000"})
    put(tmp_path / "proc/self", cgroup="0::/")
    put(tmp_path / "proc/sys/kernel", perf_event_paranoid=0)
    put(tmp_path / "proc/device-tree/hypervisor", compatible="xen")
    return tmp_path


class Planted:
    """Stands in for the two functions that read a text from those trees, and puts a secret into one file."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.read: dict[Path, None] = {}
        self.at: Path | None = None
        self.secret: Callable[[str], str] = str
        patch.setattr(host, "_text", partial(self._text, host._text))
        patch.setattr(sysfs, "read_text", partial(self._text, sysfs.read_text))

    def _text(self, real: Callable[..., Any], path: Path, *more: Any, **named: Any) -> Any:
        found = real(path, *more, **named)
        if found is not None:
            self.read[path] = None
        return self.secret(found) if path == self.at and found is not None else found


def seen() -> tuple[HostFacts, list[MeterFact], list[MeterRefusal]]:
    """Return what a run would write down of this machine."""
    facts: list[MeterFact] = []
    refused: list[MeterRefusal] = []
    for name in SENSORS:
        meter = build(name)
        try:
            probe = meter.probe()
        except (PerjouleError, OSError, ValueError) as error:
            refused.append(MeterRefusal(meter=name, reason=str(error), fix="look"))
            continue
        finally:
            meter.close()
        taken = {fact.domain for fact in facts}
        facts += [fact for fact in probe.domains if fact.domain not in taken]
        refused += probe.refusals
    return msgspec.structs.replace(host.read_host({"numpy": "2.0.0"}), simulated=False), facts, refused


def leaked(path: Path, secret: str) -> bool:
    """Tell whether a result of this machine may be published with the secret in it."""
    facts, meters, refused = seen()
    bare = tuple(msgspec.structs.replace(fact, simulated=False) for fact in meters)
    result = publishable(host=facts, meters=bare, meters_refused=tuple(refused))
    path.write_bytes(encode(result))
    candidate = examine(path, WHO)
    published = candidate.result is not None and not candidate.against
    return published and secret.encode() in encode(candidate.result)


def test_the_machine_has_what_is_read(machine: Path, monkeypatch: pytest.MonkeyPatch):
    named = "sys/hypervisor/type" if (machine / "sys/hypervisor").exists() else "sys/class/dmi/id/sys_vendor"
    planted = Planted(monkeypatch)
    _, meters, refused = seen()
    names = {path.relative_to(machine).as_posix() for path in planted.read if machine in path.parents}
    assert {m.domain for m in meters}
    assert len(refused) < 40
    assert {
        "proc/cpuinfo", named, "sys/class/powercap/intel-rapl:0/name", "sys/class/hwmon/hwmon1/name",
        "sys/class/power_supply/BAT0/status", "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
        "sys/devices/system/cpu/cpu0/cache/index0/type",
    } <= names  # fmt: skip
    assert not [name for name in names if "serial" in name], "a serial number is never looked at"


def test_nothing_planted_in_any_file_that_is_read_is_published(machine: Path, monkeypatch: pytest.MonkeyPatch):
    planted = Planted(monkeypatch)
    seen()
    wrong = []
    for path in list(planted.read):
        for n, secret in enumerate(SECRETS):
            planted.at = path
            # alone, or where a name is expected: behind what was there, in every line
            planted.secret = (lambda _, s=secret: s) if n % 2 else (lambda text, s=secret: behind(text, s))
            if leaked(machine / "r.json", secret):
                wrong.append((str(path), secret))
    assert len(planted.read) > 30
    assert wrong == []


def behind(text: str, secret: str) -> str:
    return "\n".join(f"{line} {secret}" for line in text.splitlines())


@pytest.mark.parametrize("secret", SECRETS)
def test_nor_what_stands_in_the_environment_a_path_an_option_or_a_note(
    secret: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("USER", "LOGNAME", "HOSTNAME", "HOME", "PERJOULE_CACHE", "PYTHONPATH", "TZ"):
        monkeypatch.setenv(name, secret)
    result = publishable()
    note = MeterFact(domain="wall", scope="wall", kind="gauge", label="measured", grade="plug", tick_s=1.0,
                     source=f"plug at {secret}", note=f"asked {secret}")  # fmt: skip
    refused = MeterRefusal(meter="shelly", reason=f"{secret} is silent", fix=f"ask {secret}", domain="wall")
    options = {**result.backend.effective_options, "file": secret, secret: 1}
    backend = msgspec.structs.replace(result.backend, effective_options=options, requested_options={"extra": secret})
    model = msgspec.structs.replace(result.model, ref=secret)
    settings = msgspec.structs.replace(result.settings, meters=(f"csv:{secret}",))
    for changes in (
        {"meters": (note,)}, {"meters_refused": (refused,)}, {"model": model}, {"settings": settings},
        {"reproduce": f"perjoule run --model {secret} --meter csv:{secret}"}, {"backend": backend}, {},
    ):  # fmt: skip
        made = publishable(**{k: v for k, v in changes.items() if k != "backend"})
        if "backend" in changes:
            made = derive(msgspec.structs.replace(made, backend=backend))
        file = tmp_path / "r.json"
        file.write_bytes(encode(made))
        candidate = examine(file, WHO)
        if candidate.result is not None and not candidate.against:
            assert secret.encode() not in encode(candidate.result), changes
            assert secret not in str(candidate.row), changes
