"""A server on another machine: nothing here says what it drew, whatever sensors this machine has."""

from __future__ import annotations

from builders import make_result
from msgspec.structs import replace

from perjoule.assemble import derive
from perjoule.records import Missing, RunResult, ServerFacts


def asked(place: str) -> RunResult:
    result = make_result()
    facts = ServerFacts(place=place, processes_known=False)  # type: ignore[arg-type]
    return derive(replace(result, backend=replace(result.backend, server=facts)))


def test_joules_of_another_machine_are_missing_with_the_reason():
    result = asked("elsewhere")
    metric = result.metric("energy_j_per_output_token")
    assert isinstance(metric, Missing)
    assert "another machine" in metric.reason
    assert result.energy.headline is None
    assert {"one_server", "server_elsewhere"} <= {check.code for check in result.checks}


def test_a_server_here_keeps_what_the_machine_measures():
    result = asked("here")
    assert result.energy.headline is not None
    codes = {check.code for check in result.checks}
    assert "one_server" in codes
    assert "server_elsewhere" not in codes
