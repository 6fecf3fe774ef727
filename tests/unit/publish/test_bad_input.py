"""Whatever lies among good results, they are verified, published and upgraded, and all that is wrong is told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from builders import make_model
from published_results import publishable

from perjoule import store
from perjoule.assemble import derive
from perjoule.cli import main
from perjoule.publish.found import SITE
from perjoule.publish.site import MANIFEST
from perjoule.records import SCHEMA_VERSION
from perjoule.store.canonical import canonical_id
from perjoule.store.write import encode

if TYPE_CHECKING:
    from collections.abc import Callable

WHOLE = encode(publishable())
OBEYED = ("\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\u200b", "<script")


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    content = json.loads(WHOLE)
    change(content)
    return json.dumps(content).encode()


def no_threads() -> bytes:
    """Return a result whose id fits and whose machine has no threads, by which shares are divided."""
    result = publishable()
    cpu = msgspec.structs.replace(result.host.cpu, threads=0)
    result = msgspec.structs.replace(result, host=msgspec.structs.replace(result.host, cpu=cpu))
    return encode(msgspec.structs.replace(result, id=canonical_id(result)))


BAD: dict[str, bytes] = {
    "truncated": WHOLE[: len(WHOLE) // 2],
    "empty": b"",
    "binary": bytes(range(256)),
    "newer": changed(lambda c: c.update(schema_version=SCHEMA_VERSION + 1)),
    "newer-statistics": changed(lambda c: c["tool"].update(statistics=10**6)),
    "zero": changed(lambda c: c.update(schema_version=0)),
    "nan": WHOLE.replace(b'"load_s": ', b'"load_s": NaN, "x": ', 1),
    "twice": WHOLE.replace(b'{\n "backend"', b'{\n "schema_version": 1,\n "backend"', 1),
    "deep": changed(lambda c: c["backend"]["effective_options"].update(x=json.loads("[" * 40 + "]" * 40))),
    "very-deep": b"[" * 100_000,
    "huge-number": WHOLE.replace(b'"load_s": ', b'"load_s": 1e999, "x": ', 1),
    "text-for-number": changed(lambda c: c["processes"][0].update(load_s="0.8")),
    "list-for-object": changed(lambda c: c.update(host=[])),
    "unknown-key": changed(lambda c: c.update({"</script><script>alert(1)\x1b[31m\u202e": 1})),
    "no-threads": no_threads(),
    "spec": changed(lambda c: c["scenario"].update(spec={"name": "\x1b]0;title\x07"})),
    "other-tool": b'{"schema": "other.tool", "schema_version": 1}',
}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    store.save(publishable(), folder)
    for name, data in BAD.items():
        (folder / f"{name}.json").write_bytes(data)
    with (folder / "large.json").open("wb") as file:
        file.truncate(1 << 30)  # nothing of it lies on the disk
    (folder / "dangling.json").symlink_to(tmp_path / "nowhere")
    (folder / "loop.json").symlink_to(folder / "loop.json")
    os.mkfifo(folder / "pipe.json")
    (folder / "folder.json").mkdir()
    return folder


NAMES = {*BAD, "large", "dangling", "loop", "pipe"}


def assert_nothing_is_obeyed(told: str) -> None:
    assert [sign for sign in OBEYED[:-1] if sign in told] == []


@pytest.mark.parametrize("deep", [[], ["--deep"]])
def test_verify_goes_through_all(mine: Path, capsys: pytest.CaptureFixture[str], deep: list[str]):
    assert main(["verify", str(mine), *deep]) == 2  # some are no files
    told = capsys.readouterr()
    assert [line for line in told.out.splitlines() if line.endswith(": ok")] != []
    text = told.out + told.err
    assert [name for name in NAMES if f"{name}.json" not in text] == []
    assert told.out.count("does not hold") == len(BAD) + 1
    assert "update perjoule" in told.out
    assert_nothing_is_obeyed(text)


def test_publish_goes_through_all(mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    to = tmp_path / "to"
    assert main(["publish", str(mine), "--to", str(to)]) == 5
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 1
    assert "1 published" in told.err
    assert [name for name in NAMES if f"{name}.json" not in told.err] == []
    assert_nothing_is_obeyed(told.out + told.err)
    pages = "".join(p.read_text(encoding="utf-8") for p in (to / SITE).glob("*.html"))
    assert "alert(1)" not in pages


def test_upgrade_goes_through_all(mine: Path, capsys: pytest.CaptureFixture[str]):
    before = sorted(mine.iterdir())
    assert main(["upgrade", str(mine)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("not upgraded") == len(NAMES) + 1
    assert sorted(mine.iterdir()) == before
    assert_nothing_is_obeyed(told.err)


@pytest.mark.parametrize("name", ["\x1b[2Jx", "\u202egnp", "<script>alert(1)</script>", "a|b`c`", "new\nline"])
def test_names_of_files_and_models_are_shown_not_obeyed(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str):
    folder, to = tmp_path / "mine", tmp_path / "to"
    result = derive(msgspec.structs.replace(publishable(), model=make_model(name=name)))
    folder.mkdir()
    file = folder / f"{name.replace('/', '')}.json"
    file.write_bytes(encode(result))
    assert main(["verify", str(folder)]) == 0
    main(["publish", str(folder), "--to", str(to)])
    told = capsys.readouterr()
    assert_nothing_is_obeyed(told.out + told.err)
    assert len([line for line in told.out.splitlines() if line.endswith(": ok")]) == 1
    for page in (to / SITE).glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert text.count("<script") == 1
        assert_nothing_is_obeyed(text)


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = store.save(publishable(), tmp_path / "good")
    (tmp_path / "locked").mkdir()
    real = os.scandir

    def refusing(at: Any) -> Any:
        if Path(at).name == "locked":
            raise PermissionError(13, "Permission denied", str(at))
        return real(at)

    monkeypatch.setattr(os, "scandir", refusing)  # whoever runs as root may read everything
    from perjoule.publish.found import result_paths  # noqa: PLC0415

    paths, problems = result_paths([tmp_path])
    assert paths == [path]
    assert problems == [f"{tmp_path / 'locked'}: Permission denied"]


def test_pages_are_not_written_through_links_nor_removed_elsewhere(tmp_path: Path):
    path, to, theirs = store.save(publishable(), tmp_path / "mine"), tmp_path / "to", tmp_path / "theirs.html"
    assert main(["publish", str(path), "--to", str(to)]) == 0
    theirs.write_text("theirs")
    (to / SITE / "index.html").unlink()
    (to / SITE / "index.html").symlink_to(theirs)
    manifest = json.loads((to / SITE / MANIFEST).read_bytes())
    manifest["pages"] |= {"../../theirs.html": "1", str(theirs): "1", "index.html": "0"}
    (to / SITE / MANIFEST).write_text(json.dumps(manifest))
    assert main(["publish", "--to", str(to)]) == 0
    assert theirs.read_text() == "theirs"
    assert not (to / SITE / "index.html").is_symlink()


@pytest.mark.parametrize("what", ["site", "to"])
def test_a_target_that_is_a_file_or_leads_elsewhere(tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]):
    path, to, elsewhere = store.save(publishable(), tmp_path / "mine"), tmp_path / "to", tmp_path / "elsewhere"
    elsewhere.mkdir()
    if what == "site":
        to.mkdir()
        (to / SITE).symlink_to(elsewhere)
    else:
        to.write_text("theirs")
    assert main(["publish", str(path), "--to", str(to)]) == 2
    assert capsys.readouterr().err.startswith("perjoule: error: ")
    assert list(elsewhere.iterdir()) == []
