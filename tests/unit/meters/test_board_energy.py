"""An engine on a board: its joules are in the total or there is no total, whatever else can be read."""

from __future__ import annotations

import msgspec
import pytest
from builders import make_host, make_model, make_sample, make_windows

from perjoule.meters.energy import Assessment, Evidence, assess, per_process
from perjoule.records import Energy, IdlePower, MeterFact, Missing, Reading, RunSettings

NO_IDLE = IdlePower(
    before=None, before_missing="not read", loaded=None, loaded_missing="not read", after=None, after_missing="not read"
)
COUNTS = 100_000_000


def meter(domain: str, scope: str) -> MeterFact:
    return MeterFact(
        domain=domain, scope=scope, kind="counter", label="measured", grade=f"made-up-{scope}",
        tick_s=0.001, source=f"made up {scope}", unit_j="1/1000000", wrap_count=None, min_window_s=1.0,
    )  # fmt: skip


PACKAGE, BOARD, OTHER_BOARD, WALL = (
    meter("package-0", "package"), meter("gpu-0", "gpu"), meter("gpu-1", "gpu"), meter("wall", "wall"),
)  # fmt: skip


def evidence(device: str, *meters: MeterFact) -> Evidence:
    samples = tuple(make_sample(process, start_s=100.0 * process) for process in range(5))
    readings = tuple(Reading(domain=m.domain, start_count=0, end_count=COUNTS) for m in meters)
    windows = tuple(msgspec.structs.replace(w, readings=readings) for s in samples for w in make_windows(s))
    return Evidence(
        host=make_host(), meters=meters, windows=windows, samples=samples, model=make_model(),
        settings=RunSettings(seed=0), meters_refused=(), idle=NO_IDLE, device=device,
    )  # fmt: skip


def on_board(*meters: MeterFact) -> Assessment:
    return assess(evidence("cuda:0", *meters))


@pytest.mark.parametrize(
    ("meters", "scope"),
    [((PACKAGE, BOARD), "package+gpu"), ((PACKAGE, BOARD, OTHER_BOARD), "package+gpu"), ((WALL, BOARD), "wall")],
)
def test_a_total_that_holds_the_board_is_the_headline_and_says_so(meters: tuple[MeterFact, ...], scope: str) -> None:
    headline = on_board(*meters).report.headline
    assert headline is not None
    assert (headline.scope, headline.label) == (scope, "measured")


@pytest.mark.parametrize("meters", [(PACKAGE,), (BOARD,), ()])
def test_what_leaves_out_a_part_is_no_total(meters: tuple[MeterFact, ...]) -> None:
    found = on_board(*meters)
    assert found.report.headline is None
    assert "the engine ran on cuda:0" in str(found.report.headline_missing)
    per_token = found.metrics["energy_j_per_output_token"]
    assert isinstance(per_token, Missing)
    assert "cuda:0" in per_token.reason
    assert isinstance(per_process(evidence("cuda:0", *meters)), str)


def test_the_board_s_own_joules_are_told_all_the_same() -> None:
    [board] = [d for d in on_board(BOARD).report.domains if d.domain == "gpu-0"]
    assert isinstance(board.energy, Energy)
    assert (board.energy.scope, board.energy.label) == ("gpu", "measured")
    assert board.energy.value == pytest.approx(5 * 2 * COUNTS / 1e6)
    assert "not the total" in str(board.note)


@pytest.mark.parametrize("meters", [(PACKAGE,), (PACKAGE, BOARD), (BOARD,), ()])
def test_on_the_processor_nothing_changes(meters: tuple[MeterFact, ...]) -> None:
    assert assess(evidence("cpu", *meters)).report.headline is not None
