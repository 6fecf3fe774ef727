"""Forward passes with everything bound once, over a cache of keys and values in which sequences have places.

What GroupQueryAttention makes of rows of different lengths (ContribOperators.md of ONNX Runtime): ``seqlens_k`` holds
each row's own length less one, past and new together, and each row attends to as many positions and is rotated as the
last of them; ``total_sequence_length`` is the longest of the batch. What lies beyond a row's length is never read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from perjoule_backends.onnxruntime.manifest import Manifest

_ALIGNMENT = 64  # a cache line, as ONNX Runtime's own allocator aligns


class KeyValueCache:
    """Keys and values of all layers, shape (places, kv_heads, capacity, head_dim) each, allocated once.

    The kernel gives pages as they are first written, so that a context takes the memory of what is used of it.
    """

    def __init__(self, manifest: Manifest, capacity: int, places: int = 1) -> None:
        arch = manifest.architecture
        self.places, self.capacity = places, capacity
        shape = (places, arch.kv_heads, capacity, arch.head_dim)
        self._layers = [{part: _zeros(shape) for part in ("key", "value")} for _ in range(arch.layers)]
        self._pieces: dict[tuple[int, int], list[tuple[str, str, ort.OrtValue]]] = {}

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for parts in self._layers for array in parts.values())

    def bind(self, binding: ort.IOBinding, first: int, rows: int) -> None:
        """Bind places ``first`` to ``first + rows - 1``, one contiguous piece of each array, as past and present."""
        for past, present, piece in self._pieces.get((first, rows)) or self._cut(first, rows):
            binding.bind_ortvalue_input(past, piece)
            binding.bind_ortvalue_output(present, piece)

    def _cut(self, first: int, rows: int) -> list[tuple[str, str, ort.OrtValue]]:
        # On the CPU an OrtValue from an array holds the array itself; binding one costs a third of binding a pointer.
        pieces = []
        for layer, parts in enumerate(self._layers):
            for part, array in parts.items():
                piece = ort.OrtValue.ortvalue_from_numpy(array[first : first + rows])
                pieces.append((f"past_key_values.{layer}.{part}", f"present.{layer}.{part}", piece))
        self._pieces[first, rows] = pieces
        return pieces

    def move(self, source: int, target: int, positions: int) -> None:
        """Copy the first ``positions`` of one place over those of another."""
        for parts in self._layers:
            for array in parts.values():
                array[target, :, :positions] = array[source, :, :positions]


class ForwardPass:
    """One forward pass of ``rows`` sequences, ``length`` tokens each: everything is bound once, only numbers change.

    The binding holds pointers, so the arrays are kept here as long as it lives.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        cache: KeyValueCache,
        manifest: Manifest,
        *,
        length: int,
        positions: int = 1,
        first: int = 0,
        rows: int = 1,
        logits: NDArray[np.float32] | None = None,
    ) -> None:
        """Bind places ``first`` on; ``logits``, shape (rows, positions, vocabulary), may belong to several passes."""
        self._session = session
        self._ids = np.zeros((rows, length), dtype=np.int64)
        self._last = np.zeros(rows, dtype=np.int32)
        self._total = np.zeros((), dtype=np.int32)
        shape = (rows, positions, manifest.architecture.vocabulary)
        self._logits = np.empty(shape, dtype=np.float32) if logits is None else logits
        self._cache = cache
        self._binding = binding = session.io_binding()
        self._bind_inputs(binding)
        binding.bind_output("logits", "cpu", 0, np.float32, shape, self._logits.ctypes.data)
        cache.bind(binding, first, rows)

    def _bind_inputs(self, binding: ort.IOBinding) -> None:
        for name, array in (
            ("input_ids", self._ids),
            ("seqlens_k", self._last),
            ("total_sequence_length", self._total),
        ):
            self._bind_from_host(binding, name, array)

    def _bind_from_host(self, binding: ort.IOBinding, name: str, array: NDArray[Any]) -> None:
        binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def _go(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def run(self, ids: Sequence[int], *, total: int) -> NDArray[np.float32]:
        """Run one row on ``ids``, the last of ``total`` tokens; return logits of the last one, shape (vocabulary,)."""
        self._ids[0, :] = ids
        self._last[0] = total - 1
        self._total[()] = total
        self._go()
        last: NDArray[np.float32] = self._logits[0, -1]
        return last

    def run_all(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Run one row on ``ids`` from an empty cache; return logits of every position."""
        self.run(ids, total=len(ids))
        every: NDArray[np.float32] = self._logits[0]
        return every

    def run_rows(self, tokens: Sequence[int], totals: Sequence[int]) -> NDArray[np.float32]:
        """Run one token of each row, the last of ``totals`` tokens; return logits, shape (rows, vocabulary)."""
        self._ids[:, 0] = tokens
        self._last[:] = totals
        self._last -= 1
        self._total[()] = max(totals)
        self._go()
        last: NDArray[np.float32] = self._logits[:, -1]
        return last


def _zeros(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return aligned zeros that no one has written, so that they take no memory yet."""
    nbytes = int(np.prod(shape)) * np.dtype(np.float32).itemsize
    raw = np.zeros(nbytes + _ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    array: NDArray[np.float32] = raw[start : start + nbytes].view(np.float32).reshape(shape)
    return array
