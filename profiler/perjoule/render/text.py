"""The summary in a terminal: configurations side by side, then what stands behind the joules, then checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from perjoule.records import Energy, RunResult
from perjoule.render import format as fmt
from perjoule.render.plain import printable

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
_STYLE = {"note": "dim", "warning": "yellow", "invalid": "bold red"}


def summary(results: Sequence[RunResult]) -> RenderableType:
    table = Table(title=None, header_style="bold", expand=False, pad_edge=False)
    table.add_column("", no_wrap=True)
    for result in results:
        table.add_column(Text(_heading(result)), justify="left")
    for title, name in ROWS:
        cells = [_cell(result, name) for result in results]
        if any(cell != fmt.DASH for cell in cells):
            table.add_row(title, *(Text(cell) for cell in cells))
    parts: list[RenderableType] = [table]
    for result in results:
        parts += [Text(line) for line in _behind_the_joules(result)]
    parts += _checks(results)
    return Group(*parts)


def _heading(result: RunResult) -> str:
    model, backend = result.model, result.backend
    processes = len(result.processes)
    return printable(
        f"{model.name}\n{model.source_quantization} as {model.runtime_quantization}, {backend.name}\n"
        f"{backend.effective_options.get('threads', '?')} threads, {processes} processes"
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
    line = f"{result.model.name}: {fmt.energy(headline)} for all measured requests"
    per_token = result.metric("energy_j_per_output_token")
    if isinstance(per_token, Energy):
        line += f" = {fmt.energy_short(per_token, 'J/token')}"
    return [printable(line)]


def _checks(results: Sequence[RunResult]) -> list[RenderableType]:
    lines: dict[str, Text] = {}
    for result in results:
        for check in result.checks:
            text = Text(printable(f"{check.severity}: {check.message}"), style=_STYLE[check.severity])
            text.append(printable(f"  hint: {check.hint}"), style="dim")
            lines.setdefault(f"{check.code} {check.message}", text)
    return list(lines.values())
