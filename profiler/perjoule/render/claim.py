"""A verdict in words: two plain sentences first, then what they rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from perjoule.render.format import LABELS, hyphenated, significant
from perjoule.render.plain import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from perjoule.claims.verdict import Interval, SideFacts, Verdict

_STYLE = {"holds": "bold green", "fails": "bold red", "undecided": "bold yellow"}
_ANSWER = {
    "holds": "The claim holds here",
    "fails": "The claim fails here",
    "undecided": "The claim is undecided here",
}
HEAD = (
    "", "what the claim is judged by", "right answers", "tokens per answer", "J per token", "KL to its own file, nats",
)  # fmt: skip
METHOD = (
    "Both sides were measured in turn, in fresh processes, in an order drawn from a seed.",
    "The claim, its margin and its stopping rule were fixed and hashed before; a ratio is tested against the margin, "
    "with the whole 95 % interval.",
    "Intervals of cost are over processes, those of answers over questions (bootstrap, both sides' answers to a "
    "question together).",
)


def two_sentences(verdict: Verdict) -> tuple[str, str]:
    """Return the answer, and the reason that weighs most."""
    marked = "Exploratory, not a test: " if verdict.exploratory else ""
    first = f"{marked}{_ANSWER[verdict.answer]}: {verdict.statement}"
    reason = verdict.why[0] if verdict.why else "nothing was measured of it"
    return printable(first), printable(reason[0].upper() + reason[1:] + ".")


def not_shown(verdict: Verdict) -> list[str]:
    """Return what this does not show, the same for every reader."""
    lines = [
        f"Anything outside its scope: {verdict.scope}.",
        verdict.energy_says[0].upper() + verdict.energy_says[1:] + ".",
        "Other machines, engines, precisions, prompts or lengths of answers.",
    ]
    if verdict.exploratory:
        lines.insert(0, f"A test: {verdict.exploratory_why}. What is explored may have suggested the claim.")
    return [printable(line) for line in lines]


def rows(verdict: Verdict) -> list[tuple[str, ...]]:
    """Return a row a side, under ``HEAD``."""
    return [_row(side) for side in verdict.sides]


def terminal(verdict: Verdict) -> RenderableType:
    """Return what a terminal shows."""
    first, second = two_sentences(verdict)
    table = Table(header_style="bold", expand=False, pad_edge=False)
    for name in HEAD:
        table.add_column(name, overflow="fold")
    for row in rows(verdict):
        table.add_row(Text(hyphenated(printable(row[0]))), *(Text(printable(cell)) for cell in row[1:]))
    parts: list[RenderableType] = [Text(first, style=_STYLE[verdict.answer]), Text(second), table]
    parts += [Text(printable(line)) for line in verdict.why[1:]]
    if verdict.would_decide:
        parts.append(Text(printable(f"would decide it: {verdict.would_decide}")))
    parts.append(Text("what this does not show:", style="dim"))
    parts += [Text(f"- {line}", style="dim") for line in not_shown(verdict)]
    parts += [Text(printable(f"warning: {line}"), style="yellow") for line in verdict.caveats]
    digest = f"claim {verdict.claim} version {verdict.claim_version}, registered {verdict.registered_utc}, sha256 "
    parts.append(Text(printable(f"{digest}{verdict.claim_sha256[:16]}"), style="dim"))
    return Group(*parts)


def _row(side: SideFacts) -> tuple[str, ...]:
    how = f", {LABELS.get(side.cost_label, side.cost_label)}" if side.cost_label else ""
    cost = told(side.cost, side.cost_unit) + how
    accuracy = "-" if side.accuracy is None else f"{told(side.accuracy, percent=True)} of {side.items_count}"
    tokens = "-" if side.tokens_per_answer is None else significant(side.tokens_per_answer, 3)
    return (
        side.said, cost, accuracy, tokens, told(side.energy_j_per_output_token, "J"), told(side.mean_kl_nats),
    )  # fmt: skip


def told(found: Interval | None, unit: str = "", *, percent: bool = False) -> str:
    """Return a value with its interval, short."""
    if found is None:
        return "-"

    def one(value: float | None) -> str:
        if value is None:
            return "no bound"
        return f"{100 * value:.0f} %" if percent else significant(value, 3)

    return f"{one(found.value)}{f' {unit}' if unit else ''} ({one(found.low)} to {one(found.high)})"


def method(verdict: Verdict) -> Sequence[str]:
    """Return how it was judged."""
    used = dict.fromkeys(f"{e.said}: {e.method}{f'; {e.note}' if e.note else ''}." for e in verdict.effects if e.method)
    return [printable(line) for line in (*METHOD, *used)]
