"""What is known of a GGUF file that an engine reads itself, and the folder made beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gguf
import pytest
from reference.tiny_checkpoint import FEED_FORWARD, HIDDEN, LAYERS, VOCABULARY, write_tiny

from perjoule.errors import InputError
from perjoule_backends.checkpoints import as_file
from perjoule_backends.checkpoints.as_file import GGUF_LINK, NOTE_FILE, file_folder, read_note
from perjoule_backends.checkpoints.gguf import GgufFile, TensorInfo, read_gguf
from perjoule_backends.checkpoints.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

F32, Q8_0 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0
KV_WIDTH = HIDDEN // 2  # two key-value heads of four
OF_A_LAYER = 2 * HIDDEN * HIDDEN + 2 * KV_WIDTH * HIDDEN + 3 * FEED_FORWARD * HIDDEN
NORMS = (2 * LAYERS + 1) * HIDDEN


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))


def quiet(_text: str, _share: float | None) -> None:
    """Say nothing."""


@pytest.mark.parametrize(("kind", "value_bytes"), [(F32, 4.0), (Q8_0, 34 / 32)])
@pytest.mark.parametrize("tied", [True, False])
def test_bytes_and_counts_are_those_reckoned_by_hand(
    tmp_path: Path, kind: gguf.GGMLQuantizationType, value_bytes: float, *, tied: bool
) -> None:
    table = VOCABULARY * HIDDEN
    matrices = (1 if tied else 2) * table + LAYERS * OF_A_LAYER
    _folder, found = file_folder(str(write_tiny(tmp_path / "t.gguf", "llama", tied=tied, kind=kind)), quiet)
    assert found.parameters == matrices + NORMS
    assert found.bits_per_weight == 8 * value_bytes
    assert found.weights_bytes == matrices * value_bytes + 4 * NORMS
    # every matrix once: a table that is no head is only looked up
    assert found.streamed_bytes_per_token == (table + LAYERS * OF_A_LAYER) * value_bytes + 4 * NORMS
    assert found.kv_values_per_position == LAYERS * 2 * KV_WIDTH
    assert found.kv_bytes_per_position(2.0) == LAYERS * 2 * KV_WIDTH * 2
    assert found.kv_bytes_per_position(34 / 32) == LAYERS * 2 * KV_WIDTH * 34 / 32
    assert (found.vocabulary, found.context) == (VOCABULARY, 64)


def test_the_folder_holds_the_file_itself_our_tokenizer_and_the_note(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "t.gguf", "qwen2")
    folder, found = file_folder(str(path), quiet)
    assert (folder / GGUF_LINK).samefile(path)
    assert load_tokenizer(folder).encode("abab") == [94, 94]
    assert read_note(folder) == found
    assert found.architecture == "qwen2"
    model = found.facts(str(path), quant="faithful", kv_value_bytes=2.0)
    assert (model.ref, model.file_sha256) == ("t.gguf", found.checkpoint.sha256)


def test_a_folder_is_made_once_and_anew_where_it_is_damaged_or_the_file_lies_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny(tmp_path / "t.gguf", "llama")
    folder, found = file_folder(str(path), quiet)
    reads = []
    monkeypatch.setattr(as_file, "read_gguf", lambda p: reads.append(p) or read_gguf(p))
    assert file_folder(str(path), quiet) == (folder, found)
    assert reads == []
    (folder / NOTE_FILE).write_text("{", encoding="utf-8")
    assert file_folder(str(path), quiet) == (folder, found)
    assert len(reads) == 1
    elsewhere = path.rename(tmp_path / "u.gguf")
    other, moved = file_folder(str(elsewhere), quiet)
    assert other != folder
    assert moved.tokenizer_sha256 == found.tokenizer_sha256


def test_a_file_without_a_known_tokenizer_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "t.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError) as caught:
        file_folder(str(path), quiet)
    assert caught.value.hint
    assert [p.name for p in (tmp_path / "cache" / "as-file").iterdir()] == [".lock"]


KEYS: dict[str, Any] = {
    "general.architecture": "x", "x.block_count": 3, "x.embedding_length": 64, "x.attention.head_count": 4,
}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "values"),
    [
        ({}, 3 * 4 * 2 * 16),  # as many key-value heads as heads
        ({"x.attention.head_count_kv": 1}, 3 * 1 * 2 * 16),
        ({"x.attention.head_count_kv": [1, 0, 2]}, 3 * 2 * 16),
        ({"x.attention.key_length": 8, "x.attention.value_length": 4}, 3 * 4 * 12),
        ({"x.block_count": 0}, "how many heads"),
        ({"x.block_count": "three"}, "how many heads"),
        ({"x.attention.head_count": [4, 4]}, "how many heads"),
        ({"x.attention.head_count": -1}, "how many heads"),
        ({"x.embedding_length": 1 << 40}, "how many heads"),
        ({"x.ssm.state_size": 16}, "recurrent"),
        ({"x.attention.kv_lora_rank": 16}, "compressed"),
        ({"x.attention.shared_kv_layers": 1}, "share"),
    ],
)
def test_keys_and_values_of_a_position_or_why_they_are_not_known(more: dict[str, Any], values: int | str) -> None:
    found = as_file._kv_values(KEYS | more, "x")
    if isinstance(values, str):
        assert isinstance(found, str)
        assert values in found
    else:
        assert found == values


def test_what_experts_are_read_is_not_known(tmp_path: Path) -> None:
    tensor = TensorInfo(name="a", shape=(1, 1), type_name="F32", offset=0, nbytes=4)
    file = GgufFile(tmp_path, {"x.expert_count": 8}, {"a": tensor})
    assert "experts" in str(as_file._streamed(file, "x"))
