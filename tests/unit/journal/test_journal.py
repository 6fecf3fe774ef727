"""The journal: what went in comes out, damage costs what was damaged, and who may take a run up is decided by it."""

from __future__ import annotations

import errno
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest
from builders import make_model, make_process, make_scenario
from hypothesis import given
from hypothesis import strategies as st

from perjoule import journal
from perjoule.errors import InputError, UsageError
from perjoule.journal import Begun, Journal, Measured, find, places, unfinished
from perjoule.meters.idle import IdleReading
from perjoule.plan import Configuration, RunPlan, context_for
from perjoule.protocols import EngineOptions, Prepared
from perjoule.records import Window

if TYPE_CHECKING:
    from pathlib import Path

CREATED = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
IDLE = IdleReading(
    power=None,
    reason="no sensor",
    window=Window(
        id="idle/before", process=0, phase="idle", start_s=0.5, end_s=3.5, cpu_s=None, cpu_s_missing="idle",
        steal_s=None, steal_s_missing="idle", foreign_cpu_s=None, foreign_cpu_s_missing="idle", bytes_streamed=None,
        bytes_streamed_missing="idle",
    ),
)  # fmt: skip


def make_begun(out: Path, configurations: int = 2, **changes: object) -> Begun:
    scenario = make_scenario()
    options = EngineOptions(context_tokens=context_for(scenario), extra={"ttft_s": 0.25})
    plan = RunPlan(
        configurations=tuple(
            Configuration(backend="null", model_ref=f"model-{k}", options=options, scenario=scenario)
            for k in range(configurations)
        ),
        out_dir=str(out),
        seed=7,
        pin=(0, 1),
    )
    prepared = Prepared(folder="somewhere", model=make_model(), context_tokens=2048)
    begun = Begun(
        tool_version="1", machine_id="m", created=CREATED, epoch_ns=5, boot="b", working_folder=str(out),
        plan=plan, prepared=(prepared,) * configurations, meters=(),
    )  # fmt: skip
    return msgspec.structs.replace(begun, **changes)


def write(out: Path, *, begun: Begun | None = None) -> Path:
    """Write the journal of a run that was killed; return its folder."""
    kept = Journal.create(out, begun or make_begun(out), pytest.fail)
    for number in (0, 1, 2):
        kept.measured(0, Measured(run=make_process(number), measuring_s=1.5))
    kept.measured(1, Measured(run=make_process(0), measuring_s=2.5))
    kept.idle("before", IDLE)
    kept.saving(1, "2026-01-02-quickstart.json")
    kept.resumed(1, 99.5)
    kept.close()
    assert kept.folder is not None
    return kept.folder


def numbers(folder: Path) -> tuple[list[int], tuple[str, ...]]:
    """Return the processes of configuration 0 that a journal still has, and what is damaged."""
    kept, story = Journal.open(folder, pytest.fail)
    kept.close()
    return [m.run.record.process for m in story.measured[0]], story.damaged


def test_what_went_in_comes_out(tmp_path: Path):
    folder = write(tmp_path)
    kept, story = Journal.open(folder, pytest.fail)
    kept.close()
    assert story.begun == make_begun(tmp_path)
    assert [m.run for m in story.measured[0]] == [make_process(n) for n in (0, 1, 2)]
    assert [(m.run, m.measuring_s) for m in story.measured[1]] == [(make_process(0), 2.5)]
    assert story.idle == {"before": IDLE}
    assert story.saving == {1: "2026-01-02-quickstart.json"}
    assert story.resumed_at_s == (99.5,)
    assert story.damaged == ()
    assert story.last_s == max(s.end_s for s in make_process(2).samples)


def test_processes_come_in_the_order_in_which_they_were_measured(tmp_path: Path):
    folder = write(tmp_path)
    early = make_process(3)
    early = msgspec.structs.replace(early, record=msgspec.structs.replace(early.record, start_s=0.001))
    kept, _ = Journal.open(folder, pytest.fail)
    kept.measured(0, Measured(run=early, measuring_s=1.0))
    kept.close()
    assert numbers(folder)[0] == [0, 3, 1, 2]


@given(st.data())
def test_a_file_that_was_cut_is_a_process_that_was_not_finished(tmp_path_factory, data):
    folder = write(tmp_path_factory.mktemp("out"))
    file = folder / "0-1.json"
    whole = file.read_bytes()
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert numbers(folder) == ([0, 2], ("0-1.json",))


@given(st.binary(max_size=60) | st.sampled_from([b"[" * 20_000, b"null", b"{}", b"1e999"]))
def test_nonsense_is_never_a_process_and_never_a_crash(tmp_path_factory, nonsense):
    folder = write(tmp_path_factory.mktemp("out"))
    for name in ("0-1.json", "idle-before.json", "saving-1.json", "resumed-1.json"):
        (folder / name).write_bytes(nonsense)
    kept, damaged = numbers(folder)
    assert kept == [0, 2]
    assert len(damaged) == 4


