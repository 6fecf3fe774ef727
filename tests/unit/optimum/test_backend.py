"""What the optimum backend says, refuses and counts before it loads anything. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from perjoule.errors import HostError, UsageError
from perjoule.protocols import EngineOptions
from perjoule_backends.optimum import OptimumBackend, backend
from perjoule_backends.optimum.initializers import held_by
from perjoule_backends.optimum.settings import settings_of

if TYPE_CHECKING:
    from pathlib import Path


def prepare(**options: object) -> object:
    return OptimumBackend().prepare("none.gguf", EngineOptions(**options), lambda _text, _share: None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", backend.NEEDED)
def test_what_is_missing_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda asked: None if asked == name else object())
    info = OptimumBackend().info()
    assert not info.available
    with pytest.raises(HostError, match=f"{name} is not installed") as caught:
        prepare()
    assert caught.value.hint == info.install


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quant": "bf16"}, "bf16"),
        ({"device": "cuda:0"}, "cuda:0"),
        ({"batch": 0}, "batch of 0"),
        ({"extra": {"block": 48}}, "48"),
        ({"extra": {"block": True}}, "True"),
        ({"extra": {"io_binding": 1}}, "io_binding"),
        ({"extra": {"optimize": "O3"}}, "optimize"),
    ],
)
def test_what_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch, options: dict[str, object], said: str) -> None:
    monkeypatch.setattr(backend, "_missing", lambda: None)
    with pytest.raises(UsageError, match=said) as caught:
        prepare(**options)
    assert caught.value.hint


def test_settings_leave_io_binding_to_optimum() -> None:
    assert settings_of({}).io_binding is None
    assert settings_of({"io_binding": False, "block": 64}).block == 64


def test_a_table_that_is_only_looked_up_is_not_read_for_a_token(tmp_path: Path) -> None:
    table, shared = np.zeros((6, 4), np.float32), np.zeros((4, 4), np.float32)
    codes, scale = np.zeros((4, 8), np.int8), np.ones(8, np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"]),
        helper.make_node("Gather", ["shared", "ids"], ["y"]),
        helper.make_node("MatMul", ["x", "shared"], ["z"]),
        helper.make_node("DequantizeLinear", ["codes", "scale"], ["w"], axis=1),
    ]
    held = {"table": table, "shared": shared, "codes": codes, "scale": scale}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(values, name) for name, values in held.items()],
    )
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    found = held_by(tmp_path / "model.onnx")
    assert found.nbytes == sum(values.nbytes for values in held.values())
    assert found.streamed_bytes == found.nbytes - table.nbytes
    assert found.vector_bytes == scale.nbytes
    assert found.matrix_weights == table.size + shared.size + codes.size


def test_four_bits_need_one_package_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda asked: None if asked == "onnx_ir" else object())
    assert OptimumBackend().info().available
    with pytest.raises(HostError, match="onnx_ir is not installed"):
        prepare(quant="int4")
