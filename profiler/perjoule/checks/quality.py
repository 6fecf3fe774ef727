"""Whether what was timed still predicts what its file does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.quality.intervals import FAITHFUL_NATS
from perjoule.records import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perjoule.records import RunResult


def _unfaithful(result: RunResult) -> Iterator[Check]:
    fidelity = None if result.quality is None else result.quality.fidelity
    if fidelity is None:
        return
    mean = fidelity.kl_divergence_nats.mean.value
    if mean > FAITHFUL_NATS:
        yield Check(
            code="unfaithful",
            severity="warning",
            message=(
                f"what was timed predicts other words than its file: mean KL {mean:.2g} nats (faithful is up to "
                f"{FAITHFUL_NATS:g}), perplexity x{fidelity.perplexity_ratio.value:.3g}"
            ),
            hint="compare its cost only together with its quality, or use --quant faithful",
            data={"mean_kl_nats": mean, "perplexity_ratio": fidelity.perplexity_ratio.value},
        )


RULES: tuple[Callable[[RunResult], Iterator[Check]], ...] = (_unfaithful,)
