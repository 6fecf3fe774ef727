"""What a reader is told of disturbances, from the windows of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from builders import make_process, make_raw, make_result

from perjoule.assemble import assemble
from perjoule.noise.checks import RULES
from perjoule.stats.selection import stem

if TYPE_CHECKING:
    from perjoule.records import Check, RunResult, Window


def found(result: RunResult) -> dict[str, Check]:
    return {check.code: check for rule in RULES for check in rule(result)}


def with_windows(result: RunResult, names: set[str], **fields: Any) -> RunResult:
    """Return the result with fields set in the windows of those requests."""

    def changed(window: Window) -> Window:
        return msgspec.structs.replace(window, **fields) if stem(window) in names else window

    return msgspec.structs.replace(result, windows=tuple(changed(w) for w in result.windows))


def everywhere(result: RunResult, **fields: Any) -> RunResult:
    return with_windows(result, {s.window for s in result.samples}, **fields)


QUIET = {
    "throttle_count": 0, "swap_pages": 0, "pressure_cpu_s": 0.0, "pressure_memory_s": 0.0, "pressure_io_s": 0.0,
    "freq_hz": 3e9, "clock_jump_s": 0.0, "cpu_tick_s": 0.01,
}  # fmt: skip


def test_a_quiet_run_has_nothing_to_say():
    assert found(make_result()) == {}
    assert found(everywhere(make_result(), **QUIET)) == {}


@pytest.mark.parametrize(
    ("fields", "code", "severity", "data"),
    [
        ({"throttle_count": 2}, "throttled", "warning", {"requests": 1, "measured": 15, "throttle_count": 4}),
        ({"swap_pages": 3}, "swapped", "warning", {"requests": 1, "measured": 15, "swap_pages": 6}),
        ({"clock_jump_s": -7.5}, "clock_jumped", "warning", {"windows": 2, "clock_jump_s": -7.5}),
        ({"pressure_io_s": 9.0}, "io_waits", "note", None),
    ],
)
def test_each_disturbance_is_one_check(fields: dict[str, Any], code: str, severity: str, data: dict[str, Any] | None):
    checks = found(with_windows(everywhere(make_result(), **QUIET), {"1.3"}, **fields))
    assert set(checks) == {code}
    assert (checks[code].severity, bool(checks[code].hint)) == (severity, True)
    assert data is None or checks[code].data == data


def test_disturbances_of_warm_ups_are_nobody_s_business():
    assert found(with_windows(make_result(), {"1.0"}, throttle_count=2, swap_pages=3)) == {}


def test_a_request_at_a_lower_frequency_is_noted():
    result = everywhere(make_result(), freq_hz=3e9)
    assert found(with_windows(result, {"0.2"}, freq_hz=2.75e9)) == {}
    check = found(with_windows(result, {"0.2"}, freq_hz=2.6e9))["slow_frequency"]
    assert check.severity == "note"
    assert check.data == {"requests": 1, "measured": 15, "least_freq_hz": 2.6e9, "median_freq_hz": 3e9}


def test_load_too_small_for_a_single_short_request_shows_in_all_of_them():
    result = everywhere(make_result(), cpu_tick_s=0.01, foreign_cpu_s=0.06)
    check = found(result)["background_load"]
    assert check.severity == "warning"
    assert 0.03 < check.data["share"] < 0.04
    assert found(everywhere(result, cpu_undercount_s=0.06)) == {}


def test_load_that_rejected_requests_already_is_told_once():
    noisy = assemble(make_raw(runs=tuple(make_process(p, rejected="noise") for p in range(5))))
    assert {c.code for c in noisy.checks} >= {"noisy_host"}
    assert "background_load" not in {c.code for c in noisy.checks}


@pytest.mark.parametrize(
    ("count", "share", "words"),
    [(1, 0.24, "1 other process used 24%"), (3, 0.5, "3 other processes used 50%"), (0, 0.0, "no other process that")],
)
def test_who_was_seen_is_counted_but_not_named(count: int, share: float, words: str):
    runs = [make_process(p, rejected="noise") for p in range(5)]
    record = msgspec.structs.replace(runs[1].record, others_count=count, others_cpu_share=share)
    runs[1] = msgspec.structs.replace(runs[1], record=record)
    [check] = [c for c in assemble(make_raw(runs=tuple(runs))).checks if c.code == "noisy_host"]
    assert words in check.message
