"""Sequences that decode together on tiny checkpoints: in company as alone, whoever comes and goes."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
from company import comings_and_goings, seat
from hypothesis import HealthCheck, given, settings
from reference import numpy_decoder
from reference.tiny_checkpoint import VOCABULARY, write_tiny

from perjoule.errors import EngineError, UsageError
from perjoule.protocols import EngineOptions
from perjoule.quality.fidelity import kl_nats
from perjoule_backends.checkpoints.gguf import read_gguf

pytest.importorskip("onnxruntime")
from perjoule_backends.onnxruntime import OnnxRuntimeBackend
from perjoule_backends.onnxruntime.batch import Rows
from perjoule_backends.onnxruntime.forward import KeyValueCache
from perjoule_backends.onnxruntime.manifest import read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from perjoule.protocols import Prepared
    from perjoule_backends.onnxruntime.engine import OnnxRuntimeEngine

CONTEXT, PLACES, LONGEST = 32, 4, 12


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))


def options_of(quant: str, places: int = PLACES) -> EngineOptions:
    return EngineOptions(
        threads=1, quant=quant, context_tokens=CONTEXT, batch=places, extra={"spinning": False}
    )  # fmt: skip


def prepare(path: Path, quant: str, places: int = PLACES) -> Prepared:
    return OnnxRuntimeBackend().prepare(str(path), options_of(quant, places), lambda _text, _share: None)


def load(path: Path, quant: str, places: int = PLACES) -> OnnxRuntimeEngine:
    engine: OnnxRuntimeEngine = OnnxRuntimeBackend().load(
        prepare(path, quant, places), options_of(quant, places)
    )  # fmt: skip
    return engine


@pytest.fixture(params=["llama", "qwen2", "qwen3", "gemma3"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> OnnxRuntimeEngine:
    return load(write_tiny(tmp_path / "tiny.gguf", request.param), "fp32")


def solo(engine: OnnxRuntimeEngine) -> Callable[[tuple[int, ...]], list[int]]:
    @cache
    def say(prompt: tuple[int, ...]) -> list[int]:
        out: list[int] = []
        engine.generate(prompt, CONTEXT, frozenset(), out.append)
        return out

    return say


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=comings_and_goings(VOCABULARY, PLACES, LONGEST))
def test_whoever_joins_and_leaves_each_sequence_goes_on_as_alone(
    engine: OnnxRuntimeEngine, events: list[tuple[int, ...] | int | str]
) -> None:
    say = solo(engine)
    for prompt, said in seat(engine.batch(), PLACES, events):
        assert said == say(prompt)[: len(said)]


@pytest.mark.parametrize("quant", ["fp32", "faithful", "int8"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3"])
def test_logits_of_rows_of_different_lengths_are_those_of_numpy(tmp_path: Path, architecture: str, quant: str) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", architecture)
    random = np.random.default_rng(4)
    texts = [random.integers(0, VOCABULARY, length).tolist() for length in (2, CONTEXT, 9, 17)]
    engine, file = load(path, quant), read_gguf(path)
    rows = Rows(engine._session, engine._cache, engine._manifest)
    for place, ids in enumerate(texts):
        rows.prefill(place, ids[:-1])
    found = rows.decode([ids[-1] for ids in texts], [len(ids) - 1 for ids in texts])
    expected = np.array([numpy_decoder.logits(file, ids)[-1] for ids in texts], dtype=np.float32)
    if quant == "fp32":
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    else:
        assert kl_nats(expected, found).max() < 4e-3


def test_what_the_cache_takes_is_said_and_is_what_the_model_says(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    model = prepare(path, "fp32").model
    assert model.kv_bytes_per_position is not None
    for places in (1, 3):
        used = load(path, "fp32", places).effective_options()
        assert used["batch"] == places
        assert used["kv_cache_bytes"] == places * CONTEXT * model.kv_bytes_per_position


def test_a_move_copies_what_is_used_and_no_more(tmp_path: Path) -> None:
    manifest = read_manifest(prepare(write_tiny(tmp_path / "tiny.gguf", "llama"), "fp32").path)
    cache = KeyValueCache(manifest, 6, places=3)
    arrays = [array for parts in cache._layers for array in parts.values()]
    for number, array in enumerate(arrays):
        assert not array.any()
        assert array.ctypes.data % 64 == 0
        array[2] = number + 1
    cache.move(2, 0, 4)
    for number, array in enumerate(arrays):
        assert (array[0, :, :4] == number + 1).all()
        assert not array[0, :, 4:].any()
        assert not array[1].any()


def test_a_batch_ends_with_the_next_one_and_with_generate(tmp_path: Path) -> None:
    engine = load(write_tiny(tmp_path / "tiny.gguf", "llama"), "fp32")
    first = engine.batch()
    first.add([1, 2])
    second = engine.batch()
    second.add([3])
    engine.generate([5], 1, frozenset(), lambda _token: None)
    for batch in (first, second):
        for use in (batch.step, lambda batch=batch: batch.add([1]), lambda batch=batch: batch.remove(0)):
            with pytest.raises(EngineError, match="has ended") as caught:
                use()
            assert caught.value.hint


@pytest.mark.parametrize("places", [0, -1])
def test_a_batch_of_nobody_is_refused(tmp_path: Path, places: int) -> None:
    with pytest.raises(UsageError, match="batch"):
        prepare(write_tiny(tmp_path / "tiny.gguf", "llama"), "fp32", places)
