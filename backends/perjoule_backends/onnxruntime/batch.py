"""One forward pass for all sequences that decode together.

A sequence says in company what it says alone, with one reservation for blocks wider than 64 columns. There MatMulNBits
(ONNX Runtime 1.32.0, AVX-512) adds up a row in another order when it is alone, or the odd one of a batch, than in a
pair. Activations are rounded to 8 bits row by row, so rows do not depend on each other, but that last bit can decide a
rounding, and then layer by layer more of them: on SmolLM2 the logits move by up to 1.1, as far as quantization itself
moves them, and neither order is nearer to fp32 (mean KL 0.0082 nats alone, 0.0074 in a pair). A token whose lead is
smaller may then be another one. Blocks of 32 columns and fp32 were equal to the last bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perjoule_backends.onnxruntime.forward import ForwardPass

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnxruntime as ort
    from numpy.typing import NDArray

    from perjoule_backends.onnxruntime.forward import KeyValueCache
    from perjoule_backends.onnxruntime.manifest import Manifest


class Rows:
    """Forward passes over places of the cache: a prompt at one of them, or one token at each of the first few.

    The passes of one token are bound once for each number of rows and share one array of logits.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        cache: KeyValueCache,
        manifest: Manifest,
        forward: type[ForwardPass] = ForwardPass,
    ) -> None:
        self._session, self._manifest, self._forward = session, manifest, forward
        self._cache = cache
        self._logits = np.empty((cache.places, 1, manifest.architecture.vocabulary), dtype=np.float32)
        self._decode: dict[int, ForwardPass] = {}

    def prefill(self, place: int, prompt_ids: Sequence[int]) -> NDArray[np.float32]:
        """Run a prompt at one place; return logits of its last token, shape (vocabulary,)."""
        length = len(prompt_ids)
        prefill = self._forward(
            self._session, self._cache, self._manifest, length=length, first=place, logits=self._logits[:1]
        )
        return prefill.run(prompt_ids, total=length)

    @property
    def places(self) -> int:
        """How many sequences the cache holds."""
        return self._cache.places

    @property
    def capacity(self) -> int:
        """How many tokens of each."""
        return self._cache.capacity

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> NDArray[np.float32]:
        """Run one token at each of the first places; return logits, shape (len(tokens), vocabulary)."""
        rows = len(tokens)
        if rows not in self._decode:
            self._decode[rows] = self._forward(
                self._session, self._cache, self._manifest, length=1, rows=rows, logits=self._logits[:rows]
            )
        return self._decode[rows].run_rows(tokens, [position + 1 for position in positions])

    def move(self, source: int, target: int, positions: int) -> None:
        """Copy what is cached of the sequence at ``source`` to ``target``."""
        self._cache.move(source, target, positions)

    def forget(self, place: int) -> None:
        """Leave it: the next prompt at this place overwrites what is cached, and attention never looks beyond it."""
