"""Synthetic models run: every architecture converts from its shape alone and gives finite logits that are its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from reference import tiny_folder

from perjoule.protocols import EngineOptions
from perjoule_backends.checkpoints import synthetic
from perjoule_backends.checkpoints.resolve import resolve
from perjoule_backends.checkpoints.source import open_weights
from perjoule_backends.onnxruntime.architecture import read_architecture
from perjoule_backends.onnxruntime.convert import converted_folder
from perjoule_backends.onnxruntime.engine import Scorer

IDS = list(range(40))


def silent(_text: str, _share: float | None) -> None:
    return None


def logits(name: str, quant: str) -> np.ndarray:
    checkpoint = resolve(f"synthetic:{name}", silent)
    weights: Any = open_weights(Path(checkpoint.path))
    folder = converted_folder(weights, checkpoint.sha256, read_architecture(weights), quant, silent)
    return Scorer(folder, EngineOptions(threads=1, quant=quant, context_tokens=64)).logits(IDS)


@pytest.mark.parametrize("kind", tiny_folder.CONFIGS)
def test_a_shape_alone_gives_a_model_that_runs(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path))
    shape = synthetic.Shape(source="none", certainty="config.json", config=tiny_folder.config_of(kind))
    other = synthetic.Shape(source="none", certainty="config.json", config=shape.config | {"rms_norm_eps": 1e-6})
    monkeypatch.setattr(synthetic, "shapes", lambda: {"tiny": shape, "other": other})
    found = logits("tiny", "fp32")
    assert np.isfinite(found).all()
    assert 0.3 < found.std() < 3
    np.testing.assert_allclose(logits("tiny", "int8"), found, atol=0.3)
    assert not np.allclose(logits("other", "fp32"), found, atol=0.3)  # another name, other numbers
