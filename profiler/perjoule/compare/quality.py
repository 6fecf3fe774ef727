"""What is known of the quality of each side: how far its predictions are from those of its own file in fp32."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from perjoule.quality.intervals import FAITHFUL_NATS
from perjoule.records import Quantity, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from perjoule.records import RunResult

UNKNOWN, LOST = "not comparable in quality", "quality lost"


class Known(Record, frozen=True, kw_only=True):
    """Fidelity of the result at ``place``; it is ``faithful`` up to a mean divergence of 0.02 nats."""

    place: int
    mean_kl_nats: Quantity
    same_top_token: Quantity
    perplexity_ratio: Quantity
    faithful: bool

    def told(self) -> str:
        """Return it in words, for behind a name."""
        kl, ratio = self.mean_kl_nats, self.perplexity_ratio.value
        return (
            f"mean KL {kl.value:.2g} nats to its own file in fp32 ({FAITHFUL_NATS:g} is faithful), perplexity x"
            f"{ratio:.3g}, the same most likely token at {self.same_top_token.value:.0%} of positions"
        )


def known_of(results: Sequence[RunResult]) -> tuple[Known, ...]:
    """Return what is known, by place; results that were not asked are left out."""
    found = []
    for place, result in enumerate(results):
        fidelity = None if result.quality is None else result.quality.fidelity
        if fidelity is not None:
            found.append(Known(
                place=place,
                mean_kl_nats=fidelity.kl_divergence_nats.mean,
                same_top_token=fidelity.same_top_token,
                perplexity_ratio=fidelity.perplexity_ratio,
                faithful=fidelity.kl_divergence_nats.mean.value <= FAITHFUL_NATS,
            ))  # fmt: skip
    return tuple(found)


def quality_caveats(results: Sequence[RunResult], names: Sequence[str]) -> Iterator[str]:
    """Yield what a reader must know of quality, where results differ in model, precision or engine."""
    if len({_runs_as(r) for r in results}) == 1:
        return
    known = {k.place: k for k in known_of(results)}
    unknown = [r for place, r in enumerate(results) if place not in known]
    if unknown:
        yield _unknown(results, unknown)
    yield from (f"{LOST}: {names[place]}: {k.told()}" for place, k in known.items() if not k.faithful)
    yield from (f"fidelity: {names[place]}: {k.told()}" for place, k in known.items() if k.faithful)
    if len({r.model.file_sha256 for r in results}) > 1:
        yield (
            "fidelity is to each side's own file; which of several models answers better is not measured by this load: "
            "a scenario of tasks measures it"
        )


def _unknown(results: Sequence[RunResult], unknown: Sequence[RunResult]) -> str:
    reasons = dict.fromkeys(str(r.quality_missing) for r in unknown if r.quality is None)
    reasons |= dict.fromkeys(str(r.quality.fidelity_missing) for r in unknown if r.quality is not None)
    several = len({r.model.file_sha256 for r in results}) > 1
    precisions = len({(r.model.file_sha256, r.model.runtime_quantization) for r in results}) > 1
    what = "model and precision" if several else "precision" if precisions else "engine"
    first = min(unknown, key=lambda r: r.model.bits_per_weight or 0.0)
    command = f"`perjoule run --quality fidelity --model {shlex.quote(first.model.ref)}`"
    return (
        f"{UNKNOWN}: results differ in {what}, and {'none' if len(unknown) == len(results) else 'not each'} says what "
        f"that costs ({'; '.join(reasons)}); {command} measures it"
    )


def _runs_as(result: RunResult) -> tuple[str | None, str, str]:
    return result.model.file_sha256, result.model.runtime_quantization, result.backend.name
