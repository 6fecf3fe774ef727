"""The CUDA provider of ONNX Runtime: everything but the last position's logits stays in the board's memory.

Experimental: never run on a GPU. In tests all of it runs with the CPU's provider and memory in place of the board's.

An input that is bound from the host's memory is copied to the board when it is bound, not when it is run (IOBinding of
ONNX Runtime), so that what changes from pass to pass lies in values on the board that are written anew. The logits are
bound to the host's memory: the run copies them there and waits for that, so that a token exists when it is reported.
"""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from perjoule.errors import EngineError, HostError
from perjoule_backends import devices
from perjoule_backends.onnxruntime.forward import ForwardPass, KeyValueCache
from perjoule_backends.onnxruntime.providers import CpuProvider, session_options
from perjoule_backends.refusals import first_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from perjoule_backends.onnxruntime.manifest import Manifest

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
INSTALL = "pip install 'perjoule[cuda]'"
_HALF_BYTES = 2
_LIBRARIES = f"it needs the driver, and the CUDA and cuDNN that it was built for: {INSTALL}"


class DeviceCache(KeyValueCache):
    """Keys and values in the memory of a board, float16, shape (places, kv_heads, capacity, head_dim) each."""

    def __init__(self, manifest: Manifest, capacity: int, places: int, provider: CudaProvider) -> None:
        arch = manifest.architecture
        self.places, self.capacity = places, capacity
        self._provider = provider
        self._place = (arch.kv_heads, capacity, arch.head_dim)
        self._values = [
            (f"past_key_values.{layer}.{part}", f"present.{layer}.{part}", provider.zeros((places, *self._place)))
            for layer in range(arch.layers)
            for part in ("key", "value")
        ]
        self._copier: ort.InferenceSession | None = None

    @property
    def nbytes(self) -> int:
        return len(self._values) * self.places * self._place_bytes

    def bind(self, binding: ort.IOBinding, first: int, rows: int) -> None:
        for past, present, value in self._values:
            piece = self._piece(value, first, rows)
            binding.bind_input(past, *piece)
            binding.bind_output(present, *piece)

    def move(self, source: int, target: int, positions: int) -> None:  # noqa: ARG002 - one copy takes the whole place
        """Copy one place over another, on the board."""
        if self._copier is None:
            self._copier = self._provider.copier(len(self._place) + 1)
        for _past, _present, value in self._values:
            binding = self._copier.io_binding()
            binding.bind_input("from", *self._piece(value, source, 1))
            binding.bind_output("to", *self._piece(value, target, 1))
            self._copier.run_with_iobinding(binding)
            binding.synchronize_outputs()

    def put(self, array: NDArray[Any]) -> ort.OrtValue:
        """Return a copy of an array where the cache lies."""
        return self._provider.put(array)

    @property
    def _place_bytes(self) -> int:
        return int(np.prod(self._place)) * _HALF_BYTES

    def _piece(self, value: ort.OrtValue, first: int, rows: int) -> tuple[Any, ...]:
        """Return what a binding wants of places ``first`` to ``first + rows - 1`` of one array."""
        where = value.data_ptr() + first * self._place_bytes
        return self._provider.kind, self._provider.index, np.float16, (rows, *self._place), where


class DevicePass(ForwardPass):
    """A forward pass whose inputs lie on the board, but for ``total_sequence_length``, which is wanted on the host."""

    def _bind_inputs(self, binding: ort.IOBinding) -> None:
        cache = self._cache
        if not isinstance(cache, DeviceCache):
            raise TypeError("a pass on a board needs a cache on it")
        self._on_board = [(array, cache.put(array)) for array in (self._ids, self._last)]
        for name, (_array, value) in zip(("input_ids", "seqlens_k"), self._on_board, strict=True):
            binding.bind_ortvalue_input(name, value)
        self._bind_from_host(binding, "total_sequence_length", self._total)

    def _go(self) -> None:
        for array, value in self._on_board:
            value.update_inplace(array)  # waits for the copy
        super()._go()
        self._binding.synchronize_outputs()


