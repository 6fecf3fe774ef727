"""Sequences that decode together: who sits at which place of the cache, and one forward pass for all of them.

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

from perjoule.errors import EngineError, InputError
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

    def __init__(self, session: ort.InferenceSession, cache: KeyValueCache, manifest: Manifest) -> None:
        self._session, self._manifest = session, manifest
        self.cache = cache
        self._logits = np.empty((cache.places, 1, manifest.architecture.vocabulary), dtype=np.float32)
        self._decode: dict[int, ForwardPass] = {}

    def prefill(self, place: int, prompt_ids: Sequence[int]) -> NDArray[np.float32]:
        """Run a prompt at one place; return logits of its last token, shape (vocabulary,)."""
        length = len(prompt_ids)
        prefill = ForwardPass(
            self._session, self.cache, self._manifest, length=length, first=place, logits=self._logits[:1]
        )
        return prefill.run(prompt_ids, total=length)

    def decode(self, tokens: Sequence[int], totals: Sequence[int]) -> NDArray[np.float32]:
        """Run one token at each of the first places; return logits, shape (len(tokens), vocabulary)."""
        rows = len(tokens)
        if rows not in self._decode:
            self._decode[rows] = ForwardPass(
                self._session, self.cache, self._manifest, length=1, rows=rows, logits=self._logits[:rows]
            )
        return self._decode[rows].run_rows(tokens, totals)


class OnnxRuntimeBatch:
    """Greedy sequences at places 0, 1, ... of the cache. A place that falls empty is filled by the last sequence."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._positions: list[int] = []  # of each sequence that stand in the cache
        self._tokens: list[int] = []  # the last one of each sequence, which does not
        self._ended = False

    def add(self, prompt_ids: Sequence[int]) -> int:
        """Prefill one more sequence and return its first token.

        Raises ``InputError`` where all places are taken or the prompt does not fit the context.
        """
        self._refuse_if_ended()
        place, cache = len(self._tokens), self._rows.cache
        if place == cache.places:
            raise InputError(
                f"the batch holds {cache.places} sequence(s) and all places are taken",
                hint="load the engine with a larger batch, or remove a sequence first",
            )
        refuse_length(prompt_ids, cache.capacity)
        token = int(self._rows.prefill(place, prompt_ids).argmax())
        self._positions.append(len(prompt_ids))
        self._tokens.append(token)
        return token

    def step(self) -> Sequence[int]:
        """Return the next token of every sequence, by place.

        Raises ``InputError`` where the context of one is full; no sequence has moved then.
        """
        self._refuse_if_ended()
        if not self._tokens:
            return []
        totals = [positions + 1 for positions in self._positions]
        if max(totals) > self._rows.cache.capacity:
            raise InputError(
                f"the sequence at place {totals.index(max(totals))} fills its context of "
                f"{self._rows.cache.capacity} tokens",
                hint="remove it before the next step, or load with a larger context",
            )
        self._tokens = self._rows.decode(self._tokens, totals).argmax(axis=1).tolist()
        self._positions = totals
        return self._tokens.copy()

    def remove(self, place: int) -> None:
        """End the sequence at ``place``; what is cached of the last one is copied there. Raises ``InputError``."""
        self._refuse_if_ended()
        last = len(self._tokens) - 1
        if not 0 <= place <= last:
            raise InputError(
                f"no sequence has place {place}: the batch holds {last + 1}", hint="places are counted from 0"
            )
        positions, token = self._positions.pop(), self._tokens.pop()
        if place != last:
            self._rows.cache.move(last, place, positions)
            self._positions[place], self._tokens[place] = positions, token

    def end(self) -> None:
        """Refuse all further use: the places belong to others now."""
        self._ended = True

    def _refuse_if_ended(self) -> None:
        if self._ended:
            raise EngineError(
                "this batch has ended: the engine was asked for another one, or to generate alone",
                hint="ask the engine for a new batch",
            )


def refuse_length(prompt_ids: Sequence[int], context: int) -> None:
    """Raise ``InputError`` for a prompt that is empty or longer than the context."""
    if not 0 < len(prompt_ids) <= context:
        raise InputError(
            f"the prompt has {len(prompt_ids)} tokens; the context holds 1 to {context}",
            hint="shorten the prompt or load with a larger context",
        )
