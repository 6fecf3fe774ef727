"""Results that may be published, for tests: unlike the builders' they are plausible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from builders import make_host, make_process, make_raw

from perjoule.assemble import assemble
from perjoule.host import machine_id

if TYPE_CHECKING:
    from perjoule.measure import ProcessRun
    from perjoule.records import HostFacts, RunResult


def host(**changes: Any) -> HostFacts:
    made = make_host(**changes)
    gpus = tuple(gpu.name for gpu in made.gpus)
    return msgspec.structs.replace(made, machine_id=machine_id(made.cpu, made.memory_bytes, gpus, made.virtualization))


def process(number: int, **changes: Any) -> ProcessRun:
    """Return a process that was started in time to be loaded when its first request came."""
    made = make_process(number + 1, **changes)
    return msgspec.structs.replace(made, record=msgspec.structs.replace(made.record, start_s=100.0 * number + 90))


def publishable(**changes: Any) -> RunResult:
    return assemble(make_raw(**{"host": host(), "runs": tuple(process(p) for p in range(5)), **changes}))