class CudaProvider(CpuProvider):
    """Board ``index``. Nothing of a graph may run on the processor instead.

    With ``name`` and ``kind`` of the CPU the same code runs where there is no board, as tests do.
    """

    forward: type[ForwardPass] = DevicePass

    def __init__(self, index: int, name: str = CUDA, kind: str = "cuda") -> None:
        self.index, self.name, self.kind = index, name, kind
        self._started = False

    def session(self, path: Path, threads: int, *, spinning: bool) -> ort.InferenceSession:
        return self._open(str(path), session_options(threads, spinning=spinning))

    def cache(self, manifest: Manifest, capacity: int, places: int = 1) -> KeyValueCache:
        return DeviceCache(manifest, capacity, places, self)

    def effective_options(self, manifest: Manifest) -> dict[str, Any]:  # noqa: ARG002 - the same for every quant
        """Return what is in use because the model runs here."""
        return {
            "provider": self.name,
            "device_id": self.index,
            "activations": "float16",
            "kv_cache": "float16",
            "logits": "float32, copied to the host",
            "experimental": devices.EXPERIMENTAL,
            **(devices.energy_domain(f"cuda:{self.index}") if self.kind == "cuda" else {}),
        }

    def zeros(self, shape: Sequence[int]) -> ort.OrtValue:
        """Return zeros of float16 on the board: what was there before need not be numbers."""
        return self.put(np.zeros(shape, dtype=np.float16))

    def put(self, array: NDArray[Any]) -> ort.OrtValue:
        """Return a copy of an array on the board."""
        value = ort.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype.type, self.kind, self.index)
        value.update_inplace(array)
        return value

    def copier(self, rank: int) -> ort.InferenceSession:
        """Return a session that copies ``from`` to ``to``, float16 values of this rank, on the board."""
        return self._open(_copy_model(rank), session_options(1, spinning=False))

    def _open(self, model: str | bytes, options: ort.SessionOptions) -> ort.InferenceSession:
        if self.name != CUDA:
            return ort.InferenceSession(model, options, providers=[self.name])
        self._start()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            return ort.InferenceSession(model, options, providers=self._providers, enable_fallback=0)
        except Exception as error:
            raise EngineError(
                f"ONNX Runtime {ort.__version__} does not run the model on GPU {self.index}: {first_line(error)}",
                hint=f"install a newer onnxruntime-gpu: {INSTALL}",
            ) from error

    @property
    def _providers(self) -> list[tuple[str, dict[str, str]]]:
        return [(self.name, {"device_id": str(self.index), "arena_extend_strategy": "kSameAsRequested"})]

    def _start(self) -> None:
        """Load the provider, once, and refuse a session that would leave it out."""
        if self._started:
            return
        _refuse_missing_provider()
        devices.count_as_nvml()
        _load_libraries()
        options = session_options(1, spinning=False)
        options.log_severity_level = 4  # what is missing is told below, in one line
        try:
            tried = ort.InferenceSession(_copy_model(1), options, providers=self._providers, enable_fallback=0)
        except Exception as error:
            raise EngineError(f"GPU {self.index} cannot be used: {first_line(error)}", hint=_LIBRARIES) from error
        refuse_other_provider(tried.get_providers(), self.name)
        self._started = True


def _copy_model(rank: int) -> bytes:
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, [f"extent_{axis}" for axis in range(rank)])
        for name in ("from", "to")
    ]
    graph = helper.make_graph([helper.make_node("Identity", ["from"], ["to"])], "copy", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    serialized: bytes = model.SerializeToString()
    return serialized


def refuse_other_provider(found: Sequence[str], wanted: str) -> None:
    """Raise ``EngineError`` where a session does not begin with the provider asked for.

    ONNX Runtime leaves out a provider that it cannot load, and runs on the processor without a word.
    """
    if not found or found[0] != wanted:
        raise EngineError(
            f"ONNX Runtime {ort.__version__} did not take {wanted}; it would run on {', '.join(found) or 'nothing'}",
            hint=_LIBRARIES,
        )


def _refuse_missing_provider() -> None:
    if CUDA not in ort.get_available_providers():
        raise HostError(
            f"onnxruntime {ort.__version__} is a build without CUDA",
            hint=f"{INSTALL} in an environment without onnxruntime: it and onnxruntime-gpu cannot lie in one",
        )


def _load_libraries() -> None:
    """Load CUDA and cuDNN of NVIDIA's wheels. What cannot be loaded is printed by ONNX Runtime and missed below."""
    with contextlib.redirect_stdout(io.StringIO()):
        ort.preload_dlls()
