"""Publishing into a folder: what is written, what is refused, and that nothing is lost or overwritten."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from builders import make_host, make_result
from published_results import host, process, publishable

from perjoule import store
from perjoule.assemble import derive
from perjoule.errors import InputError
from perjoule.publish.batch import INDEX, publish
from perjoule.publish.found import SITE, result_paths
from perjoule.publish.gate import examine
from perjoule.publish.index import encode_index
from perjoule.publish.private import Identity
from perjoule.publish.site import MANIFEST, own_pages, write_site
from perjoule.store.write import encode

NOBODY = Identity()


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return tmp_path / "mine"


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "published"


def test_a_result_stands_in_the_folder_of_its_machine(mine: Path, to: Path):
    result = publishable()
    path = store.save(result, mine)
    outcome = publish([str(mine)], to, NOBODY)
    assert outcome.written == (f"{result.host.machine_id}/{path.name}",)
    assert (to / outcome.written[0]).read_bytes() == path.read_bytes()
    facts = json.loads((to / result.host.machine_id / "machine.json").read_bytes())
    assert facts == {
        "cpu_vendor": "AuthenticAMD", "cpu_family": 25, "cpu_model": 17, "cpu_stepping": 1, "cores": 2, "threads": 2,
        "memory_gib": 8, "gpus": [], "hypervisor": "kvm",
    }  # fmt: skip


def test_the_same_result_twice_is_found(mine: Path, to: Path):
    path = store.save(publishable(), mine)
    publish([str(path)], to, NOBODY)
    again = publish([str(path), str(path)], to, NOBODY)
    assert (again.written, again.refused) == ((), ())
    assert [there for _, there in again.twice] == [again.entries[0].path]


def test_the_same_measurement_under_another_id_is_refused(mine: Path, to: Path):
    store.save(publishable(), mine)
    store.save(publishable(reproduce="perjoule run quickstart --seed 0"), mine)
    outcome = publish([str(mine)], to, NOBODY)
    assert len(outcome.written) == 1
    assert "was measured once" in outcome.refused[0][1][0]


def test_all_reasons_are_given_at_once(mine: Path, to: Path):
    raw = publishable(runs=tuple(process(p) for p in range(2)), host=make_host(kernel="192.168.1.20"))
    path = store.save(raw, mine)
    changed = json.loads(path.read_bytes())
    changed["metrics"]["ttft_s"]["value"] *= 1.0001
    path.write_text(json.dumps(changed))
    [(_, reasons)] = publish([str(path)], to, NOBODY).refused
    text = "\n".join(reasons)
    for part in ("id: the content was changed", "metrics.ttft_s.value", "few_processes", "machine_id", "an IP address"):
        assert part in text
    assert not to.exists()


def test_one_bad_file_does_not_keep_back_the_others(mine: Path, to: Path):
    store.save(publishable(), mine)
    for name, data in (
        ("a.json", b"{"),
        ("b.json", b'{"schema": "perjoule.run", "schema_version": 99}'),
        ("c.json", b""),
    ):
        (mine / name).write_bytes(data)
    outcome = publish([str(mine), str(mine / "none.json")], to, NOBODY)
    assert len(outcome.written) == 1
    assert len(outcome.unreadable) == 4


def test_what_stands_in_the_folder_is_judged_too_and_read_once(mine: Path, to: Path, monkeypatch: pytest.MonkeyPatch):
    store.save(publishable(), mine)
    first = publish([str(mine)], to, NOBODY)
    write_site(to / SITE, [], {INDEX: encode_index(first.entries)})
    bad = to / Path(first.written[0]).parent / "bad.json"
    bad.write_bytes((to / first.written[0]).read_bytes().replace(b'"vendor": "Nobody"', b'"vendor": "Anybody"'))
    read: list[Path] = []
    monkeypatch.setattr("perjoule.publish.gate.examine", lambda path, who: read.append(path) or examine(path, who))
    outcome = publish([], to, NOBODY)
    assert read == [bad]
    assert [path for path, _ in outcome.standing] == [bad.relative_to(to).as_posix()]
    assert [bool(e.row) for e in outcome.entries] == [True, False]


def test_two_folders_that_hold_the_same_are_shown_once(mine: Path, to: Path):
    store.save(publishable(), mine)
    [written] = publish([str(mine)], to, NOBODY).written
    (to / written).with_name("copy.json").write_bytes((to / written).read_bytes())
    entries = publish([], to, NOBODY).entries
    assert [bool(e.row) for e in entries] == [True, False]
    assert "holds the same measurement" in entries[1].against[0]


def test_a_machine_id_cannot_lead_out_of_the_folder(mine: Path, to: Path):
    result = derive(msgspec.structs.replace(make_result(), host=make_host(machine_id="../../x")))
    path = store.save(result, mine)
    outcome = publish([str(path)], to, NOBODY)
    assert outcome.written == ()
    assert not list(to.parent.glob("x*"))


@pytest.mark.parametrize("what", ["folder", "machine.json", "facts"])
def test_links_and_changed_facts_are_not_written_through(mine: Path, to: Path, tmp_path: Path, what: str):
    result = publishable()
    path = store.save(result, mine)
    home, elsewhere = to / result.host.machine_id, tmp_path / "elsewhere"
    elsewhere.mkdir()
    to.mkdir()
    if what == "folder":
        home.symlink_to(elsewhere)
    else:
        home.mkdir()
        (home / "machine.json").symlink_to(elsewhere / "x") if what == "machine.json" else (
            home / "machine.json"
        ).write_text("{}")
    outcome = publish([str(path)], to, NOBODY)
    assert outcome.written == ()
    assert outcome.refused
    assert list(elsewhere.iterdir()) == []


def test_a_file_that_is_there_is_never_overwritten(mine: Path, to: Path):
    result = publishable()
    path = store.save(result, mine)
    there = to / result.host.machine_id / path.name
    there.parent.mkdir(parents=True)
    there.write_text("mine")
    assert "exists already" in publish([str(path)], to, NOBODY).refused[0][1][0]
    assert there.read_text() == "mine"


def test_folders_are_searched_to_any_depth_but_not_through_links(tmp_path: Path):
    for name in ("a/b/r.json", "a/x.tune.json", "a/machine.json", ".hidden/r.json", "site/index.json", "n.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "loop").symlink_to(tmp_path)
    paths, problems = result_paths([tmp_path])
    assert [p.relative_to(tmp_path).as_posix() for p in paths] == ["a/b/r.json"]
    assert problems == []
    assert result_paths([tmp_path / ".hidden" / "none"])[0] == [tmp_path / ".hidden" / "none"]


def test_another_tools_site_is_not_touched(tmp_path: Path):
    site = tmp_path / "site"
    site.mkdir()
    assert own_pages(site) == {}
    (site / "index.html").write_text("theirs")
    with pytest.raises(InputError, match="did not write"):
        write_site(site, [("index.html", "1", lambda: "ours")], {})
    (site / MANIFEST).write_text('{"schema": "other"}')
    with pytest.raises(InputError, match="did not write"):
        own_pages(site)
    assert (site / "index.html").read_text() == "theirs"


def test_an_index_of_another_tool_is_not_taken_for_ours(to: Path):
    (to / SITE).mkdir(parents=True)
    (to / SITE / INDEX).write_text('{"entries": 3}')
    with pytest.raises(InputError, match="not an index"):
        publish([], to, NOBODY)


def test_only_pages_that_changed_are_rendered(tmp_path: Path):
    site = tmp_path / "site"
    assert write_site(site, [("a.html", "1", lambda: "a"), ("b.html", "1", lambda: "b")], {}) == 2
    assert write_site(site, [("a.html", "2", lambda: "A")], {}) == 1
    assert (site / "a.html").read_text() == "A"
    assert not (site / "b.html").exists()


def test_results_of_two_times_and_machines_stand_apart(mine: Path, to: Path):
    for day, memory in ((1, 8), (2, 16)):
        created = datetime(2026, 3, day, tzinfo=UTC)
        runs = tuple(process(p, requests=3 + day) for p in range(5))
        store.save(publishable(created=created, host=host(memory_bytes=memory << 30), runs=runs), mine)
    outcome = publish([str(mine)], to, NOBODY)
    assert len({Path(p).parent for p in outcome.written}) == 2
    assert encode(store.load(to / outcome.written[0])) == (to / outcome.written[0]).read_bytes()
