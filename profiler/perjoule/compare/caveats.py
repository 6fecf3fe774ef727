"""What a reader must keep in mind of a comparison that is made: one sentence each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.compare.quality import quality_caveats

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from perjoule.compare.gate import Gate
    from perjoule.compare.verdicts import Pair
    from perjoule.records import RunResult
    from perjoule.stats.paired import Control

INVALID = "INVALID result"


def caveats(
    results: Sequence[RunResult], names: Sequence[str], gate: Gate, pairs: Sequence[Pair], floor: Mapping[str, Control]
) -> Iterator[str]:
    """Yield them, the weightiest first. ``results`` without controls."""
    for one in gate.of("harmless"):
        if one.field == "publishable":
            yield f"{INVALID}: {one.why}: {' / '.join(one.values)}"
    yield from quality_caveats(results, names)
    if len({r.model.tokenizer_sha256 for r in results}) > 1 or any(
        d.field == "samples.prompt_ids_sha256" for d in gate.of("question")
    ):
        tokens = results[0].scenario.spec.get("prompt_tokens")
        yield (
            f"tokens are each tokenizer's own: every prompt is cut to its first {tokens} tokens, which is not the same "
            "stretch of text, and joules per token are not joules per text"
        )
    if any(not pair.paired for pair in pairs):
        yield from _apart(pairs)
    if gate.question is None and {r.settings.control for r in results} == {"A", "A'"}:
        yield "A and A' are one configuration measured twice in turns (--control): what they differ by is noise"
    if gate.question == "host":
        yield "two machines: what their meters and models have wrong does not cancel and is in the interval of energy"
    if not floor:
        yield (
            "no A-A control of this run is given, so nothing beyond chance is taken off: `perjoule run --control` "
            "measures each configuration twice"
        )


def _apart(pairs: Sequence[Pair]) -> Iterator[str]:
    together = any("too few pairs" in j.note for pair in pairs for j in pair.judgements)
    if together:
        yield "processes took turns, but too few for a test of pairs: --rigor standard measures at least 8"
    else:
        yield (
            "measured in separate runs: what the machine did between them is in the ratio and in no interval; one "
            "`perjoule run` with all configurations measures them in turn"
        )
