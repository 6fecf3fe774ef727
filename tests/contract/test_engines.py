"""What every engine owes its callers, whoever made it: one suite over all that can be loaded here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from board_stand_in import board
from fake_openai_server import FakeServer, write_byte_tokenizer
from gguf import GGMLQuantizationType
from reference.tiny_checkpoint import write_tiny

from perjoule import registry
from perjoule.errors import InputError, PerjouleError, UsageError
from perjoule.protocols import BatchEngine, EngineOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from perjoule.protocols import Batch, Engine

    Load = Callable[..., Engine]

# Backend, the architecture of the tiny checkpoint it loads (none: it needs no checkpoint) and its variant, its quant
# without rounding that depends on the number of rows, and its options.
ENGINES = {
    "null": ("null", "", "faithful", {"ttft_s": 0, "itl_s": 0}),
    "openai": ("openai", "", "faithful", {}),
    "onnxruntime, llama": ("onnxruntime", "llama", "fp32", {"spinning": False}),
    "onnxruntime, llama with rope_freqs": ("onnxruntime", "llama+rope_freqs", "fp32", {"spinning": False}),
    "onnxruntime, qwen2": ("onnxruntime", "qwen2", "fp32", {"spinning": False}),
    "onnxruntime, qwen3": ("onnxruntime", "qwen3", "fp32", {"spinning": False}),
    "onnxruntime, gemma3": ("onnxruntime", "gemma3", "fp32", {"spinning": False}),
    "onnxruntime on a board, llama": ("board", "llama", "int8", {"spinning": False}),
    "onnxruntime on a board, qwen2": ("board", "qwen2", "int8", {"spinning": False}),
    "onnxruntime on a board, qwen3": ("board", "qwen3", "int8", {"spinning": False}),
    "genai, llama": ("genai", "llama", "fp32", {"spinning": False}),
    "genai, gemma3": ("genai", "gemma3", "fp32", {"spinning": False}),
    "llamacpp, llama": ("llamacpp", "llama", "faithful", {"kv_type": "f32"}),
    "llamacpp, qwen2": ("llamacpp", "qwen2", "faithful", {"kv_type": "f32"}),
    "openvino, llama": ("openvino", "llama+f16", "faithful", {"precision": "f32", "kv_type": "f32"}),
    "openvino, paged": ("openvino", "qwen2+f16", "faithful", {"precision": "f32", "attention": "paged"}),
    "llamacpp, settings": ("llamacpp", "llama", "faithful", {"flash_attn": False, "batch": 16, "ubatch": 8}),
    "optimum, llama": ("optimum", "llama", "fp32", {"spinning": False}),
    "optimum, qwen3": ("optimum", "qwen3", "fp32", {"spinning": False, "io_binding": True}),
    "transformers, llama": ("transformers", "llama", "faithful", {}),
    "transformers, gemma3": ("transformers", "gemma3", "faithful", {"attention": "eager"}),
}
CONTEXT, PLACES = 48, 3
PROMPTS = ([5, 17, 90, 3, 3, 64], [1], list(range(40, 63)), [127, 0, 41, 8], [9] * 12)


@pytest.fixture
def served() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture(params=ENGINES)
def load(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Return a function that loads the engine, with changed options."""
    name, architecture, quant, extra = ENGINES[request.param]
    backend = board() if name == "board" else registry.backend(name)
    if not backend.info().available:
        pytest.skip(f"{name} is not installed: {backend.info().install}")
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    family, _, variant = architecture.partition("+")
    tiny = tmp_path / "tiny.gguf"
    kind = GGMLQuantizationType.F16 if variant == "f16" else GGMLQuantizationType.F32
    ref = str(write_tiny(tiny, family, kind=kind, rope_factors=variant == "rope_freqs")) if architecture else name
    if name == "openai":
        server = request.getfixturevalue("served")
        extra = {"url": server.url, "tokenizer": str(write_byte_tokenizer(tmp_path))}
        ref = "tiny"

    def loaded(batch: int = PLACES, context: int = CONTEXT) -> Engine:
        most = batch if backend.info().batching else 1
        options = EngineOptions(threads=1, quant=quant, context_tokens=context, batch=most, extra=extra)
        engine = backend.load(backend.prepare(ref, options, lambda _text, _share: None), options)
        request.addfinalizer(engine.close)
        return engine

    return loaded


