"""Quality in words and tables: fidelity, right answers by task, what each language costs, bits per byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.answers import answered
from perjoule.quality.intervals import FAITHFUL_NATS
from perjoule.quality.questions import task_of
from perjoule.records import Energy, Quantity
from perjoule.render import format as fmt
from perjoule.render.comparison_charts import RatioRow, ratios

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.records import RunResult

LANGUAGE_HEAD = (
    "language", "tokens", "x tokens", "J to read it", "x J", "first token after", "x time", "J per 1,000 characters",
)  # fmt: skip
LANGUAGE_NOTE = (
    "The same passage in each language; x is relative to English, process by process. Joules per 1,000 characters are "
    "secondary: one character of Chinese says more than one of English. The passage is famous and may stand in what a "
    "model was trained on."
)
BITS_NOTE = (
    "Bits per byte compare models within one language. There is no average over languages: their bytes say unequally "
    "much."
)


def fidelity_lines(result: RunResult) -> list[str]:
    """Say how far what was timed is from its own file in fp32; nothing where nobody asked."""
    if result.quality is None:
        return []
    found = result.quality.fidelity
    if found is None:
        return [f"fidelity not known: {result.quality.fidelity_missing}"]
    kl = found.kl_divergence_nats.mean
    same, ratio = found.same_top_token.value, found.perplexity_ratio.value
    return [
        f"fidelity to its own file in fp32: mean KL {fmt.significant(kl.value, 2)} nats{_within(kl)} (faithful: up "
        f"to {FAITHFUL_NATS:g}), same most likely token at {fmt.significant(100 * same, 3)} % of positions, "
        f"perplexity {100 * (ratio - 1):+.2g} %"
    ]


def answer_lines(result: RunResult) -> list[str]:
    """Say how many answers were right, by task and by language; nothing where no questions were asked."""
    found = answered(result.samples)
    if not found:
        return []
    by_task: dict[str, list[bool]] = {}
    by_language: dict[str, list[bool]] = {}
    for one in found:
        task, _, language = task_of(one.question)
        by_task.setdefault(task, []).append(one.correct)
        by_language.setdefault(language, []).append(one.correct)
    return [f"right answers: {_counts(by_task)}; {_counts(by_language)}"]


def _counts(groups: dict[str, list[bool]]) -> str:
    return ", ".join(f"{name} {sum(right)} of {len(right)}" for name, right in groups.items())


def language_rows(result: RunResult) -> list[tuple[str, ...]]:
    """Return a row a language under ``LANGUAGE_HEAD``; none where no passages were read."""
    return [
        (
            cost.language,
            str(cost.tokens_count),
            fmt.significant(cost.relative_tokens, 3),
            fmt.energy_short(cost.energy_j_per_passage) if isinstance(cost.energy_j_per_passage, Energy) else fmt.DASH,
            _ratio(cost.relative_energy),
            fmt.metric(cost.ttft_s),
            _ratio(cost.relative_ttft),
            fmt.DASH
            if cost.energy_j_per_1000_characters is None
            else fmt.significant(cost.energy_j_per_1000_characters, fmt.MODELLED_DIGITS),
        )
        for cost in result.languages
    ]


def language_picture(result: RunResult) -> str:
    """Return a picture of joules relative to English, as inline SVG; empty where there are none."""
    found = [
        RatioRow(
            name=f"{cost.language}: x{fmt.significant(cost.relative_energy.value, 3)} joules, "
            f"x{fmt.significant(cost.relative_tokens, 3)} tokens",
            group=0, ratio=cost.relative_energy.value, low=cost.relative_energy.low, high=cost.relative_energy.high,
        )
        for cost in result.languages if cost.relative_energy is not None and cost.language != cost.reference
    ]  # fmt: skip
    return ratios(found, "Joules to read the same passage, relative to English") if found else ""


def bits_lines(result: RunResult) -> list[str]:
    """Say bits per byte of the passage in each language; nothing where nobody asked."""
    if result.quality is None or not result.quality.bits_per_byte:
        return []
    told = ", ".join(f"{tag} {fmt.significant(b.bits_per_byte, 3)}" for tag, b in result.quality.bits_per_byte.items())
    return [f"bits per byte: {told}"]


def lines(result: RunResult) -> list[str]:
    """Return all that is said in a line each."""
    return [*fidelity_lines(result), *answer_lines(result), *bits_lines(result)]


def has_languages(results: Sequence[RunResult]) -> bool:
    return any(r.languages for r in results)


def _ratio(found: Quantity | None) -> str:
    if found is None:
        return fmt.DASH
    return f"{fmt.significant(found.value, 3)}{_within(found)}"


def _within(found: Quantity) -> str:
    if found.low is None or found.high is None:
        return ""
    return f" ({fmt.significant(found.low, 2)}-{fmt.significant(found.high, 2)})"
