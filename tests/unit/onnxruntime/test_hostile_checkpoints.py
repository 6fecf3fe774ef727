"""Files whose header can be read but makes no sense: one line before any weight is read, never a crash."""

from __future__ import annotations

import struct
import tracemalloc
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from gguf import GGMLQuantizationType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import tiny_checkpoint
from reference.tiny_checkpoint import write_tiny

from perjoule.errors import EngineError, HostError, InputError, PerjouleError
from perjoule.protocols import EngineOptions, Prepared
from perjoule_backends.checkpoints.gguf import GgufFile, read_gguf

pytest.importorskip("onnxruntime")
from perjoule_backends.checkpoints import cache as cache_module
from perjoule_backends.checkpoints import resolve
from perjoule_backends.onnxruntime import OnnxRuntimeBackend, convert
from perjoule_backends.onnxruntime.architecture import read_architecture
from perjoule_backends.onnxruntime.manifest import read_manifest

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = EngineOptions(threads=1, context_tokens=32, extra={"spinning": False})
NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny.gguf", "llama")


def silent(_text: str, _share: float | None) -> None:
    return None


def prepare(path: Path) -> Prepared:
    prepared: Prepared = OnnxRuntimeBackend().prepare(str(path), OPTIONS, silent)
    return prepared


def run_through(path: Path) -> None:
    """Prepare, load and generate; only a ``PerjouleError`` may end it early."""
    backend = OnnxRuntimeBackend()
    engine = backend.load(backend.prepare(str(path), OPTIONS, silent), OPTIONS)
    engine.generate(engine.tokenizer.encode("ab ab")[:8] or [1], 2, frozenset(), lambda _token: None)


def set_key(path: Path, key: str, kind: int, value: bytes) -> None:
    """Overwrite type and value of a 32-bit metadata key."""
    content = bytearray(path.read_bytes())
    name = struct.pack("<Q", len(key)) + key.encode()
    at = content.find(name) + len(name)
    content[at : at + 4 + len(value)] = struct.pack("<I", kind) + value
    path.write_bytes(content)


UINT32, FLOAT32 = 4, 6


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_count", 2**32 - 1),
        ("block_count", 50_000_000),
        ("block_count", NAN),
        ("block_count", INFINITY),
        ("block_count", 1.5),
        ("context_length", 2**32 - 1),
        ("context_length", 0),
        ("embedding_length", 2**31),
        ("feed_forward_length", 2**31),
        ("attention.head_count", 2**31),
        ("attention.head_count", 3),
        ("attention.head_count_kv", 3),
        ("attention.head_count_kv", 2**31),
        ("rope.freq_base", NAN),
        ("rope.freq_base", INFINITY),
        ("rope.freq_base", -1.0),
        ("attention.layer_norm_rms_epsilon", NAN),
    ],
)
def test_numbers_that_make_no_sense_are_refused_at_once(tiny: Path, cache: Path, key: str, value: float) -> None:
    raw = (UINT32, struct.pack("<I", value)) if isinstance(value, int) else (FLOAT32, struct.pack("<f", value))
    set_key(tiny, f"llama.{key}", *raw)
    prepare_is_refused(tiny)
    assert not cache.exists()