def alone(engine: Engine, prompt: Sequence[int], count: int, stop: frozenset[int] = frozenset()) -> list[int]:
    out: list[int] = []
    engine.generate(prompt, count, stop, out.append)
    return out


def batch_of(engine: Engine) -> Batch:
    if not isinstance(engine, BatchEngine):
        pytest.skip("this engine serves one sequence at a time")
    return engine.batch()


def test_generate_reports_each_token_and_why_it_ended(load: Load) -> None:
    engine = load()
    for count in (1, 2, 7):
        out: list[int] = []
        assert engine.generate(PROMPTS[0], count, frozenset(), out.append) == "length"
        assert len(out) == count
        assert all(isinstance(token, int) for token in out)


def test_a_stop_token_is_reported_and_ends_it(load: Load) -> None:
    engine = load()
    free = alone(engine, PROMPTS[0], 8)
    stop = free[3]
    until = free.index(stop)
    out: list[int] = []
    assert engine.generate(PROMPTS[0], 8, frozenset({stop}), out.append) == "stop"
    assert out == free[: until + 1]


def test_a_full_context_ends_it_after_one_token_more_than_fits(load: Load) -> None:
    engine = load(context=len(PROMPTS[0]) + 3)
    out: list[int] = []
    assert engine.generate(PROMPTS[0], 50, frozenset(), out.append) == "context"
    assert len(out) == 4  # the last one needs no place any more


def test_a_prompt_that_fills_the_context_gives_one_token(load: Load) -> None:
    engine = load(context=len(PROMPTS[0]))
    assert len(alone(engine, PROMPTS[0], 5)) == 1


@pytest.mark.parametrize("length", [0, CONTEXT + 1])
def test_a_prompt_that_does_not_fit_is_refused(load: Load, length: int) -> None:
    with pytest.raises(InputError, match=f"{length} tokens"):
        load().generate([1] * length, 1, frozenset(), lambda _token: None)


def test_a_request_leaves_nothing_behind(load: Load) -> None:
    engine = load()
    first = alone(engine, PROMPTS[0], 6)
    alone(engine, PROMPTS[2], 20)
    assert alone(engine, PROMPTS[0], 6) == first


def test_an_engine_says_what_it_really_uses(load: Load) -> None:
    used = load().effective_options()
    assert used["threads"] in (1, None)  # a server does not say it
    assert used["context_tokens"] == CONTEXT


def test_the_tokenizer_gives_back_what_it_took(load: Load) -> None:
    tokenizer = load().tokenizer
    ids = tokenizer.encode("abab")
    assert ids
    assert tokenizer.decode(ids) == "abab"


def test_sequences_of_a_batch_say_what_they_say_alone(load: Load) -> None:
    """Of different lengths, each joining one step after the one before."""
    engine = load()
    expected = [alone(engine, prompt, 12) for prompt in PROMPTS[:PLACES]]
    batch = batch_of(engine)
    found: list[list[int]] = []
    for prompt in PROMPTS[:PLACES]:
        found.append([batch.add(prompt)])
        for sequence, token in zip(found, batch.step(), strict=True):
            sequence.append(token)
    for _ in range(12 - len(found[0])):
        for sequence, token in zip(found, batch.step(), strict=True):
            sequence.append(token)
    assert found == [full[: len(part)] for full, part in zip(expected, found, strict=True)]
    assert [len(part) for part in found] == [12, 11, 10]


