"""Results that older statistics made are not called false, and are not believed either."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest
from published_results import process, publishable

from perjoule import store
from perjoule.cli import main
from perjoule.publish.gate import examine
from perjoule.publish.index import Entry
from perjoule.publish.private import Identity
from perjoule.records import MeterRefusal, Quantity, RunResult
from perjoule.records.facts import STATISTICS_VERSION
from perjoule.render.site import pages
from perjoule.store.canonical import canonical_id
from perjoule.verify import statistics_note, verify

if TYPE_CHECKING:
    from pathlib import Path

LATER = STATISTICS_VERSION + 1


def by_other_rules(**changes: object) -> RunResult:
    """Return a result whose interval another rule made: what is derived today is another number."""
    result = publishable(**changes)
    ttft = result.metrics["ttft_s"]
    assert isinstance(ttft, Quantity)
    wider = msgspec.structs.replace(ttft, high=(ttft.high or 0) * 1.5)
    result = msgspec.structs.replace(result, metrics={**result.metrics, "ttft_s": wider})
    return msgspec.structs.replace(result, id=canonical_id(result))


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A perjoule whose statistics have changed since."""
    for module in ("verify", "upgrade", "render.site.cells"):
        monkeypatch.setattr(f"perjoule.{module}.STATISTICS_VERSION", LATER)


def test_results_say_which_statistics_made_their_numbers():
    assert publishable().tool.statistics == STATISTICS_VERSION
    assert statistics_note(publishable()) is None


def test_ones_own_are_computed_again():
    assert any(line.startswith("metrics.ttft_s.high") for line in verify(by_other_rules()))


@pytest.mark.usefixtures("later")
def test_older_ones_are_not_computed_again_and_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = store.save(by_other_rules(), tmp_path)
    assert main(["verify", str(path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{path}: ok; note: its numbers and intervals were made by statistics {STATISTICS_VERSION}")


@pytest.mark.usefixtures("later")
def test_of_older_ones_raw_parts_and_id_are_checked_all_the_same():
    result = by_other_rules()
    sample = msgspec.structs.replace(result.samples[0], output_tokens=3)
    found = verify(msgspec.structs.replace(result, samples=(sample, *result.samples[1:])))
    assert any("token times do not fit" in line for line in found)
    assert any(line.startswith("id:") for line in found)


@pytest.mark.parametrize(("version", "says"), [(LATER, "update perjoule"), (0, "is no version"), (-1, "is no version")])
def test_newer_ones_and_no_versions_are_refused(version: int, says: str, tmp_path: Path):
    result = publishable()
    result = msgspec.structs.replace(result, tool=msgspec.structs.replace(result.tool, statistics=version))
    result = msgspec.structs.replace(result, id=canonical_id(result))
    [found] = verify(result)
    assert says in found
    path = store.save(result, tmp_path)
    assert examine(path, Identity()).against == (f"does not hold: {found}",)
    assert main(["verify", str(path)]) == 5


@pytest.mark.usefixtures("later")
def test_a_published_row_holds_the_numbers_of_today_and_says_so(tmp_path: Path):
    result = by_other_rules()
    candidate = examine(store.save(result, tmp_path), Identity())
    assert candidate.against == ()
    assert candidate.result == result  # the file stays as it is
    today = publishable().metrics["ttft_s"]
    assert isinstance(today, Quantity)
    assert candidate.row["ttft_s_high"] == pytest.approx(today.high)
    assert (candidate.row["id"], candidate.row["statistics"]) == (result.id, STATISTICS_VERSION)
    entry = Entry(path="0/1.json", stamp="1/1", fingerprint="1", row=candidate.row)
    page = next(p.render() for p in pages([entry]) if p.name == "index.html")
    assert f"numbers made again: those of the file are of statistics {STATISTICS_VERSION}" in page
    assert candidate.note


@pytest.mark.usefixtures("later")
def test_a_check_that_an_older_file_leaves_out_is_found(tmp_path: Path):
    few = publishable(runs=tuple(process(p) for p in range(2)))
    kept = tuple(c for c in few.checks if c.severity != "invalid")
    hidden = msgspec.structs.replace(few, checks=kept, publishable=True)
    path = store.save(msgspec.structs.replace(hidden, id=canonical_id(hidden)), tmp_path)
    assert any(line.startswith("few_processes") for line in examine(path, Identity()).against)


@pytest.mark.usefixtures("later")
def test_scrubbing_derives_by_the_statistics_of_today(tmp_path: Path):
    refused = MeterRefusal(meter="shelly", reason="192.168.1.20 did not answer", fix="look", domain="wall")
    candidate = examine(store.save(by_other_rules(meters_refused=(refused,)), tmp_path), Identity())
    assert candidate.against == ()
    assert candidate.result is not None
    assert candidate.result.tool.statistics == candidate.row["statistics"] == LATER
    assert verify(candidate.result) == []


@pytest.mark.usefixtures("later")
def test_upgrading_derives_all_numbers_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = store.save(by_other_rules(), tmp_path)
    assert main(["upgrade", str(path)]) == 0
    told = capsys.readouterr()
    assert f"statistics {STATISTICS_VERSION} to {LATER}" in told.err
    made = store.load(told.out.strip())
    assert (made.tool.statistics, verify(made)) == (LATER, [])
    assert main(["upgrade", told.out.strip()]) == 2


def test_a_file_that_does_not_say_is_judged_by_the_rules_of_today(tmp_path: Path):
    result = by_other_rules()
    content = json.loads(store.save(result, tmp_path).read_bytes())
    del content["tool"]["statistics"]
    path = tmp_path / "bare.json"
    path.write_text(json.dumps(content))
    assert any(line.startswith("metrics.ttft_s.high") for line in verify(store.load(path)))