def prepare_is_refused(path: Path) -> str:
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            prepare(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20  # a class imported on the way is the most of it
    assert caught.value.hint
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300
    return caught.value.message


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"HIDDEN": 40, "FEED_FORWARD": 48}, "multiple of 16"),
        ({"FEED_FORWARD": 100}, "feed_forward_length is 100"),
        ({"HEADS": 64, "KV_HEADS": 32}, "multiple of 8"),
        ({"KV_HEADS": 3}, "multiple of 3"),
    ],
)
def test_shapes_that_no_operator_takes_are_refused(
    tmp_path: Path, changes: dict[str, int], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in changes.items():
        monkeypatch.setattr(tiny_checkpoint, name, value)
    assert why in prepare_is_refused(write_tiny(tmp_path / "odd.gguf", "llama"))


@pytest.mark.parametrize(
    ("architecture", "keys", "why"),
    [
        ("llama", {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}, "rotary scaling 'yarn'"),
        ("llama", {"rope.scaling.factor": NAN}, "rope.scaling.factor"),
        ("llama", {"rope.scale_linear": -1.0}, "rope.scale_linear"),
        ("llama", {"rope.dimension_count": 8}, "rope.dimension_count 8 beside heads of 16"),
        ("llama", {"attention.value_length": 8}, "attention.value_length 8"),
        ("llama", {"attention.sliding_window": 16}, "sliding window of 16"),
        ("qwen2", {"attention.scale": 0.5}, "attention.scale 0.5"),
        ("qwen3", {"logit_scale": 2.0}, "logit_scale 2.0"),
        ("gemma3", {"final_logit_softcapping": 30.0}, "final_logit_softcapping 30.0"),
        ("gemma3", {"attention.sliding_window_pattern": [True] * 5}, "pattern of windows"),
        ("gemma3", {"attention.sliding_window_pattern": [1, 1, 1, 1, 1, 0]}, "pattern of windows"),
        ("gemma3", {"attention.sliding_window_pattern": 0}, "sliding_window_pattern is 0"),
        ("gemma3", {"rope.freq_base_swa": INFINITY}, "rope.freq_base_swa"),
    ],
)
def test_what_would_run_but_be_wrong_is_refused(
    tmp_path: Path, architecture: str, keys: dict[str, Any], why: str
) -> None:
    assert why in prepare_is_refused(write_tiny(tmp_path / "tiny.gguf", architecture, keys=keys))


@pytest.mark.parametrize(
    "keys",
    [
        {"logit_scale": 1.0, "attention.scale": 0.0},
        {"attention.sliding_window": 64},
        {"rope.scaling.type": "none", "rope.scaling.factor": 4.0},
        {"rope.scaling.factor": 0.0},
    ],
)
def test_keys_that_change_nothing_are_no_reason(tmp_path: Path, keys: dict[str, Any]) -> None:
    found = read_manifest(prepare(write_tiny(tmp_path / "tiny.gguf", "llama", keys=keys)).path).architecture
    assert found == read_manifest(prepare(write_tiny(tmp_path / "plain.gguf", "llama")).path).architecture


def test_a_window_for_each_layer_is_read(tmp_path: Path) -> None:
    flags = [False, True, True, False, True, False]
    path = write_tiny(tmp_path / "tiny.gguf", "gemma3", keys={"attention.sliding_window_pattern": flags})
    assert read_manifest(prepare(path).path).architecture.window_layers == (1, 2, 4)


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_how_rotary_pairs_lie_is_as_the_source_says(tmp_path: Path, architecture: str) -> None:
    file = read_gguf(write_tiny(tmp_path / "tiny.gguf", architecture))

    def read(**said: object) -> bool:
        keys = {f"perjoule.{key}": value for key, value in said.items()}
        return read_architecture(GgufFile(file.path, {**file.metadata, **keys}, file.tensors)).rotary_interleaved

    assert read() == (architecture == "llama")
    assert read(rotary_interleaved=True)
    assert not read(rotary_interleaved=False)
    with pytest.raises(InputError, match="rotary_interleaved"):
        read(rotary_interleaved=1)


@pytest.mark.parametrize("name", ["blk.1.attn_output.bias", "blk.0.attn_q_norm.weight", "mm.projection.weight"])
def test_a_tensor_that_would_be_left_out_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = tiny_checkpoint.shapes
    monkeypatch.setattr(tiny_checkpoint, "shapes", lambda *args, **kwargs: shapes(*args, **kwargs) | {name: (64,)})
    assert name in prepare_is_refused(write_tiny(tmp_path / "tiny.gguf", "llama"))


@pytest.mark.parametrize("value", [0.0, -1.0, NAN, INFINITY])
def test_rotary_factors_that_divide_by_nothing_are_refused(tmp_path: Path, value: float) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama", rope_factors=True)
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, read_gguf(path).tensors["rope_freqs.weight"].offset, value)
    path.write_bytes(content)
    with pytest.raises(InputError, match="rope_freqs"):
        prepare(path)


