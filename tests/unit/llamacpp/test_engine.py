"""llama.cpp on tiny checkpoints: logits of the numpy reference, whoever comes and goes, and errors in one line."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from company import comings_and_goings, seat
from hypothesis import HealthCheck, given, settings
from reference import numpy_decoder
from reference.tiny_checkpoint import VOCABULARY, write_tiny

from perjoule.errors import EngineError, InputError
from perjoule.protocols import EngineOptions, Sampling
from perjoule.quality.fidelity import kl_nats
from perjoule_backends.checkpoints.gguf import read_gguf

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: pip install 'perjoule[llamacpp]'")
from perjoule_backends.llamacpp import LlamaCppBackend
from perjoule_backends.llamacpp.context import Context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from perjoule_backends.llamacpp.engine import LlamaCppEngine

pytestmark = pytest.mark.extras

CONTEXT, PLACES, LONGEST = 32, 4, 12
EXACT = {"kv_type": "f32"}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))


def load(path: Path, extra: dict[str, Any] | None = None, places: int = PLACES) -> LlamaCppEngine:
    options = EngineOptions(threads=1, context_tokens=CONTEXT, batch=places, extra=EXACT if extra is None else extra)
    backend = LlamaCppBackend()
    return backend.load(backend.prepare(str(path), options, lambda _text, _share: None), options)  # type: ignore[return-value]


@pytest.fixture(params=["llama", "qwen2"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> LlamaCppEngine:
    return load(write_tiny(tmp_path / "tiny.gguf", request.param))


def say(engine: LlamaCppEngine, prompt: tuple[int, ...], count: int = CONTEXT, **sampling: Any) -> list[int]:
    out: list[int] = []
    engine.generate(prompt, count, frozenset(), out.append, Sampling(**sampling))
    return out


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
@pytest.mark.parametrize(
    "extra", [EXACT, EXACT | {"flash_attn": False}, EXACT | {"batch": 7, "ubatch": 3}, {"mmap": False}]
)
def test_logits_of_every_position_are_those_of_numpy(tmp_path: Path, architecture: str, extra: dict[str, Any]) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", architecture)
    ids = np.random.default_rng(4).integers(0, VOCABULARY, 60).tolist()  # more than what is generated may hold
    expected = numpy_decoder.logits(read_gguf(path), ids)
    found = load(path, extra).logits(ids)
    exact = extra.get("flash_attn") is False  # flash attention multiplies in 16 bits, whatever the cache is kept in
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 if exact else 3e-2)
    assert kl_nats(expected.astype(np.float32), found).max() < (1e-9 if exact else 1e-4)


def test_a_prompt_cut_into_passes_says_what_it_says_whole(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    prompt = tuple(range(40, 63))
    whole = say(load(path), prompt)
    assert len(whole) == CONTEXT - len(prompt) + 1
    for extra in ({"batch": 5}, {"batch": 23, "ubatch": 1}, {"batch": 22}):
        assert say(load(path, EXACT | extra), prompt) == whole


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=comings_and_goings(VOCABULARY, PLACES, LONGEST))
def test_whoever_joins_and_leaves_each_sequence_goes_on_as_alone(
    engine: LlamaCppEngine, events: list[tuple[int, ...] | int | str]
) -> None:
    for prompt, said in seat(engine.batch(), PLACES, events):
        assert said == alone(engine)(prompt)[: len(said)]


def alone(engine: LlamaCppEngine) -> Callable[[tuple[int, ...]], list[int]]:
    return cache(lambda prompt: say(engine, prompt))


def test_a_batch_ends_with_the_next_one_and_with_generate(engine: LlamaCppEngine) -> None:
    first = engine.batch()
    first.add([1, 2])
    second = engine.batch()
    second.add([3])
    say(engine, (5,), 1)
    for batch in (first, second):
        with pytest.raises(EngineError, match="has ended"):
            batch.step()


def test_sampling_is_seeded(engine: LlamaCppEngine) -> None:
    drawn = say(engine, (5, 6), 20, temperature=5.0, seed=1)
    assert say(engine, (5, 6), 20, temperature=5.0, seed=1) == drawn
    assert say(engine, (5, 6), 20, temperature=5.0, seed=2) != drawn
    assert say(engine, (5, 6), 20, temperature=1e-6, seed=2) == say(engine, (5, 6), 20)


@pytest.mark.parametrize("wrong", [-1, VOCABULARY])
def test_an_id_that_is_none_is_refused_and_harms_nothing(engine: LlamaCppEngine, wrong: int) -> None:
    expected = say(engine, (5, 6), 4)
    for call in (lambda: say(engine, (5, wrong), 1), lambda: engine.logits([wrong])):
        with pytest.raises(InputError, match=str(VOCABULARY)):
            call()
    assert say(engine, (5, 6), 4) == expected


def test_what_it_really_uses_is_read_back(tmp_path: Path) -> None:
    extra = {"kv_type": "q8_0", "batch": 48, "ubatch": 16, "mmap": False}
    used = load(write_tiny(tmp_path / "tiny.gguf", "qwen3"), extra, places=2).effective_options()
    assert used["batch"] == 2
    assert (used["tokens_at_once"], used["ubatch"]) == (48, 16)
    assert used["kv_cells"] >= 2 * CONTEXT
    assert (used["kv_cache"], used["flash_attn"], used["mmap"]) == ("q8_0", True, False)
    assert "CPU" in used["build"]


def test_an_architecture_it_does_not_know_is_refused_in_its_own_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    path.write_bytes(path.read_bytes().replace(b"llama", b"lhama"))
    with pytest.raises(EngineError, match=r"tiny\.gguf: .*lhama") as caught:
        load(path)
    assert caught.value.hint
    assert caught.value.exit_code == 4
    assert capfd.readouterr().err == ""  # the one line says it


def test_a_cache_that_the_model_cannot_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no context: .*(32|block|head)"):
        load(write_tiny(tmp_path / "tiny.gguf", "llama"), {"kv_type": "q8_0"})  # heads of 16 hold no block of 32


def test_a_pass_that_fails_says_so(engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_cpp.llama_decode", lambda *_: 1)
    with pytest.raises(EngineError, match=r"code 1"):
        say(engine, (5,), 1)


def test_close_frees_once(engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    close = Context.close
    monkeypatch.setattr(Context, "close", lambda self: closed.append("context") or close(self))
    engine.logits([1, 2])
    engine.close()
    engine.close()
    assert engine._model.handle is None
    assert closed.count("context") == 4  # its own and the scorer's, both times without harm
