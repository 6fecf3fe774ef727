"""OpenVINO on tiny checkpoints of 16-bit weights: logits of the numpy reference, tokens as they come, clear errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest
from reference import numpy_decoder
from reference.tiny_checkpoint import HIDDEN, LAYERS, VOCABULARY, write_tiny

from perjoule.errors import EngineError, InputError
from perjoule.protocols import EngineOptions, Sampling
from perjoule.quality.fidelity import kl_nats
from perjoule_backends.checkpoints.gguf import read_gguf

pytest.importorskip("openvino_genai", reason="openvino-genai is not installed: pip install 'perjoule[openvino]'")
from perjoule_backends.openvino import OpenVinoBackend, convert

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule_backends.openvino.engine import OpenVinoEngine

pytestmark = pytest.mark.extras

CONTEXT = 32
F16 = gguf.GGMLQuantizationType.F16
EXACT = {"precision": "f32", "kv_type": "f32"}
PROMPT = (5, 17, 90, 3, 3, 64)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))


def options_of(extra: dict[str, Any] | None = None) -> EngineOptions:
    return EngineOptions(threads=1, context_tokens=CONTEXT, extra=EXACT if extra is None else extra)


def load(path: Path, extra: dict[str, Any] | None = None) -> OpenVinoEngine:
    backend, options = OpenVinoBackend(), options_of(extra)
    return backend.load(backend.prepare(str(path), options, quiet), options)  # type: ignore[return-value]


def quiet(_text: str, _share: float | None) -> None:
    """Say nothing."""


@pytest.fixture(params=["sdpa", "paged"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> OpenVinoEngine:
    return load(write_tiny(tmp_path / "tiny.gguf", "llama", kind=F16), EXACT | {"attention": request.param})


def say(engine: OpenVinoEngine, prompt: tuple[int, ...], count: int = 20, **sampling: Any) -> list[int]:
    out: list[int] = []
    engine.generate(prompt, count, frozenset(), out.append, Sampling(**sampling))
    return out


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
@pytest.mark.parametrize("length", [1, 60])
def test_logits_of_every_position_are_those_of_numpy(
    tmp_path: Path, architecture: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perjoule_backends.openvino.engine._SCORED_AT_ONCE", 25)
    path = write_tiny(tmp_path / "tiny.gguf", architecture, kind=F16)
    ids = np.random.default_rng(4).integers(0, VOCABULARY, length).tolist()
    expected = numpy_decoder.logits(read_gguf(path), ids).astype(np.float32)
    engine = load(path)
    found = engine.logits(ids)
    assert found.shape == expected.shape
    assert kl_nats(expected, found).max() < 1e-5
    np.testing.assert_array_equal(engine.logits(ids), found)


def test_the_pipeline_says_what_the_logits_say(engine: OpenVinoEngine) -> None:
    said = say(engine, PROMPT)
    logits = engine.logits([*PROMPT, *said[:-1]])
    assert said == logits[len(PROMPT) - 1 :].argmax(axis=1).tolist()


def test_the_end_that_is_named_to_genai_ends_nothing(engine: OpenVinoEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    said = say(engine, PROMPT)
    monkeypatch.setattr("perjoule_backends.openvino.engine._NAMED_END", said[1])
    assert say(engine, PROMPT) == said


def test_what_a_callback_raises_comes_out_and_ends_it(engine: OpenVinoEngine) -> None:
    seen: list[int] = []

    def fails(token: int) -> None:
        seen.append(token)
        if len(seen) == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        engine.generate(PROMPT, 20, frozenset(), fails)
    assert len(seen) == 3
    assert say(engine, PROMPT)[:3] == seen


def test_sampling_is_seeded(engine: OpenVinoEngine) -> None:
    drawn = say(engine, PROMPT, temperature=5.0, seed=1)
    assert say(engine, PROMPT, temperature=5.0, seed=1) == drawn
    assert say(engine, PROMPT, temperature=5.0, seed=2) != drawn


def test_what_it_really_uses_is_read_back(engine: OpenVinoEngine) -> None:
    used = engine.effective_options()
    assert used["read_back"] == "from the compiled model"
    assert (used["threads"], used["activations"], used["kv_cache"]) == (1, "f32", "f32")
    assert used["prefix_cache"] is False


def test_bytes_are_those_of_what_it_made_of_the_file(tmp_path: Path) -> None:
    backend = OpenVinoBackend()
    for tied in (True, False):
        path = write_tiny(tmp_path / f"{tied}.gguf", "llama", kind=F16, tied=tied)
        model = backend.prepare(str(path), options_of(), quiet).model
        weights = backend.load(backend.prepare(str(path), options_of(), quiet), options_of())
        assert weights is not None
        assert model.streamed_bytes_per_token is not None
        looked_up = 0 if tied else 2 * VOCABULARY * HIDDEN
        assert model.weights_bytes - model.streamed_bytes_per_token == looked_up
        assert 16 <= model.bits_per_weight < 17  # small tables of positions beside the matrices
        assert model.kv_bytes_per_position == 4 * LAYERS * HIDDEN


def test_a_file_that_it_does_not_read_is_refused_with_its_reason(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")  # matrices of 32 bits
    with pytest.raises(EngineError, match=r"cannot read tiny\.gguf: Unsupported quantization type") as caught:
        load(path)
    assert caught.value.exit_code == 4
    assert "it holds F32 of architecture llama" in caught.value.hint
    left = [p.name for p in (tmp_path / "cache" / "openvino").iterdir()]
    assert left == [".lock"]


def test_a_folder_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, backend = write_tiny(tmp_path / "tiny.gguf", "llama", kind=F16), OpenVinoBackend()
    first = backend.prepare(str(path), options_of(), quiet)
    monkeypatch.setattr(convert, "_read", lambda *_: pytest.fail("it was read again"))
    assert backend.prepare(str(path), options_of(), quiet) == first


def test_nothing_to_score_is_refused(engine: OpenVinoEngine) -> None:
    with pytest.raises(InputError, match="0 tokens"):
        engine.logits([])
