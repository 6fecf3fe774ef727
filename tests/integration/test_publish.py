"""`perjoule publish` from end to end: folders of two people merge, and what a machine would give away stays at home."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from published_results import host, process, publishable

from perjoule import store
from perjoule.cli import main

GIT = ["git", "-c", "user.name=n", "-c", "user.email=n@example.invalid", "-c", "init.defaultBranch=main"]


def git(folder: Path, *words: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    return subprocess.run(
        [*GIT, *words], cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout


def one(folder: Path, number: int, **changes: object) -> Path:
    """Save a result that no other number gives."""
    created = datetime(2026, 3, 1 + number, tzinfo=UTC)
    runs = tuple(process(p, requests=3 + number) for p in range(5))
    return store.save(publishable(created=created, runs=runs, **changes), folder)


def test_publish_says_what_it_did_and_makes_the_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, to = one(tmp_path / "mine", 1), tmp_path / "to"
    assert main(["publish", str(path), "--to", str(to)]) == 0
    told = capsys.readouterr()
    [written] = told.out.splitlines()
    assert Path(written).is_file()
    assert "1 published, 0 there already, 0 refused, 0 not read" in told.err
    assert path.name in (to / "site" / "index.html").read_text(encoding="utf-8")
    before = {p.name: p.stat().st_mtime_ns for p in (to / "site").glob("*.html")}
    assert main(["publish", str(path), "--to", str(to)]) == 0
    assert "is published already" in capsys.readouterr().err
    assert {p.name: p.stat().st_mtime_ns for p in (to / "site").glob("*.html")} == before


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    mine, to = tmp_path / "mine", tmp_path / "to"
    good = one(mine, 1)
    few = store.save(publishable(runs=tuple(process(p) for p in range(2))), mine)
    bad = mine / "bad.json"
    bad.write_text("{")
    assert main(["publish", str(good), str(bad), "--to", str(to)]) == 2
    assert main(["publish", str(good), str(few), str(bad), "--to", str(to)]) == 5
    told = capsys.readouterr().err
    assert "few_processes" in told
    assert "not strict JSON" in told
    assert main(["publish", "--to", str(to)]) == 0
    assert main(["publish", str(tmp_path / "none.json"), "--to", str(to)]) == 2


def test_another_tools_site_is_left_alone_and_nothing_is_published(tmp_path: Path):
    path, to = one(tmp_path / "mine", 1), tmp_path / "to"
    (to / "site").mkdir(parents=True)
    (to / "site" / "index.html").write_text("theirs")
    assert main(["publish", str(path), "--to", str(to)]) == 2
    assert [p.relative_to(to).as_posix() for p in to.rglob("*") if p.is_file()] == ["site/index.html"]


def test_what_looks_private_can_be_let_pass_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, to = one(tmp_path / "mine", 1, host=host(kernel="SC8280XP")), tmp_path / "to"
    assert main(["publish", str(path), "--to", str(to)]) == 5
    assert "host.kernel: 'SC8280XP' looks like a serial number" in capsys.readouterr().err
    assert main(["publish", str(path), "--to", str(to), "--not-private", "SC8280XP"]) == 0


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_folders_of_two_people_merge_without_conflict(tmp_path: Path):
    base = tmp_path / "base"
    base.mkdir()
    git(base, "init", "-q")
    (base / ".gitignore").write_text("site/\n")
    git(base, "add", "-A")
    git(base, "commit", "-qm", "empty")
    people = []
    for number in (1, 2):
        clone = tmp_path / f"clone{number}"
        git(tmp_path, "clone", "-q", str(base), str(clone))
        # both measured on machines of one kind, and both publish one result that the other has too
        paths = [one(tmp_path / f"mine{number}", number), one(tmp_path / f"mine{number}", 3)]
        assert main(["publish", *map(str, paths), "--to", str(clone)]) == 0
        git(clone, "add", "-A")
        git(clone, "commit", "-qm", f"results {number}")
        people.append(clone)
    git(people[0], "pull", "-q", "--no-rebase", "--no-edit", str(people[1]))
    assert main(["publish", "--to", str(people[0])]) == 0
    page = (people[0] / "site" / "index.html").read_text(encoding="utf-8")
    assert page.count("<tr id=") == 3
    assert git(people[0], "status", "--porcelain") == ""


def test_a_planted_machine_gives_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = "/ho" + "me/mallory"
    secrets = ["mallory", "vault-17", "10.11.12.13", "de:ad:be:ef:00:01", "WD40EFRX123"]
    monkeypatch.setenv("USER", "mallory")
    monkeypatch.setattr("socket.gethostname", lambda: "vault-17")
    command = f"perjoule run quickstart --model {home}/tiny.gguf --meter shelly:http://10.11.12.13"
    for number, changes in enumerate((
        {"reproduce": command},
        {"host": host(libraries={"numpy": "2.0.0", "built-by": "mallory@vault-17"})},
        {"host": host(kernel="6.1-vault-17")},
        {"host": host(container="de:ad:be:ef:00:01")},
        {"host": host(virtualization="kvm WD40EFRX123")},
    )):  # fmt: skip
        one(tmp_path / "mine", number, **changes)
    to = tmp_path / "to"
    assert main(["publish", str(tmp_path / "mine"), "--to", str(to)]) == 5
    published = [p for p in to.rglob("*") if p.is_file()]
    assert any(p.name == "machine.json" for p in published)
    everything = b"".join(p.read_bytes() for p in published)
    assert [s for s in secrets if s.encode() in everything] == []