@pytest.mark.parametrize("place", range(PLACES))
def test_the_last_sequence_takes_the_place_of_one_that_leaves(load: Load, place: int) -> None:
    engine = load()
    expected = [alone(engine, prompt, 9) for prompt in PROMPTS]
    batch = batch_of(engine)
    at = list(range(PLACES))
    found = {i: [batch.add(PROMPTS[i])] for i in at}

    def step() -> None:
        for i, token in zip(at, batch.step(), strict=True):
            found[i].append(token)

    step()
    batch.remove(place)
    gone, last = at[place], at.pop()
    if place < len(at):
        at[place] = last
    step()
    found[PLACES] = [batch.add(PROMPTS[PLACES])]  # the place that became free
    at.append(PLACES)
    step()
    step()
    assert {i: len(tokens) for i, tokens in found.items()} == {
        i: 2 if i == gone else 3 if i == PLACES else 5 for i in found
    }
    assert found == {i: expected[i][: len(tokens)] for i, tokens in found.items()}


def test_more_sequences_than_places_are_refused_and_harm_nothing(load: Load) -> None:
    engine = load()
    batch = batch_of(engine)
    found = [[batch.add(prompt)] for prompt in PROMPTS[:PLACES]]
    with pytest.raises(InputError, match=str(PLACES)) as caught:
        batch.add(PROMPTS[3])
    assert caught.value.hint
    for sequence, token in zip(found, batch.step(), strict=True):
        sequence.append(token)
    assert found == [alone(engine, prompt, 2) for prompt in PROMPTS[:PLACES]]


@pytest.mark.parametrize("length", [0, CONTEXT + 1])
def test_a_prompt_that_does_not_fit_takes_no_place(load: Load, length: int) -> None:
    batch = batch_of(load())
    with pytest.raises(InputError, match=f"{length} tokens"):
        batch.add([1] * length)
    assert len(batch.step()) == 0


def test_a_step_beyond_a_full_context_is_refused_until_that_sequence_leaves(load: Load) -> None:
    engine = load(context=8)
    expected = alone(engine, PROMPTS[3], 6)
    batch = batch_of(engine)
    batch.add(PROMPTS[0])  # six of eight
    other = [batch.add(PROMPTS[3]), *(batch.step()[1] for _ in range(2))]
    with pytest.raises(InputError, match="place 0"):
        batch.step()
    batch.remove(0)
    other += [batch.step()[0] for _ in range(2)]
    assert other == expected[:5]


@pytest.mark.parametrize("place", [-1, 1])
def test_a_place_that_nobody_has_cannot_be_left(load: Load, place: int) -> None:
    batch = batch_of(load())
    batch.add(PROMPTS[0])
    with pytest.raises(InputError, match=f"place {place}"):
        batch.remove(place)
    assert len(batch.step()) == 1


def test_a_new_batch_is_empty(load: Load) -> None:
    engine = load()
    batch_of(engine).add(PROMPTS[0])
    batch = batch_of(engine)
    assert len(batch.step()) == 0
    assert batch.add(PROMPTS[1]) == alone(engine, PROMPTS[1], 1)[0]


def test_generate_after_a_batch_is_as_before(load: Load) -> None:
    engine = load()
    expected = alone(engine, PROMPTS[0], 5)
    batch = batch_of(engine)
    for prompt in PROMPTS[1 : 1 + PLACES]:
        batch.add(prompt)
    batch.step()
    assert alone(engine, PROMPTS[0], 5) == expected


@pytest.mark.parametrize("name", registry.names("perjoule.backends"))
def test_a_backend_batches_or_refuses_more_than_one_sequence(name: str, tmp_path: Path) -> None:
    backend = registry.backend(name)
    info = backend.info()
    wrong = EngineOptions(quant=info.quants[0], batch=0 if info.batching else 2)
    # Where the engine is missing that is said first; where it is there, it is a matter of usage.
    with pytest.raises(UsageError if info.available else PerjouleError) as caught:
        backend.prepare(str(tmp_path / "none.gguf"), wrong, lambda _text, _share: None)
    assert caught.value.hint