def test_a_process_under_the_name_of_another_is_not_it(tmp_path: Path):
    folder = write(tmp_path)
    (folder / "0-1.json").rename(folder / "0-4.json")
    (folder / "1-0.json").rename(folder / "7-0.json")
    (folder / "0-99999999999999999999.json").write_text("{}")
    (folder / "notes.json").write_text("{}")
    assert numbers(folder) == ([0, 2], ("0-4.json", "7-0.json"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "update perjoule"),
        ({"version": 2, "something": "new"}, "update perjoule"),
        ({"schema": "perjoule.run"}, "not the plan of a run"),
        ({"prepared": []}, "do not match"),
        ({"plan": 3}, "damaged"),
    ],
)
def test_a_plan_that_cannot_be_used_is_refused(tmp_path: Path, change: dict[str, object], says: str):
    folder = write(tmp_path)
    plan = folder / "plan.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | change))
    with pytest.raises(InputError) as caught:
        Journal.open(folder, pytest.fail)
    assert says in f"{caught.value.message} {caught.value.hint}"
    assert not journal._is_held(folder), "a refused journal is not left locked"


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 20_000, b"{"])
def test_a_damaged_plan_is_said_with_what_to_do(tmp_path: Path, content: bytes):
    folder = write(tmp_path)
    (folder / "plan.json").write_bytes(content)
    with pytest.raises(InputError, match=r"plan\.json: damaged") as caught:
        places(folder)
    assert f"remove {folder}" in caught.value.hint


def test_a_run_that_goes_on_is_not_taken_up(tmp_path: Path):
    kept = Journal.create(tmp_path, make_begun(tmp_path), pytest.fail)
    assert kept.folder is not None
    assert unfinished(tmp_path) == []
    with pytest.raises(InputError, match="still going on"):
        Journal.open(kept.folder, pytest.fail)
    kept.close()
    assert unfinished(tmp_path) == [kept.folder]


def test_a_run_is_found_by_its_own_folder_and_by_that_of_its_results(tmp_path: Path):
    folder = write(tmp_path)
    assert find(tmp_path) == find(folder) == folder
    assert places(folder) == (tmp_path, tmp_path)


def test_results_go_where_the_journal_is_even_if_it_was_moved(tmp_path: Path):
    write(tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "after")
    folder = find(tmp_path / "after")
    assert places(folder) == (tmp_path / "after", tmp_path / "before")
    folder.rename(tmp_path / "alone")
    assert places(tmp_path / "alone")[0] == tmp_path / "before"


def test_nothing_to_take_up_is_said(tmp_path: Path):
    with pytest.raises(UsageError, match="no unfinished run there"):
        find(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        find(tmp_path / "nowhere")
    (tmp_path / journal.FOLDER / "20260102-030405-abc").mkdir(parents=True)
    with pytest.raises(UsageError, match="no unfinished run there"):
        find(tmp_path)


def test_of_several_one_must_be_named(tmp_path: Path):
    later = make_begun(tmp_path, created=CREATED.replace(year=2027))
    folders = [write(tmp_path), write(tmp_path, begun=later)]
    with pytest.raises(UsageError, match="2 unfinished runs") as caught:
        find(tmp_path)
    assert all(folder.name in caught.value.message for folder in folders)
    assert str(folders[1]) in caught.value.hint
    assert unfinished(tmp_path) == folders


def test_the_last_one_takes_the_folder_with_it(tmp_path: Path):
    first, second = write(tmp_path), write(tmp_path, begun=make_begun(tmp_path, created=CREATED.replace(year=2027)))
    for folder in (first, second):
        assert folder.is_dir()
        kept, _ = Journal.open(folder, pytest.fail)
        kept.remove()
        assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_what_killed_runs_left_half_made_or_half_removed_is_swept(tmp_path: Path):
    parent = tmp_path / journal.FOLDER
    for name in (".new-1", ".gone-2"):
        (parent / name).mkdir(parents=True)
        (parent / name / "plan.json").write_text("{")
    folder = write(tmp_path)
    assert list(parent.iterdir()) == [folder]


def test_a_disk_that_is_full_is_said_once_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    notes: list[str] = []
    kept = Journal.create(tmp_path, make_begun(tmp_path), notes.append)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(journal, "_write", full)
        kept.measured(0, Measured(run=make_process(0), measuring_s=1.0))
        kept.idle("before", IDLE)
    kept.measured(0, Measured(run=make_process(1), measuring_s=1.0))
    kept.close()
    assert kept.folder is not None
    assert len(notes) == 1
    assert "No space left" in notes[0]
    assert numbers(kept.folder) == ([1], ()), "space that came back is used"


def test_a_folder_that_takes_no_journal_is_said_and_the_run_goes_on(tmp_path: Path):
    notes: list[str] = []
    (tmp_path / journal.FOLDER).write_text("a file where a folder should be")
    kept = Journal.create(tmp_path, make_begun(tmp_path), notes.append)
    kept.measured(0, Measured(run=make_process(0), measuring_s=1.0))
    kept.remove()
    assert len(notes) == 1
    assert kept.folder is None


def test_a_journal_is_private(tmp_path: Path):
    assert write(tmp_path).stat().st_mode & 0o077 == 0
