"""A server's processes: whose CPU time counts, and what is said where it cannot be told."""

from __future__ import annotations

import os
import sys

import pytest

from perjoule import memory
from perjoule.clock import MonotonicClock, process_cpu_ns
from perjoule.errors import EngineError, UsageError
from perjoule.records import UNSET
from perjoule.server_process import ELSEWHERE, NOT_NAMED, ServerProcesses, spent_ns
from perjoule.whereabouts import cpu_fields, server_facts


class Machine:
    """Processes by id: when they were started, and their CPU time so far."""

    def __init__(self) -> None:
        self.processes = {7: (1.0, 100), 8: (2.0, 50)}

    def tree(self, pid: int) -> list[tuple[int, float]]:
        return [(p, s) for p, (s, _ns) in self.processes.items()] if pid in self.processes else []

    def cpu_ns(self, pid: int) -> int:
        if pid not in self.processes:
            raise OSError(3, "No such process")
        return self.processes[pid][1]


def test_cpu_time_is_that_of_all_of_them():
    machine = Machine()
    server = ServerProcesses(7, machine.tree, machine.cpu_ns)
    before = server.cpu_ns()
    machine.processes = {7: (1.0, 160), 8: (2.0, 90)}
    assert spent_ns(before, server.cpu_ns()) == 100


def test_one_that_ends_meanwhile_leaves_the_time_unknown():
    machine = Machine()
    server = ServerProcesses(7, machine.tree, machine.cpu_ns)
    before = server.cpu_ns()
    del machine.processes[8]
    assert "No such process" in str(spent_ns(before, server.cpu_ns()))
    server.look()
    assert "changed" in str(spent_ns(before, server.cpu_ns()))


def test_a_server_that_has_ended_is_told_even_if_another_has_its_number():
    machine = Machine()
    server = ServerProcesses(7, machine.tree, machine.cpu_ns)
    machine.processes = {7: (9.0, 1)}
    with pytest.raises(EngineError, match="has ended"):
        server.look()
    with pytest.raises(UsageError, match="no such process"):
        ServerProcesses(11, machine.tree, machine.cpu_ns)


@pytest.mark.skipif(sys.platform != "linux", reason="CPU clocks of other processes are Linux'")
def test_the_clock_of_a_process_is_its_own_cpu_time():
    before = MonotonicClock.cpu_ns()
    seen = process_cpu_ns(os.getpid())
    assert before <= seen <= MonotonicClock.cpu_ns()


def fields(server: str | None, server_ns: int | str = 300) -> dict[str, object]:
    return cpu_fields(
        server=server,  # type: ignore[arg-type]
        server_ns=server_ns,
        worker_ns=20,
        parent_ns=5,
        busy_s=400e-9,
    )


def test_an_engine_in_the_measured_process_has_its_time():
    found = fields(None)
    assert found["cpu_s"] == pytest.approx(20e-9)
    assert found["foreign_cpu_s"] == pytest.approx(375e-9)


def test_a_server_has_its_own_time_and_neither_client_nor_server_disturbs():
    found = fields("here")
    assert found["cpu_s"] == pytest.approx(300e-9)
    assert found["foreign_cpu_s"] == pytest.approx(75e-9)


def test_a_server_that_is_not_named_is_neither_priced_nor_taken_for_noise():
    found = fields("here", NOT_NAMED)
    assert (found["cpu_s"], found["cpu_s_missing"]) == (None, NOT_NAMED)
    assert found["foreign_cpu_s"] is None
    assert "--server-pid" in str(found["foreign_cpu_s_missing"])


def test_a_server_elsewhere_leaves_this_machine_to_others():
    found = fields("elsewhere", NOT_NAMED)
    assert found["cpu_s_missing"] == ELSEWHERE
    assert found["foreign_cpu_s"] == pytest.approx(375e-9)


def test_facts_of_the_server():
    assert server_facts(None, None) is UNSET
    here = server_facts("here", 7)
    assert here is not UNSET
    assert (here.place, here.processes_known) == ("here", True)
    away = server_facts("elsewhere", 7)
    assert away is not UNSET
    assert not away.processes_known


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_that_of_the_process_that_was_named():
    found = memory.read_peak(0, "requests", holder=memory.Holder("here", os.getpid()))
    own = memory.read_peak(0, "requests")
    assert found.rss_peak_bytes is not None
    assert own.rss_peak_bytes is not None
    assert found.rss_peak_bytes >= own.rss_peak_bytes * 0.9


@pytest.mark.parametrize(("holder", "why"), [
    (memory.Holder("here"), NOT_NAMED), (memory.Holder("elsewhere", 7), ELSEWHERE),
])  # fmt: skip
def test_memory_of_a_server_that_cannot_be_seen_is_missing(holder: memory.Holder, why: str):
    found = memory.read_peak(0, "load", holder=holder)
    assert (found.rss_peak_bytes, found.pss_bytes) == (None, None)
    assert (found.rss_peak_bytes_missing, found.pss_bytes_missing) == (why, why)
    if sys.platform == "linux":
        assert memory.reset_peak(holder) == why
