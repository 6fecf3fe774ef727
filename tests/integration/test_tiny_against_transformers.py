"""Logits of tiny random checkpoints equal those of transformers on the same weights, windows and scalings included."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from perjoule.protocols import EngineOptions

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

from reference import transformers_model
from reference.tiny_checkpoint import VOCABULARY, WINDOW, write_tiny

from perjoule_backends.checkpoints.gguf import read_gguf
from perjoule_backends.onnxruntime import OnnxRuntimeBackend

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.extras

LINEAR: dict[str, float | str] = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}


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
def test_logits_equal_transformers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    factors: bool,
    keys: dict[str, float | str],
    tied: bool,
) -> None:
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    path = write_tiny(tmp_path / "tiny.gguf", architecture, tied=tied, rope_factors=factors, keys=keys)
    options = EngineOptions(threads=1, quant="fp32", context_tokens=64, extra={"spinning": False})
    backend = OnnxRuntimeBackend()
    engine = backend.load(backend.prepare(str(path), options, lambda _text, _share: None), options)
    ids = np.random.default_rng(3).integers(0, VOCABULARY, 4 * WINDOW).tolist()
    expected = transformers_model.logits(transformers_model.load(read_gguf(path)), ids)
    np.testing.assert_allclose(engine.logits(ids), expected, rtol=0, atol=5e-5)
