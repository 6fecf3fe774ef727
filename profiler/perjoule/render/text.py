"""The summary in a terminal: configurations side by side, then what stands behind the joules, then checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from perjoule.records import Energy, Missing, RunResult
from perjoule.render import format as fmt
from perjoule.render.plain import printable
from perjoule.scenario import from_facts
from perjoule.stats.selection import select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

ROWS = (
    ("Time to first token", "ttft_s"),
    ("Prefill", "prefill_tokens_per_s"),
    ("Decode", "decode_tokens_per_s"),
    ("Time per output token", "tpot_s"),
    ("Model load", "load_s"),
    ("Peak memory of the engine", "peak_memory_bytes"),
    ("CPU time per token", "cpu_s_per_output_token"),
    ("Energy per output token", "energy_j_per_output_token"),
    ("  of prefill, per prompt token", "energy_j_per_prompt_token"),
    ("  of decode, per token", "energy_j_per_decode_token"),
    ("Power while working", "power_w"),
)
# shown where a sensor gives them; a host without one is not told of each
SENSOR_ROWS = (
    ("  above idle, per token", "energy_net_j_per_output_token"),
    ("Power at idle", "idle_power_w"),
)
_STYLE = {"note": "dim", "warning": "yellow", "invalid": "bold red"}


def rows(results: Sequence[RunResult]) -> list[tuple[str, str]]:
    """Return titles and metrics to show: those of a sensor only where a result has one."""
    there = [row for row in SENSOR_ROWS if any(isinstance(r.metrics.get(row[1]), Energy) for r in results)]
    return [*ROWS, *there]


def summary(results: Sequence[RunResult]) -> RenderableType:
    table = Table(title=None, header_style="bold", expand=False, pad_edge=False)
    table.add_column("", no_wrap=True)
    for result in results:
        table.add_column(Text(_heading(result), overflow="fold"), justify="left", overflow="fold")
    for title, name in rows(results):
        cells = [_cell(result, name) for result in results]
        if any(cell != fmt.DASH for cell in cells):
            table.add_row(title, *(Text(cell) for cell in cells))
    parts: list[RenderableType] = [table]
    for result in results:
        parts += [Text(line) for line in _behind_the_joules(result)]
    parts += [Text(line, style="dim") for line in _reasons(results)]
    parts += _checks(results)
    return Group(*parts)


def _heading(result: RunResult) -> str:
    model, backend = result.model, result.backend
    processes = len(result.processes)
    return printable(
        f"{model.name}\n{model.source_quantization}, run as {model.runtime_quantization}"
        f" ({model.bits_per_weight:.1f} bits), {backend.name}\n"
        f"{backend.effective_options.get('threads', '?')} thread(s), {processes} processes"
        + ("" if result.publishable else "\nINVALID, see below")
    )


def _cell(result: RunResult, name: str) -> str:
    if name not in result.metrics:
        return fmt.DASH
    value = result.metric(name)
    if isinstance(value, Energy):
        return fmt.energy_short(value)
    return fmt.metric(value)


def _behind_the_joules(result: RunResult) -> list[str]:
    headline = result.energy.headline
    if headline is None:
        return [printable(f"{result.model.name}: no energy: {result.energy.headline_missing}")]
    scenario = from_facts(result.scenario)
    used = select(result.samples, result.windows, scenario).samples
    tokens = sum(s.output_tokens for s in used)
    line = f"{result.model.name}: {fmt.energy(headline)} for {len(used)} requests, {tokens:,} tokens"
    per_token = result.metric("energy_j_per_output_token")
    if isinstance(per_token, Energy):
        line += f" = {fmt.energy_short(per_token, 'J/token')}"
    return [printable(line), *domains(result)]


def domains(result: RunResult) -> list[str]:
    """Say what the sum is made of and what was read beside it, where there is more than one domain."""
    parts = [d for d in result.energy.domains if d.energy is not None and d.energy.label == "measured"]
    if len(parts) < 2:  # noqa: PLR2004 - one domain is the headline itself
        return []
    told = [f"{d.domain} {fmt.si(d.energy.value, 'J')}" + (f" ({d.note})" if d.note else "") for d in parts if d.energy]
    return [printable(f"  {'; '.join(told)}")]


def _reasons(results: Sequence[RunResult]) -> list[str]:
    """Say why a number of the table is a dash, once a reason; what stands in no table is left to the file."""
    found: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for title, name in ROWS:
            value = result.metric(name) if name in result.metrics else None
            if isinstance(value, Missing):
                told = f"energy {title.strip()}" if title.startswith(" ") else title.strip()
                found.setdefault((result.model.name, value.reason), []).append(told)
    return [printable(f"{model}: no {', '.join(titles)}: {reason}") for (model, reason), titles in found.items()]


def _checks(results: Sequence[RunResult]) -> list[RenderableType]:
    """Return each check once; where results differ in it, with the model it speaks of."""
    lines: dict[str, Text] = {}
    for result in results:
        for check in result.checks:
            shared = all(any(c.message == check.message for c in r.checks) for r in results)
            of = "" if shared else f"{result.model.name}: "
            text = Text(printable(f"{check.severity}: {of}{check.message}"), style=_STYLE[check.severity])
            text.append(printable(f"  hint: {check.hint}"), style="dim")
            lines.setdefault(f"{check.code} {of} {check.message}", text)
    return list(lines.values())
