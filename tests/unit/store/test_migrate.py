"""A worked example: a version before the first, made up, whose files still load and can be upgraded."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from builders import make_result

from perjoule import store
from perjoule.cli import main
from perjoule.errors import InputError
from perjoule.records import SCHEMA_VERSION
from perjoule.store import migrate
from perjoule.store.canonical import canonical_json
from perjoule.store.write import encode
from perjoule.upgrade import upgraded
from perjoule.verify import verify

if TYPE_CHECKING:
    from pathlib import Path


def migrate_0_to_1(content: dict[str, Any]) -> dict[str, Any]:
    """The made-up version 0 called ``reproduce`` ``command``, gave loads in ms and knew no settings."""
    content["reproduce"] = content.pop("command")
    content["settings"] = {"seed": 0}
    for process in content["processes"]:
        process["load_s"] = process.pop("load_ms") / 1000
    return content


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file as version 0 would have written it, and let this perjoule know that version."""
    monkeypatch.setitem(migrate.STEPS, 0, migrate_0_to_1)
    content = json.loads(encode(make_result()))
    content["command"] = content.pop("reproduce")
    del content["settings"]
    for process in content["processes"]:
        process["load_ms"] = 1000 * process.pop("load_s")
    content["schema_version"] = 0
    return written(tmp_path / "old.json", content)


def written(path: Path, content: dict[str, Any]) -> Path:
    content.pop("id", None)
    content["id"] = f"sha256:{hashlib.sha256(canonical_json(content)).hexdigest()}"
    path.write_text(json.dumps(content, sort_keys=True), encoding="utf-8")
    return path


def test_every_version_before_the_newest_has_a_step():
    assert sorted(migrate.STEPS) == list(range(migrate.oldest(), SCHEMA_VERSION))


def test_an_older_file_loads(old: Path):
    result = store.load(old)
    assert result.schema_version == SCHEMA_VERSION
    assert result.reproduce == make_result().reproduce


def test_upgrading_keeps_what_was_observed_and_derives_the_rest(old: Path):
    before = old.read_bytes()
    result, steps = upgraded(old)
    assert steps == "version 0 to 1"
    assert result.samples == make_result().samples
    assert verify(result) == []
    assert old.read_bytes() == before


def test_the_command_writes_a_new_file_beside_the_old_one(old: Path, capsys: pytest.CaptureFixture[str]):
    newer = store.save(make_result(reproduce="perjoule run chat"), old.parent)
    assert main(["upgrade", str(old), str(newer), str(old.parent / "none.json")]) == 2
    told = capsys.readouterr()
    assert verify(store.load(told.out.strip())) == []
    assert "newest version already" in told.err
    assert "none.json" in told.err
    assert main(["upgrade", str(old), "--out", str(old.parent / "new")]) == 0


def test_a_changed_old_file_is_not_made_good(old: Path):
    content = json.loads(old.read_bytes())
    content["command"] = "perjoule run chat"
    old.write_text(json.dumps(content))
    with pytest.raises(InputError, match="changed after it was written"):
        upgraded(old)


def test_a_file_that_is_not_like_its_version_is_refused_in_one_line(old: Path):
    content = json.loads(old.read_bytes())
    del content["command"]
    with pytest.raises(InputError, match="not of schema_version 0") as error:
        store.load(written(old, content))
    assert "\n" not in error.value.message


def test_a_version_that_was_never_released_is_refused(tmp_path: Path):
    content = json.loads(encode(make_result())) | {"schema_version": 0}
    with pytest.raises(InputError, match="schema_version 0 is not a version"):
        store.load(written(tmp_path / "zero.json", content))
