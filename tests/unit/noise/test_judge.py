"""Which requests are rejected: held against a kernel that counts CPU time in ticks, as /proc/stat does."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from builders import make_raw, make_sample, make_windows
from hypothesis import given
from hypothesis import strategies as st

from perjoule.assemble import assemble, derive
from perjoule.noise import rejection
from perjoule.records import UNSET, Window
from perjoule.verify import verify

TICK_S = 0.01
CORES = 2


def window(seconds: float, **fields: Any) -> Window:
    first = make_windows(make_sample(ttft_s=seconds, output_tokens=1))[0]
    return msgspec.structs.replace(first, **{"cpu_tick_s": TICK_S, **fields})


def whole_ticks(seconds: float) -> float:
    return math.floor(seconds / TICK_S) * TICK_S


def counted(times: list[tuple[float, float, float]]) -> list[Window]:
    """Return the windows between edges at which user, system and our own CPU seconds were those: one row an edge."""
    windows = []
    for before, after in pairwise(times):
        busy_s = sum(whole_ticks(after[i]) - whole_ticks(before[i]) for i in (0, 1))
        foreign_s = busy_s - (after[2] - before[2])
        windows.append(
            window(
                0.1,
                foreign_cpu_s=max(0.0, foreign_s),
                cpu_undercount_s=-foreign_s if foreign_s < 0 else UNSET,
            )
        )
    return windows


@given(
    start=st.tuples(st.floats(0, 1000), st.floats(0, 1000)),
    steps=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5),
)
def test_nobody_else_is_never_a_disturbance_however_short_the_request(start, steps):
    """All CPU time is ours, user and system, and both are rounded down to ticks at every edge."""
    times = [(*start, sum(start))]
    for user_s, system_s in steps:
        user, system, _ = times[-1]
        times.append((user + user_s, system + system_s, user + user_s + system + system_s))
    assert rejection(counted(times), CORES) is None


@given(st.floats(0, 0.00999), st.floats(0.15, 5))
def test_half_a_core_of_somebody_else_is_a_disturbance_from_a_few_ticks_on(phase: float, seconds: float):
    own = 1.5 * seconds
    [found] = counted([(phase, 0, 0), (phase + own + 0.5 * seconds, 0, own)])
    found = msgspec.structs.replace(found, end_s=found.start_s + seconds)
    assert "other processes" in str(rejection([found], CORES))


def test_a_single_tick_rejects_no_short_request():
    short = window(0.165, foreign_cpu_s=TICK_S, steal_s=TICK_S)
    assert rejection([short], CORES) is None
    exact = msgspec.structs.replace(short, cpu_tick_s=UNSET)
    assert "3.0% of all cores (limit 2%)" in str(rejection([exact], CORES)), "as files of old were judged"


def test_the_resolution_is_no_excuse_in_a_long_request():
    assert rejection([window(10, foreign_cpu_s=0.43)], CORES) is not None
    assert rejection([window(10, foreign_cpu_s=0.41)], CORES) is None
    assert rejection([window(10, steal_s=0.22)], CORES) is not None
    assert rejection([window(10, steal_s=0.2)], CORES) is None


def test_what_one_window_shows_too_much_another_shows_too_little():
    late = [window(0.1, foreign_cpu_s=0.05), window(0.1, foreign_cpu_s=0.0, cpu_undercount_s=0.05)]
    assert rejection(late, CORES) is None
    assert rejection(late[:1], CORES) is not None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"foreign_cpu_s": 1.0}, "50.0% of all cores (limit 2% and the clock's 20 ms)"),
        ({"steal_s": 0.5}, "hypervisor took 25.0% of all cores (limit 1% and the clock's 10 ms)"),
        ({"throttle_count": 3}, "throttled 3 times (limit 0)"),
        ({"swap_pages": 12}, "12 pages were swapped in or out (limit 0)"),
        ({"pressure_memory_s": 0.03}, "waited for memory in 3.0% of the time (limit 1%)"),
        ({"clock_jump_s": -3.2}, "jumped by -3.2 s (limit 50 ms)"),
        ({"clock_jump_s": 0.051}, "jumped by +0.051 s (limit 50 ms)"),
    ],
)
def test_every_reason_names_figure_and_limit(fields: dict[str, Any], words: str):
    assert words in str(rejection([window(1.0, **fields)], CORES))


@pytest.mark.parametrize(
    "fields",
    [
        {"pressure_cpu_s": 0.9},
        {"pressure_io_s": 0.9},
        {"pressure_memory_s": 0.009},
        {"clock_jump_s": 0.049},
        {"freq_hz": 1.0},
        {"foreign_cpu_s": None, "foreign_cpu_s_missing": "not read", "steal_s": None, "steal_s_missing": "not read"},
    ],
)
def test_what_our_own_work_causes_or_nobody_read_is_no_reason(fields: dict[str, Any]):
    assert rejection([window(1.0, **fields)], CORES) is None


def test_nothing_to_judge_is_no_disturbance():
    assert rejection([], CORES) is None
    assert rejection([window(0.0, foreign_cpu_s=0.0)], CORES) is None


@pytest.mark.parametrize("fields", [{"swap_pages": 4}, {"throttle_count": 1}, {"clock_jump_s": 2.0}])
def test_verify_judges_again_from_what_the_windows_hold(fields: dict[str, Any]):
    result = assemble(make_raw())
    first = msgspec.structs.replace(result.windows[4], **fields)
    windows = (*result.windows[:4], first, *result.windows[5:])
    problems = verify(derive(msgspec.structs.replace(result, windows=windows)))
    assert any(f"windows of {first.id.partition('/')[0]}" in problem for problem in problems)
    marked = tuple(
        msgspec.structs.replace(w, rejected=rejection([w], CORES) or "the other window")
        if w.id.startswith("0.2/")
        else w
        for w in windows
    )
    assert verify(derive(msgspec.structs.replace(result, windows=marked))) == []
