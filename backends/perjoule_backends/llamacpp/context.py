"""A model and a context of llama.cpp: passes over tokens, and the cache of keys and values that they fill.

Calls and structures are those of llama.h, as llama-cpp-python declares them. Each sequence has cells of its own (the
cache is not unified), so that company does not lengthen its attention.
"""

from __future__ import annotations

import ctypes
from collections import deque
from typing import TYPE_CHECKING, Any

import llama_cpp
import numpy as np

from perjoule.errors import EngineError, InputError
from perjoule_backends.devices import cuda_index

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from perjoule_backends.llamacpp.settings import Settings

_KV_TYPES = {"f16": llama_cpp.GGML_TYPE_F16, "f32": llama_cpp.GGML_TYPE_F32, "q8_0": llama_cpp.GGML_TYPE_Q8_0}
_ERROR = 4  # ggml.h: GGML_LOG_LEVEL_ERROR
_errors: deque[str] = deque(maxlen=20)


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _keep_errors(level: int, text: bytes, _data: object) -> None:
    if level == _ERROR and text.strip():
        _errors.append(text.decode(errors="replace").strip())


# llama.cpp tells dozens of lines about every model; what went wrong is said in ours.
llama_cpp.llama_log_set(_keep_errors, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


def last_error(otherwise: str) -> str:
    """Return what llama.cpp said first of what went wrong, and forget it."""
    said = _errors[0] if _errors else otherwise
    _errors.clear()
    return said[:200]


class Model:
    """The weights of a file, as llama.cpp holds them. ``device``: cpu, or cuda:N."""

    def __init__(self, path: Path, device: str, *, mmap: bool) -> None:
        _errors.clear()
        params = llama_cpp.llama_model_default_params()
        params.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP if mmap else llama_cpp.LLAMA_LOAD_MODE_NONE
        board = cuda_index(device)
        if board is None:
            self._no_devices = (ctypes.c_void_p * 1)(None)  # a list that ends at once: none of the boards there may be
            params.devices = ctypes.cast(self._no_devices, ctypes.c_void_p)
            params.n_gpu_layers = 0
        else:
            _refuse_without_gpu(device)
            params.split_mode = llama_cpp.LLAMA_SPLIT_MODE_NONE
            params.main_gpu = board
            params.n_gpu_layers = -1  # all
        self.handle = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise EngineError(
                f"llama.cpp cannot load {path.resolve().name}: {last_error('it says no more')}",
                hint="use another checkpoint, or a newer llama-cpp-python",
            )
        self.device = device
        self.repacks = bool(params.use_extra_bufts)
        self.vocabulary = int(llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.handle)))
        self.trained_context = int(llama_cpp.llama_model_n_ctx_train(self.handle))

    def close(self) -> None:
        if self.handle:
            llama_cpp.llama_model_free(self.handle)
        self.handle = None


def _refuse_without_gpu(device: str) -> None:
    if not llama_cpp.llama_supports_gpu_offload():
        raise EngineError(
            f"this build of llama.cpp cannot use {device}",
            hint="use --device cpu, or build llama-cpp-python with CMAKE_ARGS=-DGGML_CUDA=on",
        )


