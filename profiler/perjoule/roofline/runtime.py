"""ONNX Runtime's ways to stream memory and to multiply matrices, where it is installed.

int8 is what the engine of this project runs: MatMulNBits with 8-bit weights and int8 activations, and MatMulInteger,
which multiplies without unpacking scales (ContribOperators.md and Operators.md of ONNX Runtime and ONNX).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perjoule.roofline.ways import Way

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto, NodeProto, TensorProto

    from perjoule.records import Precision

_OPSET, _CONTRIB_OPSET, _IR_VERSION = 18, 1, 10
_CONTRIB = "com.microsoft"
_BLOCK = 256  # columns that share a scale; the widest that the engine uses
_INT8_ACTIVATIONS = 4  # accuracy_level of MatMulNBits
_ROWS_PER_THREAD = 4


def streaming(threads: int, buffer_bytes: int) -> list[Way | str]:
    """Return ReduceMax over a buffer, or why not."""
    missing = _missing()
    if missing:
        return [missing]
    import numpy as np  # noqa: PLC0415 - heavy, and not for the parent
    from onnx import TensorProto, helper  # noqa: PLC0415

    rows = _ROWS_PER_THREAD * threads
    data = np.ones((rows, max(1, buffer_bytes // 4 // rows)), np.float32)
    node = helper.make_node("ReduceMax", ["x", "axes"], ["y"], keepdims=0)
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    model = _model(node, {"x": (TensorProto.FLOAT, data.shape)}, (TensorProto.FLOAT, [rows]), [axes])
    run = _runner(model, threads, {"x": data})
    return [Way("onnxruntime ReduceMax", float(data.nbytes), run)]


def multiplications(precision: Precision, threads: int) -> list[Callable[[int], Way] | str]:
    """Return what makes products of square matrices of a size, by this precision's ways; or why there are none."""
    missing = _missing()
    if missing:
        return [missing]
    makers = {"fp32": [_floats], "int8": [_integers, _blocks], "bf16": [_bfloats]}[precision]
    return [lambda size, make=make: make(size, threads) for make in makers]  # type: ignore[misc]


def _missing() -> str | None:
    try:
        import onnx  # noqa: F401, PLC0415
        import onnxruntime  # noqa: F401, PLC0415
    except Exception as error:  # noqa: BLE001 - a broken library may raise anything; it is told
        return f"onnxruntime cannot be used: {error}"
    return None


def _floats(size: int, threads: int) -> Way:
    import numpy as np  # noqa: PLC0415
    from onnx import TensorProto, helper  # noqa: PLC0415

    left, right = (np.random.default_rng(seed).random((size, size), np.float32) for seed in (0, 1))
    weights = helper.make_tensor("w", TensorProto.FLOAT, right.shape, right.tobytes(), raw=True)
    node, kind = helper.make_node("MatMul", ["x", "w"], ["y"]), TensorProto.FLOAT
    model = _model(node, {"x": (kind, left.shape)}, (kind, left.shape), [weights])
    return Way(f"onnxruntime MatMul {size}", 2.0 * size**3, _runner(model, threads, {"x": left}))


def _bfloats(size: int, threads: int) -> Way:
    """Both matrices bfloat16; numpy has no such type, so the graph casts the left one, which is little beside it."""
    import numpy as np  # noqa: PLC0415
    from onnx import TensorProto, helper  # noqa: PLC0415

    kind, one = TensorProto.BFLOAT16, b"\x80\x3f"
    left = np.ones((size, size), np.float32)
    weights = helper.make_tensor("w", kind, left.shape, one * left.size, raw=True)
    nodes = [helper.make_node("Cast", ["x"], ["b"], to=kind), helper.make_node("MatMul", ["b", "w"], ["y"])]
    model = _model(nodes, {"x": (TensorProto.FLOAT, left.shape)}, (kind, left.shape), [weights])
    return Way(f"onnxruntime MatMul {size}", 2.0 * size**3, _runner(model, threads, {"x": left}))


def _integers(size: int, threads: int) -> Way:
    """Unsigned by signed bytes: the pair that the dot-product instructions of x86 and ARM take."""
    import numpy as np  # noqa: PLC0415
    from onnx import TensorProto, helper  # noqa: PLC0415

    random = np.random.default_rng(0)
    left = random.integers(0, 128, (size, size), np.uint8)
    right = random.integers(-64, 64, (size, size), np.int8)
    weights = helper.make_tensor("w", TensorProto.INT8, right.shape, right.tobytes(), raw=True)
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    model = _model(node, {"x": (TensorProto.UINT8, left.shape)}, (TensorProto.INT32, left.shape), [weights])
    return Way(f"onnxruntime MatMulInteger {size}", 2.0 * size**3, _runner(model, threads, {"x": left}))


def _blocks(size: int, threads: int) -> Way:
    """8-bit weights in blocks with a float32 scale, by float32 activations that the kernel rounds to int8."""
    import numpy as np  # noqa: PLC0415
    from onnx import TensorProto, helper  # noqa: PLC0415

    random = np.random.default_rng(0)
    left = random.random((size, size), np.float32)
    codes = random.integers(0, 256, (size, size // _BLOCK, _BLOCK), np.uint8)
    scales = np.full(size * size // _BLOCK, 0.01, np.float32)
    stored = [
        helper.make_tensor("w", TensorProto.UINT8, codes.shape, codes.tobytes(), raw=True),
        helper.make_tensor("s", TensorProto.FLOAT, scales.shape, scales.tobytes(), raw=True),
    ]
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain=_CONTRIB, N=size, K=size, bits=8, block_size=_BLOCK,
        accuracy_level=_INT8_ACTIVATIONS,
    )  # fmt: skip
    model = _model(node, {"x": (TensorProto.FLOAT, left.shape)}, (TensorProto.FLOAT, left.shape), stored)
    return Way(f"onnxruntime MatMulNBits {size}", 2.0 * size**3, _runner(model, threads, {"x": left}))


def _model(
    node: NodeProto | list[NodeProto], inputs: dict[str, Any], output: tuple[int, Any], stored: list[TensorProto]
) -> ModelProto:
    from onnx import helper  # noqa: PLC0415

    given = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    made = [helper.make_tensor_value_info("y", *output)]
    graph = helper.make_graph(node if isinstance(node, list) else [node], "kernel", given, made, initializer=stored)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, _CONTRIB_OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


def _runner(model: ModelProto, threads: int, feeds: dict[str, Any]) -> Callable[[], object]:
    """Return what runs the model once on inputs that are bound once; they live as long as it."""
    import onnxruntime as ort  # noqa: PLC0415

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # idle threads leave the cores to other ways
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if "NOT_IMPLEMENTED" in str(error):
            operator = model.graph.node[-1].op_type
            raise NotImplementedError(f"onnxruntime has no {operator} of this type for this processor") from error
        raise
    binding = session.io_binding()
    values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in feeds.items()}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_output("y")

    def run(_alive: object = (values, feeds)) -> object:
        return session.run_with_iobinding(binding)

    return run
