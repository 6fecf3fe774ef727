"""The next token from logits, for engines that leave the choice to us."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perjoule.protocols import Sampling


class Picker:
    """Greedy (ties to the lowest id), or a seeded draw from the softmax of logits / temperature."""

    def __init__(self, sampling: Sampling) -> None:
        self._temperature = sampling.temperature
        self._random = np.random.default_rng(sampling.seed) if sampling.temperature > 0 else None

    def __call__(self, logits: NDArray[np.float32]) -> int:
        """Return an id for logits of shape (vocabulary,)."""
        if self._random is None:
            return int(logits.argmax())
        # Adding Gumbel noise makes the largest a draw from the softmax (Gumbel 1954; "Gumbel-max")
        return int((logits / self._temperature + self._random.gumbel(size=logits.shape)).argmax())
