"""The float16 form of a graph, as far as it can be held against something without a GPU.

Cast back to float32 it must be the float32 graph of the same rounded numbers; run as it is, by the CPU provider, it
must be near the arithmetic of the file; and it may hold nothing that the CUDA provider has no kernel for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from board_stand_in import board, stand_in
from gguf import GGMLQuantizationType
from onnx import TensorProto, numpy_helper
from reference import numpy_decoder
from reference.tiny_checkpoint import VOCABULARY, write_tiny

from perjoule.errors import InputError
from perjoule.protocols import EngineOptions
from perjoule.quality.fidelity import kl_nats
from perjoule_backends.checkpoints.gguf import read_gguf

pytest.importorskip("onnxruntime")
import onnxruntime as ort

from perjoule_backends.onnxruntime import OnnxRuntimeBackend
from perjoule_backends.onnxruntime.architecture import read_architecture
from perjoule_backends.onnxruntime.convert import converted_folder
from perjoule_backends.onnxruntime.engine import OnnxRuntimeEngine
from perjoule_backends.onnxruntime.manifest import MODEL_ALL_POSITIONS_FILE, MODEL_FILE
from perjoule_backends.onnxruntime.precision import FLOAT16_ACTIVATIONS, precision_for

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import ModelProto

ARCHITECTURES = ["llama", "qwen2", "qwen3", "gemma3"]
CONTEXT = 32
IDS = np.random.default_rng(7).integers(0, VOCABULARY, 20)
# Of docs/OperatorKernels.md of ONNX Runtime, the part on the CUDA provider: kernels that take float16
ON_CUDA = {
    "Add", "Cast", "FastGelu", "GatherBlockQuantized", "GroupQueryAttention", "MatMulNBits", "Mul", "QuickGelu",
    "Reshape", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "Slice", "Split",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))


def options_of(quant: str) -> EngineOptions:
    return EngineOptions(threads=1, quant=quant, context_tokens=CONTEXT, extra={"spinning": False})


def silent(_text: str, _share: float | None) -> None:
    pass


def half_folder(path: Path, quant: str) -> Path:
    weights = read_gguf(path)
    return converted_folder(
        weights, "0" * 64, read_architecture(weights), quant, silent, precision=FLOAT16_ACTIVATIONS
    )  # fmt: skip


def single_folder(path: Path, quant: str) -> Path:
    return OnnxRuntimeBackend().prepare(str(path), options_of(quant), silent).path


def in_float32(path: Path) -> ModelProto:
    """Return a model with float16 made float32, and float32 rounded as float16, without 8-bit activations."""
    model = onnx.load(path)
    for number, tensor in enumerate(model.graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f":
            values = values.astype(np.float16).astype(np.float32)
        model.graph.initializer[number].CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 0
    return model


def logits_of(model: ModelProto) -> NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {
        "input_ids": IDS[None],
        "seqlens_k": np.array([len(IDS) - 1], dtype=np.int32),
        "total_sequence_length": np.array(len(IDS), dtype=np.int32),
    }
    for value in session.get_inputs():
        if value.name.startswith("past"):
            _batch, heads, _capacity, width = value.shape
            feed[value.name] = np.zeros((1, heads, CONTEXT, width), dtype=np.float32)
    found: NDArray[np.float32] = session.run(["logits"], feed)[0][0]
    return found


@pytest.mark.parametrize("quant", ["faithful", "int8", "int4"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_cast_back_it_is_the_float32_graph_of_the_same_numbers(tmp_path: Path, architecture: str, quant: str) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", architecture)
    half = logits_of(in_float32(half_folder(path, quant) / MODEL_ALL_POSITIONS_FILE))
    single = logits_of(in_float32(single_folder(path, quant) / MODEL_ALL_POSITIONS_FILE))
    np.testing.assert_allclose(half, single, rtol=0, atol=2e-5)  # as two orders of addition in float32 differ


@pytest.mark.parametrize("kind", [GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q8_0])
def test_blocks_of_the_file_are_kept_to_the_last_bit(tmp_path: Path, kind: GGMLQuantizationType) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama", kind=kind)
    folder = half_folder(path, "int8" if kind == GGMLQuantizationType.Q8_0 else "faithful")
    half = logits_of(in_float32(folder / MODEL_ALL_POSITIONS_FILE))
    expected = numpy_decoder.logits(read_gguf(path), IDS.tolist())
    # Scales are those of the file; norms and rotary tables are rounded to 11 bits
    assert kl_nats(np.asarray(expected, dtype=np.float32), half).max() < 1e-5


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_as_it_is_it_is_near_the_arithmetic_of_the_file(tmp_path: Path, architecture: str) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", architecture)
    engine = OnnxRuntimeEngine(half_folder(path, "int8"), options_of("int8"), CONTEXT, stand_in())
    expected = np.asarray(numpy_decoder.logits(read_gguf(path), IDS.tolist()), dtype=np.float32)
    found = engine.logits(IDS.tolist())
    assert found.dtype == np.float32
    assert kl_nats(expected, found).max() < 4e-3  # the bound that float32 activations keep


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_holds_nothing_that_cuda_has_no_kernel_for(tmp_path: Path, architecture: str) -> None:
    folder = half_folder(write_tiny(tmp_path / "tiny.gguf", architecture), "faithful")
    for file in (MODEL_FILE, MODEL_ALL_POSITIONS_FILE):
        model = onnx.load(folder / file, load_external_data=False)
        assert {node.op_type for node in model.graph.node} <= ON_CUDA
        floats = {t.data_type for t in model.graph.initializer} - {TensorProto.UINT8, TensorProto.INT64}
        assert floats == {TensorProto.FLOAT16}
        kept = {v.name: v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)}
        assert {kept[name] for name in kept if name.startswith(("past", "present"))} == {TensorProto.FLOAT16}
        assert kept["logits"] == TensorProto.FLOAT
        lookup = next(node for node in model.graph.node if node.op_type == "GatherBlockQuantized")
        assert len(lookup.input) == 4, "what it takes missing zero points to be differs between providers"
        assert all(len(node.input) == 3 for node in model.graph.node if node.op_type == "MatMulNBits")


def test_both_forms_of_a_file_lie_side_by_side(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    ours = board().prepare(str(path), options_of("faithful"), silent)
    single = OnnxRuntimeBackend().prepare(str(path), options_of("faithful"), silent)
    assert ours.folder != single.folder
    assert (ours.path / MODEL_FILE).exists()
    assert ours.model.kv_bytes_per_position is not None
    assert 2 * ours.model.kv_bytes_per_position == single.model.kv_bytes_per_position
    assert ours.model.weights_bytes is not None
    assert single.model.weights_bytes is not None
    assert ours.model.weights_bytes < single.model.weights_bytes


def test_what_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    weights = read_gguf(path)
    whole = weights.dequantize
    weights.dequantize = lambda name, rows=slice(None): whole(name, rows) * np.float32(1e7)  # type: ignore[method-assign]
    with pytest.raises(InputError, match="more than float16 can") as caught:
        converted_folder(
            weights, "1" * 64, read_architecture(weights), "int8", silent, precision=FLOAT16_ACTIVATIONS
        )  # fmt: skip
    assert "--device cpu" in caught.value.hint


def test_an_architecture_that_loses_by_it_is_refused(tmp_path: Path) -> None:
    arch = read_architecture(read_gguf(write_tiny(tmp_path / "tiny.gguf", "gemma3")))
    assert precision_for("cpu", arch).name == "float32"
    with pytest.raises(InputError, match="gemma3"):
        precision_for("cuda:0", arch)
