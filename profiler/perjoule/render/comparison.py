"""A comparison in a terminal and as Markdown for a pull request: the verdict first, then the numbers behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from perjoule.compare.caveats import INVALID
from perjoule.compare.quality import UNKNOWN
from perjoule.records import Energy, Quantity
from perjoule.render import format as fmt
from perjoule.render.plain import printable
from perjoule.stats.paired import higher_is_better

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from perjoule.compare import Outcome
    from perjoule.compare.gate import Difference
    from perjoule.compare.pareto import Front
    from perjoule.compare.ranking import Ranking
    from perjoule.compare.verdicts import Judgement, Pair

SAID = {
    "ttft_s": "time to first token", "tpot_s": "time per output token", "e2e_latency_s": "latency of a request",
    "decode_tokens_per_s": "decode rate", "prefill_tokens_per_s": "prefill rate",
    "output_tokens_per_s": "output rate", "requests_per_s": "answered requests",
    "energy_j_per_output_token": "energy per output token", "energy_j_per_request": "energy per request",
    "power_w": "power", "peak_memory_bytes": "peak memory", "load_s": "model load",
    "cold_ttft_s": "first request of a fresh process",
}  # fmt: skip
HEAD = ("metric", "baseline", "candidate", "candidate / baseline", "p, Holm", "verdict")
_STYLE = {"better": "green", "worse": "bold red", "not comparable": "yellow"}
_ORDER = ("worse", "better", "not comparable", "not distinguishable", "not measured")
# what Markdown would act on inside a line, and what GitHub or HTML would
_ESCAPED = str.maketrans({c: f"\\{c}" for c in "\\`*_[]|~"} | {c: f"&#{ord(c)};" for c in "<>&@#"})


def sentences(outcome: Outcome) -> list[str]:
    """Return the verdict in words: one sentence a candidate, worse first, then better, then what is not known."""
    return [printable(f"{names(outcome, pair)}: {_told(outcome, pair)}") for pair in outcome.pairs]


def loud(outcome: Outcome) -> list[str]:
    """Return what must be read before the verdict: that results are compared which may not be published."""
    return [printable(line) for line in outcome.caveats if line.startswith(INVALID)]


def names(outcome: Outcome, pair: Pair) -> str:
    candidate, baseline = (outcome.results[i].name for i in (pair.candidate, pair.baseline))
    return f"{candidate} against {baseline}"


def _told(outcome: Outcome, pair: Pair) -> str:
    parts = []
    for verdict in _ORDER:
        found = [j for j in pair.judgements if j.verdict == verdict]
        if not found:
            continue
        if verdict in ("worse", "better"):
            parts.append(f"{verdict.upper()} in {', '.join(f'{SAID[j.metric]} ({change(j)})' for j in found)}")
        else:
            parts.append(f"{verdict}: {', '.join(SAID[j.metric] for j in found)}")
    if any(j.verdict == "better" for j in pair.judgements):
        parts += _price(outcome, pair)
    return "; ".join(parts)


def _price(outcome: Outcome, pair: Pair) -> list[str]:
    """Say what quality a better candidate pays with, or that this is not known."""
    if any(c.startswith(UNKNOWN) for c in outcome.caveats):
        return ["what that costs in quality is not known, see below"]
    known = next((k for k in outcome.quality if k.place == pair.candidate and not k.faithful), None)
    return [] if known is None else [f"QUALITY LOST: {known.told()}"]


def change(found: Judgement) -> str:
    """Return the change of a ratio in per cent with its interval, as ``+9.1 %, +8.0 to +10.3 %``."""
    ratio = found.ratio
    if ratio is None:
        return fmt.DASH
    if ratio.low is None or ratio.high is None:
        return f"{_percent(ratio.ratio)} %, no interval"
    return f"{_percent(ratio.ratio)} %, {_percent(ratio.low)} to {_percent(ratio.high)} %"


def _percent(ratio: float) -> str:
    change_ = 100 * (ratio - 1)
    return f"{change_:+.{0 if abs(change_) >= 100 else 1 if abs(change_) >= 1 else 2}f}"  # noqa: PLR2004


def cells(outcome: Outcome, pair: Pair, found: Judgement) -> tuple[str, ...]:
    """Return a row of the table under ``HEAD``."""
    sides = (outcome.results[i].values.get(found.metric) for i in (pair.baseline, pair.candidate))
    values = [_value(side) for side in sides]
    p = found.ratio.adjusted_p if found.ratio else None
    told = "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"  # noqa: PLR2004
    verdict = found.verdict + ("" if found.primary else " (named)")
    return (
        f"{SAID[found.metric]} ({'more' if higher_is_better(found.metric) else 'less'} is better)",
        *values, change(found), told, verdict,
    )  # fmt: skip


def _value(value: object) -> str:
    if isinstance(value, Energy):
        return fmt.energy_short(value)
    return fmt.metric(value) if isinstance(value, Quantity) else fmt.DASH


def notes(outcome: Outcome) -> list[str]:
    """Return what stands behind the numbers: method, differences, what is not comparable, caveats."""
    lines = []
    asked = outcome.gate.question
    how = "declared" if outcome.gate.declared else "found: nothing else that matters differs"
    lines.append(f"question: {asked} ({how})" if asked else f"question: none, {outcome.gate.question_missing}")
    lines += [f"differs, as asked: {_difference(one)}" for one in outcome.gate.of("question")]
    lines += [
        f"differs, harmless: {_difference(one)}" for one in outcome.gate.of("harmless") if one.field != "publishable"
    ]
    for pair in outcome.pairs:
        lines += [f"{names(outcome, pair)}: {line}" for line in _of_pair(pair)]
    lines += [
        f"energy of {entry.name}: {fmt.kind(value)}"
        for entry in outcome.results
        for name, value in entry.values.items()
        if isinstance(value, Energy) and name == "energy_j_per_output_token"
    ]
    if outcome.threshold:
        lines.append(f"worse means worse by more than {100 * outcome.threshold:g} %")
    lines += [_floor(outcome)] if outcome.noise_floor else []
    return [printable(line) for line in (*lines, *(f"note: {c}" for c in outcome.caveats if not c.startswith(INVALID)))]


def _difference(one: Difference) -> str:
    return f"{one.said}: {' / '.join(one.values)}" + (f" ({one.why})" if one.why else "")


def _of_pair(pair: Pair) -> list[str]:
    method = next((j.ratio.method for j in pair.judgements if j.ratio), "")
    counts = sorted({j.ratio.n for j in pair.judgements if j.ratio})
    n = " to ".join(str(c) for c in dict.fromkeys((counts[0], counts[-1]))) if counts else "0"
    lines = [f"{method}; n = {n}; verdicts at 5 %, Holm over all of them"]
    for one in pair.judgements:
        if one.note:
            lines.append(f"{SAID[one.metric]}: {one.note}")
        if one.why:
            lines.append(f"{SAID[one.metric]}, {one.verdict}: {one.why}")
    return lines


def _floor(outcome: Outcome) -> str:
    """Say what a configuration differs by from itself beyond chance, as a share."""
    told = [f"{SAID[m]} {100 * c.variance**0.5:.2g} %" for m, c in outcome.noise_floor.items()]
    count = max(c.controls for c in outcome.noise_floor.values())
    return f"noise floor of {count} A-A control{'s' * (count != 1)}, beyond chance: {', '.join(told)}"


def terminal(outcome: Outcome) -> RenderableType:
    """Return what a terminal shows."""
    parts: list[RenderableType] = [Text(line, style="bold red") for line in loud(outcome)]
    parts += [Text(line, style="bold") for line in sentences(outcome)]
    for pair in outcome.pairs:
        table = Table(header_style="bold", expand=False, pad_edge=False)
        if len(outcome.pairs) > 1:
            parts += [Text(""), Text(printable(names(outcome, pair)))]
        for head in HEAD:
            table.add_column(head, overflow="fold")
        for one in pair.judgements:
            row = [Text(printable(cell)) for cell in cells(outcome, pair, one)]
            row[-1].stylize(_STYLE.get(one.verdict, ""))
            table.add_row(*row)
        parts.append(table)
    ranked = [ranking(outcome, one) for one in outcome.rankings]
    parts += [Text(printable(line)) for line in (*ranked, *(pareto(outcome, one) for one in outcome.fronts))]
    parts += [Text(line, style="dim") for line in notes(outcome)]
    return Group(*parts)


def ranking(outcome: Outcome, found: Ranking) -> str:
    """Return a ranking as one line; who shares a rank is joined by ``=``."""
    by_rank: dict[int, list[str]] = {}
    for place in found.places:
        if place.rank is not None:
            by_rank.setdefault(place.rank, []).append(outcome.results[place.result].name)
    told = "; ".join(f"{rank}. {' = '.join(who)}" for rank, who in sorted(by_rank.items()))
    lost = [f"{outcome.results[p.result].name} ({p.rank_missing})" for p in found.places if p.rank is None]
    return f"{SAID[found.metric]}, best first: {told or 'nobody'}" + (
        f"; not ranked: {', '.join(lost)}" if lost else ""
    )


def pareto(outcome: Outcome, found: Front) -> str:
    """Return a front as one line: who is on it, and who is surely beaten by whom."""
    head = f"Pareto front of {SAID[found.x_metric]} and {SAID[found.y_metric]}"
    if isinstance(found.missing, str):
        return f"{head}: none, {found.missing}"
    on = ", ".join(outcome.results[i].name for i in found.best)
    off = [
        f"{outcome.results[p.result].name} (by {', '.join(outcome.results[i].name for i in p.dominated_by)})"
        for p in found.points
        if p.dominated_by
    ]
    return f"{head}: {on}" + (f"; surely beaten: {', '.join(off)}" if off else "")


def markdown(outcome: Outcome) -> str:
    """Return the comparison as GitHub-flavoured Markdown; names from files are escaped."""
    lines = [f"**{_plain(line)}**\n" for line in (*loud(outcome), *sentences(outcome))]
    for pair in outcome.pairs:
        if len(outcome.pairs) > 1:
            lines.append(f"{_plain(names(outcome, pair))}\n")
        lines += [_row(HEAD), _row(["---"] * len(HEAD), escape=False)]
        lines += [_row(cells(outcome, pair, one)) for one in pair.judgements]
        lines.append("")
    lines += [f"- {_plain(ranking(outcome, r))}" for r in outcome.rankings]
    lines += [f"- {_plain(pareto(outcome, f))}" for f in outcome.fronts]
    details = "\n".join(f"- {_plain(line)}" for line in notes(outcome))
    return "\n".join(lines) + f"\n<details><summary>Behind the numbers</summary>\n\n{details}\n\n</details>\n"


def _row(row: Sequence[str], *, escape: bool = True) -> str:
    return f"| {' | '.join(_plain(c) if escape else c for c in row)} |"


def _plain(text: str) -> str:
    """Escape what Markdown or HTML would act on; a mention (@) or a line break from a name does nothing either."""
    return printable(text).replace("\n", " ").translate(_ESCAPED)