def test_a_block_whose_scale_is_no_number_is_refused(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama", kind=GGMLQuantizationType.Q4_0)
    content = bytearray(path.read_bytes())
    struct.pack_into("<e", content, read_gguf(path).tensors["blk.0.ffn_up.weight"].offset, NAN)
    path.write_bytes(content)
    with pytest.raises(InputError, match="ffn_up"):
        prepare(path)


def test_more_tokens_than_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = tiny_checkpoint._add_tokenizer

    def add_more(writer: object) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(tiny_checkpoint, "VOCABULARY", 400)
            add(writer)  # type: ignore[arg-type]

    monkeypatch.setattr(tiny_checkpoint, "_add_tokenizer", add_more)
    assert "400 tokens" in prepare_is_refused(write_tiny(tmp_path / "tokens.gguf", "llama"))


@pytest.mark.parametrize("value", [NAN, INFINITY, 3e38])
@pytest.mark.parametrize("tensor", ["token_embd.weight", "output_norm.weight", "blk.1.ffn_up.weight"])
@pytest.mark.parametrize("quant", ["faithful", "fp32"])
def test_values_that_are_no_weights_are_refused_by_name(
    tiny: Path, cache: Path, tensor: str, value: float, quant: str
) -> None:
    content = bytearray(tiny.read_bytes())
    struct.pack_into("<f", content, read_gguf(tiny).tensors[tensor].offset, value)
    tiny.write_bytes(content)
    with pytest.raises(InputError, match=tensor):
        OnnxRuntimeBackend().prepare(str(tiny), EngineOptions(quant=quant), silent)
    assert [p.name for p in (cache / "converted").iterdir()] == [".lock"]


def test_size_is_judged_before_a_file_is_hashed(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "sha256_of", lambda _path, _progress: pytest.fail("a terabyte takes an hour to hash"))
    with monkeypatch.context() as patch:
        patch.setattr(resolve, "physical_memory", lambda: 1000)
        assert "GB of memory" in prepare_is_refused(tiny)
    with tiny.open("rb+") as file:
        file.truncate(2**40)  # sparse
    assert "follow the last tensor" in prepare_is_refused(tiny)


def test_weights_that_no_memory_holds_are_refused_before_any_is_written(
    tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "physical_memory", lambda: 50_000)
    assert "of memory" in prepare_is_refused(tiny)
    assert not cache.exists()


def test_a_disk_without_room_is_said_before_any_is_written(
    tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = cache_module.shutil.disk_usage(".")
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(HostError, match="no space for the converted"):
        prepare(tiny)
    assert [p.name for p in (cache / "converted").iterdir()] == [".lock"]


@pytest.mark.parametrize("kind", ["F32", "Q4_0", "Q8_0"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_the_space_asked_for_is_about_what_is_written(tmp_path: Path, architecture: str, kind: str) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", architecture, kind=GGMLQuantizationType[kind])
    for quant in ("faithful", "int4", "fp32"):
        folder = OnnxRuntimeBackend().prepare(str(path), EngineOptions(quant=quant), silent).path
        written = (folder / "weights.bin").stat().st_size
        needed = convert.needed_bytes(read_gguf(path), read_manifest(folder).architecture, quant)
        assert written <= needed + 4096 * 2 * len(read_gguf(path).tensors)  # at most a page for each array
        assert needed <= 1.1 * written


@pytest.mark.parametrize("name", ["n" * 240, "\u6a21" * 80])
def test_a_long_name_is_no_error(tiny: Path, name: str) -> None:
    path = tiny.rename(tiny.with_name(f"{name}.gguf"))
    assert prepare(path).path.exists()


def test_a_damaged_cache_is_made_anew_or_named(tiny: Path) -> None:
    prepared = prepare(tiny)
    (prepared.path / "manifest.json").write_text("")
    assert prepare(tiny) == prepared
    with (prepared.path / "weights.bin").open("rb+") as file:
        file.truncate(100)
    with pytest.raises(EngineError) as caught:
        OnnxRuntimeBackend().load(prepared, OPTIONS)
    assert str(prepared.path) in caught.value.hint


def test_scrap_of_killed_conversions_is_removed_by_the_next(tiny: Path, cache: Path) -> None:
    scrap = cache / "converted" / ".converting-killed"
    scrap.mkdir(parents=True)
    (scrap / "weights.bin").write_bytes(b"half")
    prepare(tiny)
    assert not scrap.exists()


INTERESTING = (0, 1, 2, 3, 8, 9, 15, 31, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63, 2**64 - 1)


@settings(
    max_examples=400,
    deadline=timedelta(seconds=5),  # one takes 3 ms: a hostile header must not buy time
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_no_mutation_of_a_whole_checkpoint_crashes_the_path_to_the_first_token(
    tiny: Path, tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(tiny.read_bytes())
    table = min(t.offset for t in read_gguf(tiny).tensors.values())
    places = st.one_of(st.integers(0, 700), st.integers(table - 1500, table - 9), st.integers(0, len(content) - 9))
    for _ in range(data.draw(st.integers(1, 3))):
        at, width = data.draw(places), data.draw(st.sampled_from([1, 4, 8]))
        number = data.draw(st.one_of(st.sampled_from(INTERESTING), st.integers(0, 2**64 - 1)))
        content[at : at + width] = number.to_bytes(8, "little")[:width]
    path = tmp_path / "mutated.gguf"
    path.write_bytes(content)
    try:
        run_through(path)
    except PerjouleError as error:
        told = error
        assert told.hint
        assert "\n" not in told.message
        assert len(told.message) < 400
