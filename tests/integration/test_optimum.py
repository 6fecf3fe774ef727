"""What optimum exports of tiny checkpoints gives their logits, quantized forms are near, and generate() is its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from perjoule.protocols import GREEDY, EngineOptions, LogitsEngine, Sampling

pytest.importorskip("torch", reason="the optimum backend is not installed")
pytest.importorskip("onnxruntime", reason="the optimum backend is not installed")
pytest.importorskip("optimum.exporters.onnx", reason="the optimum backend is not installed")

import msgspec
import onnx
from reference import transformers_model
from reference.tiny_checkpoint import CONTEXT, VOCABULARY, WINDOW, write_tiny

from perjoule_backends.checkpoints.gguf import read_gguf
from perjoule_backends.optimum import OptimumBackend, export

if TYPE_CHECKING:
    from pathlib import Path

    from perjoule.protocols import Engine, Prepared

pytestmark = pytest.mark.extras

IDS = np.random.default_rng(5).integers(0, VOCABULARY, 4 * WINDOW).tolist()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))


def silent(_text: str, _share: float | None) -> None:
    """Say nothing."""


def prepared(path: Path, quant: str = "faithful", **extra: object) -> tuple[Prepared, EngineOptions]:
    options = EngineOptions(threads=1, quant=quant, context_tokens=CONTEXT, extra={"spinning": False} | extra)
    return OptimumBackend().prepare(str(path), options, silent), options


def loaded(path: Path, quant: str = "faithful", **extra: object) -> Engine:
    return OptimumBackend().load(*prepared(path, quant, **extra))


def logits(engine: Engine) -> np.ndarray:
    assert isinstance(engine, LogitsEngine)
    return engine.logits(IDS)


@pytest.mark.parametrize("architecture", ["llama", "llama+rope_freqs", "qwen2", "qwen3", "gemma3"])
def test_logits_are_those_of_the_same_weights(tmp_path: Path, architecture: str) -> None:
    name, _, factors = architecture.partition("+")
    path = write_tiny(tmp_path / "tiny.gguf", name, tied=name != "qwen2", rope_factors=bool(factors))
    expected = transformers_model.logits(transformers_model.load(read_gguf(path)), IDS)
    engine = loaded(path)
    np.testing.assert_allclose(logits(engine), expected, rtol=0, atol=5e-5)
    prompt, out = IDS[: 2 * WINDOW], []
    engine.generate(prompt, WINDOW, frozenset(), out.append)
    assert out == transformers_model.greedy(transformers_model.load(read_gguf(path)), prompt, WINDOW)[0]


@pytest.mark.parametrize(("quant", "operator", "most"), [("int8", "MatMulInteger", 1.0), ("int4", "MatMulNBits", 4.0)])
def test_quantized_forms_are_near_and_smaller(tmp_path: Path, quant: str, operator: str, most: float) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    (plain, options), (small, small_options) = prepared(path), prepared(path, quant)
    assert plain.model.bits_per_weight == 32.0
    assert (plain.model.runtime_quantization, small.model.runtime_quantization) == ("fp32", quant)
    assert int(quant[3:]) < small.model.bits_per_weight < 16
    assert small.model.weights_bytes < plain.model.weights_bytes
    assert operator in {node.op_type for node in onnx.load(small.path / "model.onnx").graph.node}
    far = np.abs(
        logits(OptimumBackend().load(small, small_options)) - logits(OptimumBackend().load(plain, options))
    ).max()
    assert 0 < far < most


def test_the_quantizer_and_the_exporter_are_told(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    used = loaded(path, "int4", block=16).effective_options()
    assert msgspec.json.decode(msgspec.json.encode(used)) == used
    assert used["quantizer"]["block"] == 16
    assert used["quant"] == "int4"
    assert used["provider"] == "CPUExecutionProvider"
    assert set(used["exported_by"]) == {"optimum-onnx", "transformers", "torch", "onnx", "onnxruntime"}
    assert loaded(path, "int8").effective_options()["quantizer"]["configuration"] in (
        "arm64", "ppc64le", "avx2", "avx512", "avx512_vnni",
    )  # fmt: skip


def test_io_binding_changes_how_and_not_what(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    found = {}
    for binding in (None, True, False):
        engine = loaded(path) if binding is None else loaded(path, io_binding=binding)
        out: list[int] = []
        engine.generate(IDS[:8], 12, frozenset(), out.append)
        found[binding] = engine.effective_options()["io_binding"], out
    assert [bound for bound, _ in found.values()] == [False, True, False]  # optimum binds nothing on the CPU by itself
    assert found[True][1] == found[False][1] == found[None][1]


def test_an_export_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    first, _ = prepared(path)
    monkeypatch.setattr(export, "_export", lambda *_: pytest.fail("exported again"))
    assert prepared(path)[0] == first
    assert prepared(path, "int4")[0].folder != first.folder
    (first.path / "exported.json").write_text("{")
    with pytest.raises(pytest.fail.Exception):
        prepared(path)


def test_sampling_is_seeded(tmp_path: Path) -> None:
    engine = loaded(write_tiny(tmp_path / "tiny.gguf", "llama"))

    def drawn(sampling: Sampling) -> list[int]:
        out: list[int] = []
        engine.generate(IDS[:8], 12, frozenset(), out.append, sampling)
        return out

    first = drawn(Sampling(temperature=1.0, seed=1))
    assert drawn(Sampling(temperature=1.0, seed=1)) == first
    assert len({tuple(first), tuple(drawn(Sampling(temperature=1.0, seed=2))), tuple(drawn(GREEDY))}) == 3


def test_the_folder_is_one_that_optimum_loads_itself(tmp_path: Path) -> None:
    from optimum.onnxruntime import ORTModelForCausalLM  # noqa: PLC0415

    path = write_tiny(tmp_path / "tiny.gguf", "qwen2")
    made, options = prepared(path)
    model = ORTModelForCausalLM.from_pretrained(made.folder)
    ids = transformers_model.torch.tensor([IDS[:8]])
    theirs = model.generate(input_ids=ids, attention_mask=ids.new_ones(ids.shape), max_new_tokens=6, eos_token_id=None)
    ours: list[int] = []
    OptimumBackend().load(made, options).generate(IDS[:8], 6, frozenset(), ours.append)
    assert theirs[0, 8:].tolist() == ours
