"""ONNX Runtime GenAI on folders of the onnxruntime backend: the same words, and draws from the same distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from reference.tiny_checkpoint import VOCABULARY, WINDOW, write_tiny

from perjoule import registry
from perjoule.errors import EngineError, UsageError
from perjoule.protocols import EngineOptions, Sampling

pytest.importorskip("onnxruntime_genai")

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule.protocols import Engine, Prepared

pytestmark = pytest.mark.extras

CONTEXT = 64  # all that the tiny checkpoints have


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))


def options_of(quant: str = "fp32") -> EngineOptions:
    return EngineOptions(threads=1, quant=quant, context_tokens=CONTEXT, extra={"spinning": False})


def prepared(name: str, path: Path, quant: str = "fp32") -> Prepared:
    return registry.backend(name).prepare(str(path), options_of(quant), lambda _text, _share: None)


def load(name: str, path: Path, quant: str = "fp32") -> Engine:
    return registry.backend(name).load(prepared(name, path, quant), options_of(quant))


@pytest.mark.parametrize("quant", ["fp32", "faithful", "int4"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3"])
def test_both_engines_say_the_same_until_the_context_is_full(tmp_path: Path, architecture: str, quant: str) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", architecture, rope_factors=architecture == "llama")
    engines = [load(name, path, quant) for name in ("onnxruntime", "genai")]
    assert prepared("genai", path, quant).folder == prepared("onnxruntime", path, quant).folder
    for seed, length in enumerate((1, 5, 3 * WINDOW)):
        ids = np.random.default_rng(seed).integers(0, VOCABULARY, length).tolist()
        said: list[list[int]] = [[], []]
        for engine, out in zip(engines, said, strict=True):
            assert engine.generate(ids, 2 * CONTEXT, frozenset(), out.append) == "context"
        assert said[0] == said[1]
        assert len(said[0]) == CONTEXT - length + 1


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_its_logits_are_those_of_the_other_engine(tmp_path: Path, architecture: str) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", architecture)
    ids = np.random.default_rng(1).integers(0, VOCABULARY, 3 * WINDOW).tolist()
    found, expected = (load(name, path).logits(ids) for name in ("genai", "onnxruntime"))  # type: ignore[attr-defined]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_draws_repeat_and_follow_the_whole_distribution(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    engine, ids, temperature = load("genai", path), [5, 17, 90], 2.0

    def first(seed: int) -> int:
        out: list[int] = []
        engine.generate(ids, 1, frozenset(), out.append, Sampling(temperature=temperature, seed=seed))
        return out[0]

    drawn = [first(seed) for seed in range(600)]
    assert drawn == [first(seed) for seed in range(600)]
    logits = load("onnxruntime", path).logits(ids)[-1] / temperature  # type: ignore[attr-defined]
    expected = np.exp(logits - logits.max())
    expected /= expected.sum()
    # At this temperature what lies beyond the fifty likeliest is a good part: it must be drawn as often as it should
    tail = np.argsort(expected)[:-50]
    share = expected[tail].sum()
    assert share > 0.1
    assert abs(np.isin(drawn, tail).mean() - share) < 4 * np.sqrt(share * (1 - share) / len(drawn))


def test_what_is_used_is_said(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "gemma3")
    used = load("genai", path, "faithful").effective_options()
    assert used["quant"] == "faithful"
    assert used["spinning"] is False
    assert used["prefix_reuse"] is False
    assert used["model_type"] == "gemma3_text"


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    whole = prepared("genai", path)
    (whole.path / "genai_config.json").write_text("{")
    with pytest.raises(EngineError) as caught:
        registry.backend("genai").load(whole, options_of())
    assert str(whole.path) in caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "options",
    [EngineOptions(quant="int3"), EngineOptions(device="cuda:0"), EngineOptions(extra={"colour": True})],
)
def test_what_it_cannot_do_is_refused(tmp_path: Path, options: EngineOptions) -> None:
    with pytest.raises(UsageError) as caught:
        registry.backend("genai").prepare(str(tmp_path / "none.gguf"), options, lambda _text, _share: None)
    assert caught.value.hint
