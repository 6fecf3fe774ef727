"""What a machine's id is made of, as a published folder states it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from perjoule.host import machine_id

if TYPE_CHECKING:
    from perjoule.records import HostFacts

_GIB = 1 << 30


def machine_facts(host: HostFacts) -> dict[str, Any]:
    """Return exactly the facts that ``machine_id`` is a hash of; they are the same for two machines of one kind."""
    cpu = host.cpu
    return {
        "cpu_vendor": cpu.vendor,
        "cpu_family": cpu.family,
        "cpu_model": cpu.model,
        "cpu_stepping": cpu.stepping,
        "cores": cpu.cores_visible,
        "threads": cpu.threads,
        "memory_gib": round(host.memory_bytes / _GIB),
        "gpus": [gpu.name for gpu in host.gpus],
        "hypervisor": host.virtualization,
    }


def machine_file(host: HostFacts) -> bytes:
    """Return the content of ``machine.json``, sorted, with a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(machine_facts(host), order="sorted"), indent=1) + b"\n"


def follows(host: HostFacts) -> bool:
    """Return whether ``machine_id`` is the hash of the facts beside it."""
    gpus = tuple(gpu.name for gpu in host.gpus)
    return host.machine_id == machine_id(host.cpu, host.memory_bytes, gpus, host.virtualization)