class Context:
    """Passes over tokens of up to ``sequences`` sequences of ``capacity`` positions each."""

    def __init__(self, model: Model, settings: Settings, threads: int, capacity: int, sequences: int = 1) -> None:
        _errors.clear()
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max = capacity * sequences, sequences
        params.n_batch, params.n_ubatch = settings.batch, settings.ubatch
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = (
            llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if settings.flash_attn else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        params.type_k = params.type_v = _KV_TYPES[settings.kv_type]
        params.kv_unified = False
        params.offload_kqv = params.op_offload = model.device != "cpu"
        self._handle = llama_cpp.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise EngineError(
                f"llama.cpp makes no context: {last_error('it says no more')}",
                hint="other backend.flash_attn or backend.kv_type may be what this model needs",
            )
        self._memory = llama_cpp.llama_get_memory(self._handle)
        self._vocabulary = model.vocabulary
        self.capacity, self.places = capacity, sequences
        self._at_once = min(int(llama_cpp.llama_n_batch(self._handle)), settings.batch)
        self._tokens = _Tokens(max(self._at_once, sequences))
        self._seen: NDArray[np.float32] = np.empty((0, 0), dtype=np.float32)

    def clear(self) -> None:
        """Forget all sequences."""
        llama_cpp.llama_memory_clear(self._memory, False)

    def forget(self, place: int) -> None:
        llama_cpp.llama_memory_seq_rm(self._memory, place, -1, -1)

    def move(self, source: int, target: int, _positions: int) -> None:
        """Let the sequence at ``source`` stand at ``target`` instead of what stood there."""
        self.forget(target)
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        self.forget(source)

    def prefill(self, place: int, ids: Sequence[int]) -> NDArray[np.float32]:
        """Run a prompt at an empty place; return logits of its last token, shape (vocabulary,), until the next pass."""
        self._refuse_unknown(ids)
        for start in range(0, len(ids), self._at_once):
            part = ids[start : start + self._at_once]
            self._tokens.one_sequence(part, place, start, last=start + len(part) == len(ids))
            self._run(len(part))
        last: NDArray[np.float32] = self._logits(1)[0]
        return last

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> NDArray[np.float32]:
        """Run one token at each of the first places; return logits, shape (len(tokens), vocabulary), until the next."""
        self._tokens.one_each(tokens, positions)
        self._run(len(tokens))
        return self._logits(len(tokens))

    def score(self, ids: Sequence[int], at_once: int) -> NDArray[np.float32]:
        """Return logits of every position, shape (len(ids), vocabulary); the cache is empty before."""
        self._refuse_unknown(ids)
        self.clear()
        found = np.empty((len(ids), self._vocabulary), dtype=np.float32)
        step = min(at_once, self._at_once)
        for start in range(0, len(ids), step):
            part = ids[start : start + step]
            self._tokens.one_sequence(part, 0, start, last=False, every=True)
            self._run(len(part))
            found[start : start + len(part)] = self._logits(len(part))
        return found

    def used(self) -> dict[str, Any]:
        """Return what the context says of itself."""
        return {
            "threads": int(llama_cpp.llama_n_threads(self._handle)),
            "threads_prefill": int(llama_cpp.llama_n_threads_batch(self._handle)),
            "batch": int(llama_cpp.llama_n_seq_max(self._handle)),
            "tokens_at_once": int(llama_cpp.llama_n_batch(self._handle)),
            "ubatch": int(llama_cpp.llama_n_ubatch(self._handle)),
            "kv_cells": int(llama_cpp.llama_n_ctx(self._handle)),  # it rounds up to multiples of 256
        }

    def close(self) -> None:
        if self._handle:
            llama_cpp.llama_free(self._handle)
        self._handle = None

    def _refuse_unknown(self, ids: Sequence[int]) -> None:
        """Raise ``InputError`` for ids that are none: llama.cpp says only that the batch is invalid."""
        if ids and not (min(ids) >= 0 and max(ids) < self._vocabulary):
            raise InputError(
                f"a token id is not in the vocabulary of {self._vocabulary}",
                hint="the prompt was made with another tokenizer",
            )

    def _run(self, count: int) -> None:
        self._tokens.batch.n_tokens = count
        code = llama_cpp.llama_decode(self._handle, self._tokens.batch)
        if code:
            raise EngineError(
                f"llama.cpp stopped in a pass over {count} tokens (code {code}): {last_error('it says no more')}",
                hint="a shorter context or a smaller backend.batch needs less memory",
            )

    def _logits(self, rows: int) -> NDArray[np.float32]:
        """Return a view of the logits; it is kept while llama.cpp keeps them in one place, for making it takes long."""
        found = llama_cpp.llama_get_logits(self._handle)
        if self._seen.shape[0] != rows or self._seen.ctypes.data != ctypes.addressof(found.contents):
            self._seen = np.ctypeslib.as_array(found, shape=(rows, self._vocabulary))
        return self._seen


class _Tokens:
    """A ``llama_batch`` over arrays of ours, which numpy fills at once."""

    def __init__(self, most: int) -> None:
        self._token, self._position, self._sequence = (np.zeros(most, dtype=np.int32) for _ in range(3))
        self._sequences = np.ones(most, dtype=np.int32)  # each token is of one sequence
        self._wanted = np.zeros(most, dtype=np.int8)
        where = self._sequence.ctypes.data + 4 * np.arange(most, dtype=np.uint64)
        self._where = where.astype(np.uintp)
        self.batch = llama_cpp.llama_batch(
            0,
            self._token.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token)),
            None,
            self._position.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_pos)),
            self._sequences.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            self._where.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(llama_cpp.llama_seq_id))),
            self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def one_sequence(self, ids: Sequence[int], place: int, start: int, *, last: bool, every: bool = False) -> None:
        """Take part of a text, from position ``start``; logits are wanted of its last token, of every one, or none."""
        count = len(ids)
        self._token[:count] = ids
        self._position[:count] = np.arange(start, start + count)
        self._sequence[:count] = place
        self._wanted[:count] = every
        self._wanted[count - 1] = last or every

    def one_each(self, tokens: Sequence[int], positions: Sequence[int]) -> None:
        """Take one token of each of the first sequences; logits are wanted of all."""
        count = len(tokens)
        self._token[:count] = tokens
        self._position[:count] = positions
        self._sequence[:count] = np.arange(count)
        self._wanted[:count] = 1
