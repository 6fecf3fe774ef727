"""A race in a terminal: the verdict first, then every configuration, best first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from perjoule.render import format as fmt
from perjoule.render.plain import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from perjoule.tuning import Candidate, Tuning


def race(found: Tuning) -> RenderableType:
    """Return the table of a race. An asterisk marks a configuration whose means miss the limits."""
    table = Table(header_style="bold", expand=False, pad_edge=False)
    for title in ("configuration", found.unit, "TTFT", "TPOT", "processes", "left the race"):
        table.add_column(title, overflow="fold")
    for one in found.candidates:
        table.add_row(*(Text(printable(cell)) for cell in _cells(one)))
    limits = found.slo
    said = (
        [f"{n.upper()} {fmt.si(v, 's')}" for n, v in (("ttft", limits.ttft_s), ("tpot", limits.tpot_s)) if v]
        if limits
        else []
    )
    parts: list[RenderableType] = [Text(printable(found.verdict), style="bold"), table]
    if said:
        parts.append(Text(f"Limits: {', '.join(said)} (means over processes). * misses them.", style="dim"))
    parts.append(Text(printable(f"The race ended after {found.rounds} rounds: {found.ended}."), style="dim"))
    parts.append(
        Text("Energy that is modelled has its own, wider interval in each result; its ratios are surer.", style="dim")
    )
    return Group(*parts)


def _cells(one: Candidate) -> tuple[str, ...]:
    objective = fmt.DASH if one.objective is None else fmt.metric(one.objective)
    times = [fmt.DASH if v is None else fmt.si(v, "s") for v in (one.ttft_s, one.tpot_s)]
    return (one.label + ("" if one.meets_slo else " *"), objective, *times, str(one.processes), one.out or "")
