"""The whole path GGUF file -> converted folder -> ONNX Runtime, held against a decoder in plain numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gguf as gguf_package
import numpy as np
import pytest
from reference import numpy_decoder
from reference.tiny_checkpoint import VOCABULARY, write_tiny

from perjoule.errors import HostError, InputError, UsageError
from perjoule.protocols import EngineOptions, Sampling
from perjoule.quality.fidelity import kl_nats
from perjoule_backends.checkpoints.gguf import read_gguf

pytest.importorskip("onnxruntime")
from perjoule_backends.onnxruntime import OnnxRuntimeBackend

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule_backends.onnxruntime.engine import OnnxRuntimeEngine

IDS = [5, 17, 90, 3, 3, 64, 127, 0, 41, 8, 77, 12]  # longer than the window of the tiny gemma3
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")
Kind = gguf_package.GGMLQuantizationType


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(path: Path, quant: str, context: int = 64, *, fused_mlp: bool = False) -> OnnxRuntimeEngine:
    extra = {"spinning": False, "fused_mlp": fused_mlp}
    options = EngineOptions(threads=1, quant=quant, context_tokens=context, extra=extra)
    backend = OnnxRuntimeBackend()
    return backend.load(backend.prepare(str(path), options, lambda _text, _share: None), options)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_float32_logits_equal_numpy(tmp_path: Path, architecture: str, tied: bool) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", architecture, tied=tied)
    expected = numpy_decoder.logits(read_gguf(path), IDS)
    np.testing.assert_allclose(load(path, "fp32").logits(IDS), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("quant", ["fp32", "faithful"])
@pytest.mark.parametrize("architecture", ["qwen2", "gemma3"])
def test_gate_and_up_as_one_matrix_change_nothing(tmp_path: Path, architecture: str, quant: str) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", architecture, kind=Kind.Q5_0)
    expected = load(path, quant).logits(IDS)
    fused = load(path, quant, fused_mlp=True)
    assert fused.effective_options()["fused_mlp"]
    np.testing.assert_allclose(fused.logits(IDS), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "keys",
    [{"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {"rope.scaling.factor": 4.0}, {}],
    ids=["linear", "factor alone", "none"],
)
@pytest.mark.parametrize("factors", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_scaled_positions_equal_numpy(
    tmp_path: Path, architecture: str, factors: bool, keys: dict[str, float | str]
) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", architecture, rope_factors=factors, keys=keys)
    expected = numpy_decoder.logits(read_gguf(path), IDS)
    np.testing.assert_allclose(load(path, "fp32").logits(IDS), expected, rtol=0, atol=2e-5)
    plain = numpy_decoder.logits(read_gguf(write_tiny(tmp_path / "plain.gguf", architecture)), IDS)
    assert (np.abs(plain - expected).max() > 1e-2) == (factors or bool(keys))


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0])
@pytest.mark.parametrize("quant", ["faithful", "int8"])
def test_quantized_import_stays_close_to_the_file(tmp_path: Path, kind: Kind, quant: str) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "qwen2", kind=kind)
    expected = numpy_decoder.logits(read_gguf(path), IDS).astype(np.float32)
    found = load(path, quant).logits(IDS)
    assert kl_nats(expected, found).mean() < 2e-3
    assert np.abs(found - expected).max() > 0  # it really ran on quantized weights


def test_four_bits_lose_more_than_eight(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    expected = numpy_decoder.logits(read_gguf(path), IDS).astype(np.float32)
    loss = {quant: kl_nats(expected, load(path, quant).logits(IDS)).mean() for quant in ("int8", "int4")}
    assert loss["int8"] < 2e-3 < loss["int4"] < 0.2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_generation_follows_numpy_step_by_step(tmp_path: Path, architecture: str) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", architecture)
    out: list[int] = []
    assert load(path, "fp32").generate(IDS, 20, frozenset(), out.append) == "length"
    ids, file = list(IDS), read_gguf(path)
    for token in out:
        assert token == int(numpy_decoder.logits(file, ids)[-1].argmax())
        ids.append(token)
    assert len(out) == 20


def test_one_engine_answers_the_same_prompt_the_same_way_after_another(tmp_path: Path) -> None:
    engine = load(write_tiny(tmp_path / "tiny.gguf", "llama"), "faithful")
    runs: list[list[int]] = [[], [], []]
    for prompt, out in zip((IDS, IDS[::-1] * 3, IDS), runs, strict=True):
        engine.generate(prompt, 8, frozenset(), out.append)
    assert runs[0] == runs[2] != runs[1]


def test_generation_ends_for_the_right_reason(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    engine = load(path, "fp32", context=len(IDS) + 3)
    out: list[int] = []
    assert engine.generate(IDS, 10, frozenset(), out.append) == "context"
    assert len(out) == 4  # three stand in the cache; the last one needed no place any more
    again: list[int] = []
    assert engine.generate(IDS, 10, frozenset({out[0]}), again.append) == "stop"
    assert again == out[:1]


def test_seeded_sampling_repeats_and_follows_the_distribution(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    engine = load(path, "fp32")

    def first(seed: int) -> int:
        out: list[int] = []
        engine.generate(IDS, 1, frozenset(), out.append, Sampling(temperature=0.5, seed=seed))
        return out[0]

    drawn = [first(seed) for seed in range(400)]
    assert drawn == [first(seed) for seed in range(400)]
    scaled = numpy_decoder.logits(read_gguf(path), IDS)[-1] / 0.5
    expected = np.exp(scaled - scaled.max())
    expected /= expected.sum()
    counts = np.bincount(drawn, minlength=VOCABULARY)
    top = int(expected.argmax())
    assert abs(counts[top] / 400 - expected[top]) < 4 * np.sqrt(expected[top] * (1 - expected[top]) / 400)


def test_prompt_longer_than_the_context_is_refused(tmp_path: Path) -> None:
    engine = load(write_tiny(tmp_path / "tiny.gguf", "llama"), "fp32", context=8)
    with pytest.raises(InputError, match="12 tokens"):
        engine.generate(IDS, 1, frozenset(), lambda _token: None)


def test_unknown_architecture_names_those_that_work(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "mamba")
    with pytest.raises(InputError, match="mamba") as caught:
        load(path, "fp32")
    assert ", ".join(ARCHITECTURES) in caught.value.hint


def test_unknown_quantization_and_option_are_refused(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    with pytest.raises(UsageError, match="int3"):
        load(path, "int3")
    with pytest.raises(UsageError, match="colour"):
        OnnxRuntimeBackend().prepare(str(path), EngineOptions(extra={"colour": True}), lambda _text, _share: None)


def made(cache: Path) -> list[str]:
    return [path.name for path in (cache / "converted").iterdir() if path.name != ".lock"]


def test_second_preparation_reuses_the_folder_and_leaves_no_scrap(tmp_path: Path, cache: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    backend, options = OnnxRuntimeBackend(), EngineOptions(quant="int8")
    first = backend.prepare(str(path), options, lambda _text, _share: None)
    stamp = (first.path / "weights.bin").stat().st_mtime_ns
    second = backend.prepare(str(path), options, lambda _text, _share: None)
    assert second == first
    assert (second.path / "weights.bin").stat().st_mtime_ns == stamp
    assert made(cache) == [first.path.name]


def test_interrupted_conversion_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")

    def interrupt(text: str, _share: float | None) -> None:
        if text == "converting":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        OnnxRuntimeBackend().prepare(str(path), EngineOptions(), interrupt)
    assert made(cache) == []


def test_full_disk_is_told_with_a_hint(tmp_path: Path, cache: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    cache.mkdir()
    (cache / "converted").write_text("a file stands where the folder should be")
    with pytest.raises(HostError, match="converted model") as caught:
        OnnxRuntimeBackend().prepare(str(path), EngineOptions(), lambda _text, _share: None)
    assert "PERJOULE_CACHE" in caught.value.hint


@pytest.mark.parametrize("tied", [True, False])
def test_a_prompt_token_meets_neither_embedding_nor_head(tmp_path: Path, tied: bool) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama", tied=tied)
    model = OnnxRuntimeBackend().prepare(str(path), EngineOptions(), lambda _text, _share: None).model
    sizes = {name: int(np.prod(tensor.shape)) for name, tensor in read_gguf(path).tensors.items()}
    assert model.body_parameters == sum(
        size for name, size in sizes.items() if name not in ("token_embd.weight", "output.weight")
    )


def test_keys_and_values_beyond_a_window_are_not_one_number(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "gemma3")
    window = read_gguf(path).metadata["gemma3.attention.sliding_window"]

    def known(context: int) -> int | None:
        options = EngineOptions(context_tokens=context)
        return OnnxRuntimeBackend().prepare(str(path), options, lambda _text, _share: None).model.kv_bytes_per_position

    assert known(window)
    assert known(window + 1) is None


def test_manifest_facts_add_up(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama", tied=True)
    prepared = OnnxRuntimeBackend().prepare(str(path), EngineOptions(quant="fp32"), lambda _text, _share: None)
    elements = sum(int(np.prod(tensor.shape)) for tensor in read_gguf(path).tensors.values())
    assert prepared.model.parameters == elements
    assert prepared.model.streamed_bytes_per_token == 4 * elements
    assert prepared.model.kv_bytes_per_position == 2 * 2 * 2 * 16 * 4  # K and V, layers, heads, size, bytes
    assert prepared.model.bits_per_weight == 32
