"""What a reader must keep in mind of a comparison that is made: one sentence each."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from perjoule.compare.gate import Gate
    from perjoule.compare.verdicts import Pair
    from perjoule.records import RunResult
    from perjoule.stats.paired import Control

INVALID, QUALITY_UNKNOWN = "INVALID result", "not comparable in quality"


def caveats(
    results: Sequence[RunResult], gate: Gate, pairs: Sequence[Pair], floor: Mapping[str, Control]
) -> Iterator[str]:
    """Yield them, the weightiest first. ``results`` without controls."""
    for one in gate.of("harmless"):
        if one.field == "publishable":
            yield f"{INVALID}: {one.why}: {' / '.join(one.values)}"
    if unknown := quality_unknown(results):
        yield unknown
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
    if gate.question == "host":
        yield "two machines: what their meters and models have wrong does not cancel and is in the interval of energy"
    if not floor:
        yield (
            "no A-A control of this run is given, so nothing beyond chance is taken off: `perjoule run --control` "
            "measures each configuration twice"
        )


def quality_unknown(results: Sequence[RunResult]) -> str:
    """Say which quality nobody knows, where results differ in model or precision; empty where they do not."""
    if len({_precision(r) for r in results}) == 1:
        return ""
    commands = dict.fromkeys(
        f"`perjoule models info {shlex.quote(r.model.ref)} --fidelity --quant "
        f"{shlex.quote(str(r.backend.requested_options.get('quant', 'faithful')))}`"
        for r in sorted(results, key=lambda r: r.model.bits_per_weight)
    )
    several = len({r.model.file_sha256 for r in results}) > 1
    what = "model and precision" if several else "precision"
    return f"{QUALITY_UNKNOWN}: results differ in {what}, and none says what that costs; run {next(iter(commands))}"


def _precision(result: RunResult) -> tuple[str, str]:
    return result.model.file_sha256, result.model.runtime_quantization


def _apart(pairs: Sequence[Pair]) -> Iterator[str]:
    together = any("too few pairs" in j.note for pair in pairs for j in pair.judgements)
    if together:
        yield "processes took turns, but too few for a test of pairs: --rigor standard measures at least 8"
    else:
        yield (
            "measured in separate runs: what the machine did between them is in the ratio and in no interval; one "
            "`perjoule run` with all configurations measures them in turn"
        )
