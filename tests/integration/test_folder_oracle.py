"""Checkpoint folders against transformers and safetensors: what ``save_pretrained`` writes is what we read and run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors_numpy = pytest.importorskip("safetensors.numpy")
pytest.importorskip("onnxruntime")

from reference import tiny_folder  # noqa: E402

from perjoule.protocols import EngineOptions  # noqa: E402
from perjoule_backends.checkpoints.folder import read_folder  # noqa: E402
from perjoule_backends.checkpoints.hf_config import published_name, read_config  # noqa: E402
from perjoule_backends.checkpoints.safetensors import read_safetensors  # noqa: E402
from perjoule_backends.onnxruntime.architecture import read_architecture  # noqa: E402
from perjoule_backends.onnxruntime.convert import converted_folder  # noqa: E402
from perjoule_backends.onnxruntime.engine import Scorer  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.extras

KINDS = ("llama", "qwen2", "qwen3", "gemma3_text")


def saved(folder: Path, kind: str, *, dtype: Any) -> Any:
    """Save a random model of 2 layers in several shards, with our tokenizer beside it; return the model."""
    torch.manual_seed(7)
    keys = tiny_folder.config_of(kind, sliding_window_pattern=None, attn_implementation="eager")
    if kind == "gemma3_text":
        keys["layer_types"] = ["sliding_attention", "full_attention"]
    config = transformers.AutoConfig.for_model(keys.pop("model_type"), **keys)
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype).eval()
    for name, value in model.named_parameters():
        if "norm" in name:  # all are alike after initialisation, and would hide a mix-up
            value.data += 0.1 * torch.randn_like(value)
    model.save_pretrained(folder, max_shard_size="40KB", safe_serialization=True)
    (folder / "tokenizer.json").write_text(json.dumps(tiny_folder.tokenizer_json()), encoding="utf-8")
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_of_a_sharded_bfloat16_folder_equals_the_models(kind: str, tmp_path: Path):
    model = saved(tmp_path, kind, dtype=torch.bfloat16)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    folder = read_folder(tmp_path)
    decoder = read_config(json.loads((tmp_path / "config.json").read_text()), "config.json")
    state = model.state_dict()
    compared = 0
    for name, tensor in folder.tensors.items():
        if name == "rope_freqs.weight":
            continue
        expected = state[published_name(decoder, name)].float().numpy()
        if kind == "gemma3_text" and name.endswith("norm.weight"):
            expected = expected + np.float32(1)
        np.testing.assert_array_equal(folder.dequantize(name).reshape(expected.shape), expected)
        assert tensor.shape == expected.shape
        compared += 1
    assert compared == len(state) - (1 if decoder.tied_head and "lm_head.weight" in state else 0)


def test_rotary_factors_equal_those_of_transformers(tmp_path: Path):
    model = saved(tmp_path, "llama", dtype=torch.float32)
    factors = read_folder(tmp_path).dequantize("rope_freqs.weight")[0]
    plain = 10000.0 ** (-np.arange(0, 16, 2) / 16)
    assert factors.max() > 1  # some are scaled, or nothing is tested
    np.testing.assert_allclose(plain / factors, model.model.rotary_emb.inv_freq.numpy(), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_at_fp32_equal_those_of_transformers(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model").mkdir()
    model = saved(tmp_path / "model", kind, dtype=torch.float32)
    folder = read_folder(tmp_path / "model")
    arch = read_architecture(folder)  # type: ignore[arg-type]
    converted = converted_folder(folder, "0" * 64, arch, "fp32", lambda _text, _share: None)  # type: ignore[arg-type]
    ids = np.random.default_rng(3).integers(0, tiny_folder.VOCABULARY, 40).tolist()  # beyond the window of 16
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0].float().numpy()
    found = Scorer(converted, EngineOptions(threads=1, quant="fp32", context_tokens=64)).logits(ids)
    np.testing.assert_allclose(found, expected, atol=2e-5 * float(np.abs(expected).max()) + 1e-6)


@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_the_reader_equals_the_safetensors_library(dtype: str, tmp_path: Path):
    random = np.random.default_rng(1)
    kind = {"F32": np.float32, "F16": np.float16}[dtype]
    arrays = {f"t{i}": random.standard_normal((i + 1, 5)).astype(kind) for i in range(4)}
    path = tmp_path / "some.safetensors"
    safetensors_numpy.save_file(arrays, path, metadata={"format": "pt"})
    tensors = read_safetensors(path)
    content = path.read_bytes()
    assert tensors.keys() == arrays.keys()
    for name, tensor in tensors.items():
        assert (tensor.type_name, tensor.shape) == (dtype, arrays[name].shape)
        assert content[tensor.offset : tensor.offset + tensor.nbytes] == arrays[name].tobytes()


def test_the_library_reads_what_the_tests_write(tmp_path: Path):
    folder = tiny_folder.write_folder(tmp_path / "tiny", "qwen2", dtype="F32")
    arrays = safetensors_numpy.load_file(folder / "model.safetensors")
    expected = tiny_folder.random_tensors(tiny_folder.config_of("qwen2"))
    assert arrays.keys() == expected.keys()
    for name, values in arrays.items():
        np.testing.assert_array_equal(values, expected[name])
