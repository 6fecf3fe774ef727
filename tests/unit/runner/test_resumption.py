"""A run taken up again: stamps go on, the order goes on, and nothing else may have changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, cast

import msgspec
import pytest
from builders import make_host, make_model, make_process, make_scenario
from hypothesis import given
from hypothesis import strategies as st

from perjoule import __version__
from perjoule.errors import HostError, InputError
from perjoule.journal import Begun, Measured, Story
from perjoule.plan import RunPlan
from perjoule.progress import Progress, order_of_round, turns
from perjoule.protocols import Prepared
from perjoule.records import MeterFact
from perjoule.resumption import (
    refuse_another_engine,
    refuse_another_machine,
    refuse_another_model,
    refuse_other_sensors,
    zero_again,
)

if TYPE_CHECKING:
    from perjoule.plan import Configuration

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BEGUN_NS = 1_000_000_000_000


class Clock:
    def __init__(self, *, wall_s: float, now_ns: int) -> None:
        self._wall_s, self._now_ns = wall_s, now_ns

    def now_ns(self) -> int:
        return self._now_ns

    def cpu_ns(self) -> int:
        return 0

    def sleep(self, seconds: float) -> None:
        pytest.fail(f"slept {seconds} s")

    def utc_now(self) -> datetime:
        return CREATED + timedelta(seconds=self._wall_s)


def make_story(processes: int = 2, **changes: object) -> Story:
    begun = Begun(
        tool_version=__version__, machine_id=make_host().machine_id, created=CREATED, epoch_ns=BEGUN_NS, boot="boot-1",
        working_folder="x", plan=RunPlan(configurations=(), out_dir="x"), prepared=(), meters=(),
    )  # fmt: skip
    measured = {0: [Measured(run=make_process(p), measuring_s=1.0) for p in range(processes)]}
    story = Story(begun=begun, measured=measured, idle={}, saving={}, resumed_at_s=(), damaged=())
    return msgspec.structs.replace(story, **changes)


def test_after_a_reboot_stamps_follow_the_wall_clock():
    zero = zero_again(make_story(), Clock(wall_s=5000.0, now_ns=60_000_000_000), boot="boot-2")
    assert (zero.at_s, zero.note) == (5000.0, None)
    assert zero.epoch_ns == 60_000_000_000 - 5_000_000_000_000, "the run is older than this boot's clock"


def test_in_the_same_boot_both_clocks_agree():
    zero = zero_again(make_story(), Clock(wall_s=5000.0, now_ns=BEGUN_NS + 5_000_000_000_000), boot="boot-1")
    assert (zero.epoch_ns, zero.note) == (BEGUN_NS, None)


def test_a_clock_that_was_set_is_said():
    zero = zero_again(make_story(), Clock(wall_s=8600.0, now_ns=BEGUN_NS + 5_000_000_000_000), boot="boot-1")
    assert zero.at_s == 8600.0
    assert "moved by +3600 s" in str(zero.note)


def test_a_clock_set_back_makes_no_stamp_earlier_than_the_last():
    story = make_story()
    zero = zero_again(story, Clock(wall_s=-3600.0, now_ns=1), boot=None)
    assert zero.at_s > story.last_s > 100
    assert "set back" in str(zero.note)


@given(
    wall_s=st.floats(-1e7, 1e7), now_ns=st.integers(0, 10**16), boot=st.sampled_from([None, "boot-1", "boot-2"]),
    processes=st.integers(0, 3),
)  # fmt: skip
def test_stamps_are_never_negative_and_always_later(wall_s, now_ns, boot, processes):
    story = make_story(processes)
    zero = zero_again(story, Clock(wall_s=wall_s, now_ns=now_ns), boot)
    stamp_s = (now_ns - zero.epoch_ns) / 1e9
    assert stamp_s > story.last_s >= 0
    assert stamp_s == pytest.approx(zero.at_s, abs=1e-6)


def test_another_machine_and_another_release_are_refused():
    refuse_another_machine(make_story(), make_host())
    with pytest.raises(InputError, match="this is another"):
        refuse_another_machine(make_story(), make_host(machine_id="another"))
    story = make_story()
    older = msgspec.structs.replace(story, begun=msgspec.structs.replace(story.begun, tool_version="0.0.1"))
    with pytest.raises(InputError, match=r"begun by perjoule 0\.0\.1"):
        refuse_another_machine(older, make_host())


def test_a_model_may_move_but_not_change():
    before = Prepared(folder="cache/1", model=make_model(), context_tokens=2048)
    refuse_another_model(before, msgspec.structs.replace(before, folder="cache/2"), "tiny.gguf")
    changed = msgspec.structs.replace(before, model=make_model(file_sha256="cd" * 32))
    with pytest.raises(InputError, match=r"tiny\.gguf has changed since the run was begun: file_sha256"):
        refuse_another_model(before, changed, "tiny.gguf")
    with pytest.raises(InputError, match="context"):
        refuse_another_model(before, msgspec.structs.replace(before, context_tokens=1), "tiny.gguf")


@pytest.mark.parametrize("change", [{"engine_version": "1.23.0"}, {"libraries": {"numpy": "3.0"}}])
def test_another_engine_is_refused(change: dict[str, object]):
    before = make_process(0)
    refuse_another_engine(before, make_process(1))
    with pytest.raises(HostError, match="when the run was begun and is"):
        refuse_another_engine(before, msgspec.structs.replace(before, **change))


def test_sensors_may_tick_otherwise_but_not_be_others():
    fact = MeterFact(
        domain="package-0", scope="package", kind="counter", label="measured", grade="rapl", tick_s=0.001,
        source="powercap", unit_j="1/1000000",
    )  # fmt: skip
    refuse_other_sensors([fact], [msgspec.structs.replace(fact, tick_s=0.002, min_window_s=2.0)])
    for now in (
        [],
        [msgspec.structs.replace(fact, unit_j="1/1000")],
        [fact, msgspec.structs.replace(fact, domain="y")],
    ):
        with pytest.raises(HostError, match="the sensors have changed"):
            refuse_other_sensors([fact], now)


@given(st.integers(), st.integers(0, 50), st.integers(1, 8))
def test_a_round_has_everybody_once_and_the_same_order_always(seed, number, size):
    order = order_of_round(seed, number, size)
    assert sorted(order) == list(range(size))
    assert order == order_of_round(seed, number, size)


def test_rounds_differ_and_so_do_seeds():
    orders = {tuple(order_of_round(seed, number, 6)) for seed in range(3) for number in range(5)}
    assert len(orders) > 10


class Planned(Progress):
    """Is done after so many processes."""

    def __init__(self, index: int, least: int) -> None:
        prepared = Prepared(folder="", model=make_model(), context_tokens=1)
        super().__init__(index, cast("Configuration", None), str(index), prepared)
        self._least = least
        self.numbers: set[int] = set()

    def has(self, number: int) -> bool:
        return number in self.numbers

    def give(self, number: int) -> None:
        assert number not in self.numbers, "measured twice"
        self.numbers.add(number)
        self.done = len(self.numbers) >= self._least


def follow(states: list[Planned], seed: int, limit: int | None = None) -> list[tuple[int, int]]:
    seen = []
    for state, number in islice(cast("list[tuple[Planned, int]]", turns(states, seed)), limit):
        seen.append((state.index, number))
        state.give(number)
    return seen


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 99), st.data())
def test_a_run_taken_up_anywhere_goes_on_in_the_order_it_had(least, seed, data):
    whole = follow([Planned(k, n) for k, n in enumerate(least)], seed)
    assert len(whole) == len(set(whole)) == sum(least)
    cut = data.draw(st.integers(0, len(whole)))
    states = [Planned(k, n) for k, n in enumerate(least)]
    for index, number in whole[:cut]:
        states[index].give(number)
    assert follow(states, seed) == whole[cut:]


def test_a_process_that_was_lost_is_measured_under_its_own_number():
    states = [Planned(0, 3), Planned(1, 3)]
    for index, number in ((0, 0), (0, 2), (1, 0), (1, 1), (1, 2)):
        states[index].give(number)
    assert follow(states, 0) == [(0, 1)]


def test_progress_says_what_is_left():
    scenario = make_scenario(min_processes=3)
    configuration = msgspec.defstruct("Configuration", ["scenario"])(scenario)
    state = Progress(0, configuration, "x", Prepared(folder="", model=make_model(), context_tokens=1))
    assert state.left_s is None
    state.add(make_process(0), 4.0)
    assert state.left_s == 8.0
    assert state.has(0)
    assert not state.has(1)
    assert not state.complete
