"""Folders written out by us load in transformers and give the logits of the same weights put in by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from perjoule.protocols import GREEDY, EngineOptions, LogitsEngine, Sampling

pytest.importorskip("torch", reason="the transformers backend is not installed")
pytest.importorskip("transformers", reason="the transformers backend is not installed")
pytest.importorskip("accelerate", reason="the transformers backend is not installed")

import msgspec
import torch
import transformers
from reference import transformers_model
from reference.tiny_checkpoint import CONTEXT, VOCABULARY, WINDOW, write_tiny

from perjoule_backends.checkpoints.gguf import read_gguf
from perjoule_backends.transformers import TransformersBackend

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule.protocols import Engine

pytestmark = pytest.mark.extras

LINEAR: dict[str, float | str] = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
IDS = np.random.default_rng(5).integers(0, VOCABULARY, 4 * WINDOW).tolist()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))


def loaded(path: Path, quant: str = "faithful", **extra: object) -> Engine:
    backend = TransformersBackend()
    options = EngineOptions(threads=1, quant=quant, context_tokens=CONTEXT, extra=extra)
    return backend.load(backend.prepare(str(path), options, lambda _text, _share: None), options)


def logits(engine: Engine) -> np.ndarray:
    assert isinstance(engine, LogitsEngine)
    return engine.logits(IDS)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("architecture", "factors", "keys"),
    [
        ("llama", False, {}),
        ("llama", True, {}),
        ("llama", False, LINEAR),
        ("qwen2", False, {}),
        ("qwen3", False, {}),
        ("gemma3", False, {}),
        ("gemma3", False, LINEAR),
    ],
)
def test_logits_are_those_of_the_same_weights(
    tmp_path: Path, architecture: str, factors: bool, keys: dict[str, float | str], tied: bool
) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", architecture, tied=tied, rope_factors=factors, keys=keys)
    expected = transformers_model.logits(transformers_model.load(read_gguf(path)), IDS)
    np.testing.assert_allclose(logits(loaded(path)), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_stepping_with_the_cache_gives_what_scoring_gives(tmp_path: Path, architecture: str) -> None:
    engine = loaded(write_tiny(tmp_path / "tiny.gguf", architecture))
    prompt, out = IDS[: 2 * WINDOW], []
    engine.generate(prompt, WINDOW, frozenset(), out.append)
    assert isinstance(engine, LogitsEngine)
    scores = engine.logits([*prompt, *out])
    assert out == scores[len(prompt) - 1 : -1].argmax(axis=1).tolist()


def test_bf16_is_near_and_says_what_it_is(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    engine = loaded(path, "bf16")
    near, exact = logits(engine), logits(loaded(path))
    assert near.dtype == np.float32
    assert 0 < np.abs(near - exact).max() < 0.2
    used = engine.effective_options()
    assert (used["quant"], used["dtype"], used["attention"]) == ("bf16", "bfloat16", "sdpa")
    assert used["torch"] == torch.__version__
    assert msgspec.json.decode(msgspec.json.encode(used)) == used


def test_the_attention_asked_for_is_the_one_in_use(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    engine = loaded(path, attention="eager")
    assert engine.effective_options()["attention"] == "eager"
    np.testing.assert_allclose(logits(engine), logits(loaded(path)), rtol=0, atol=2e-5)


def test_sampling_is_seeded(tmp_path: Path) -> None:
    engine = loaded(write_tiny(tmp_path / "tiny.gguf", "llama"))

    def drawn(sampling: Sampling) -> list[int]:
        out: list[int] = []
        engine.generate(IDS[:8], 12, frozenset(), out.append, sampling)
        return out

    first = drawn(Sampling(temperature=1.0, seed=1))
    assert drawn(Sampling(temperature=1.0, seed=1)) == first
    assert len({tuple(first), tuple(drawn(Sampling(temperature=1.0, seed=2))), tuple(drawn(GREEDY))}) == 3


def test_the_folder_is_one_that_anybody_can_load(tmp_path: Path) -> None:
    backend, options = TransformersBackend(), EngineOptions(threads=1, context_tokens=CONTEXT)
    path = write_tiny(tmp_path / "tiny.gguf", "qwen3")
    prepared = backend.prepare(str(path), options, lambda _text, _share: None)
    tokenizer = transformers.AutoTokenizer.from_pretrained(prepared.folder)
    assert tokenizer("abab").input_ids == backend.load(prepared, options).tokenizer.encode("abab")
    model, report = transformers.AutoModelForCausalLM.from_pretrained(prepared.folder, output_loading_info=True)
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.generation_config.eos_token_id == list(prepared.stop_ids)
