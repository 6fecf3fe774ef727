"""`verify --deep`: raw parts that one machine, one clock and one seed cannot have given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from published_results import publishable

from perjoule.assemble import derive
from perjoule.plausibility import implausible
from perjoule.records import GapHistogram
from perjoule.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from perjoule.records import RunResult

RESULT = publishable()


def replaced(record: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(record, **changes)


def other_stamp(r: RunResult) -> dict[str, Any]:
    window = r.windows[4]
    return {"windows": (*r.windows[:4], replaced(window, start_s=window.start_s - 0.01), *r.windows[5:])}


def at_once(r: RunResult) -> dict[str, Any]:
    times = r.samples[3].token_times_s or ()
    same = replaced(r.samples[3], token_times_s=(times[0], times[0], *times[2:]))
    return {"samples": (*r.samples[:3], same, *r.samples[4:])}


def busy(name: str) -> Callable[[RunResult], dict[str, Any]]:
    def change(r: RunResult) -> dict[str, Any]:
        return {"windows": (replaced(r.windows[0], **{name: 99.0}), *r.windows[1:])}

    return change


def early(r: RunResult) -> dict[str, Any]:
    return {"processes": (replaced(r.processes[0], load_s=50.0), *r.processes[1:])}


def two_at_a_time(r: RunResult) -> dict[str, Any]:
    return {"processes": (*r.processes[:1], replaced(r.processes[1], start_s=101.0), *r.processes[2:])}


def another_prompt(r: RunResult) -> dict[str, Any]:
    return {"samples": (replaced(r.samples[0], prompt_tokens=3), *r.samples[1:])}


def other_machine(r: RunResult) -> dict[str, Any]:
    return {"host": replaced(r.host, memory_bytes=64 << 30)}


def local_time(_: RunResult) -> dict[str, Any]:
    return {"created_utc": "2026-01-02T03:04:05+01:00"}


def gaps(_: RunResult) -> dict[str, Any]:
    return {"gap_histograms": (GapHistogram(process=1, first_s=1e-4, ratio=1.01, counts=(10**6,)),)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_stamp, "its stamps are not those of its request"),
        (at_once, "at the same instant"),
        (busy("cpu_s"), "more CPU time than 2 threads have"),
        (busy("steal_s"), "steal_s is more than the machine has"),
        (busy("foreign_cpu_s"), "foreign_cpu_s is more than the machine has"),
        (early, "before the engine was loaded"),
        (two_at_a_time, "began while process"),
        (another_prompt, "with another number of tokens"),
        (other_machine, "host.machine_id"),
        (local_time, "not in UTC"),
        (gaps, "more gaps than its requests have"),
    ],
)
def test_what_cannot_be_is_said(change: Callable[[RunResult], dict[str, Any]], says: str):
    found = implausible(replaced(RESULT, **change(RESULT)))
    assert any(says in line for line in found), found


def test_an_edit_that_derives_cleanly_is_found_by_the_deep_look_alone():
    """Whoever changes raw parts and derives everything again passes ``verify``, not this."""
    forged = derive(replaced(RESULT, **early(RESULT)))
    assert verify(forged) == []
    assert implausible(forged)


def test_a_plausible_result_has_nothing_against_it():
    assert implausible(RESULT) == []


@pytest.mark.parametrize(("bound", "value"), [("floor_j", 1e9), ("ceiling_j", 1e-9)])
def test_joules_outside_what_physics_allows(bound: str, value: float):
    energy = replaced(RESULT.energy, **{bound: value, f"{bound}_missing": msgspec.UNSET})
    assert any(line.startswith("energy.headline") for line in implausible(replaced(RESULT, energy=energy)))
