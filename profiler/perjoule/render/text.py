"""The summary in a terminal: configurations side by side, then what stands behind the joules, then checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from perjoule.records import UNSET, Check, Energy, Peak, Peaks, RunResult
from perjoule.render import format as fmt
from perjoule.render import quality, rows, sweep
from perjoule.render.plain import printable
from perjoule.scenario import from_facts
from perjoule.stats.selection import select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

_MOST_COLUMNS = 3  # beside each other, so that a number fits into its column
_STYLE = {"note": "dim", "warning": "yellow", "invalid": "bold red"}


def summary(results: Sequence[RunResult]) -> RenderableType:
    """Return what a terminal shows: loads that were too much first, then sweeps, then the rest side by side."""
    sweeps, single = sweep.split(results)
    parts: list[RenderableType] = [Text(line, style=_STYLE["warning"]) for line in first_of_all(single)]
    for one in sweeps:
        parts += [sweep.table(one), *(Text(printable(line)) for line in sweep.remarks(one))]
    for few in _tables(single):
        parts += [_side_by_side(few, single)]
    for result, name in zip(single, rows.names(single), strict=True):
        parts += [Text(line) for line in _behind_the_joules(result, name)]
        parts += [Text(printable(f"{name}: {line}")) for line in quality.lines(result)]
        parts += _languages(result)
        if result.peaks is not UNSET:  # where nobody asked for them there is nothing to say
            parts += [Text(printable(f"{name}: {roofline(result)}"))]
    parts += [Text(printable(line), style="dim") for line in rows.reasons(single)]
    parts += _checks(results)
    return Group(*parts)


def first_of_all(results: Sequence[RunResult]) -> list[str]:
    """Return what must be read before any number: loads that were too much, and the rate that a search ended with."""
    named = list(zip(results, rows.names(results), strict=True))
    told = [f(result, name) for f in (rows.too_much, rows.found_rate) for result, name in named]
    return [printable(line) for line in dict.fromkeys(told) if line]


def _tables(results: Sequence[RunResult]) -> list[list[RunResult]]:
    """Return results that stand in one table: as many as fit, those of one scenario together if they can be."""
    by_scenario: dict[str, list[RunResult]] = {}
    for result in results:
        by_scenario.setdefault(result.scenario.name, []).append(result)
    if len(results) <= _MOST_COLUMNS:
        return [list(results)] if results else []
    tables: list[list[RunResult]] = []
    for group in by_scenario.values():
        for part in (group[i : i + _MOST_COLUMNS] for i in range(0, len(group), _MOST_COLUMNS)):
            if tables and len(tables[-1]) + len(part) <= _MOST_COLUMNS:
                tables[-1] += part
            else:
                tables.append(part)
    return tables


def _side_by_side(results: Sequence[RunResult], everything: Sequence[RunResult]) -> RenderableType:
    table = Table(title=None, header_style="bold", expand=False, pad_edge=False)
    table.add_column("", no_wrap=True)
    several = len({r.scenario.name for r in everything}) > 1
    for result in results:
        table.add_column(Text(_heading(result, several=several), overflow="fold"), justify="left", overflow="fold")
    for row in rows.rows(results):
        table.add_row(row.title, *(Text(rows.cell(result, row, short=True)) for result in results))
    return table


def _languages(result: RunResult) -> list[RenderableType]:
    """Return what reading the same passage costs in each language, as a table."""
    found = quality.language_rows(result)
    if not found:
        return []
    table = Table(header_style="bold", expand=False, pad_edge=False)
    for name in quality.LANGUAGE_HEAD:
        table.add_column(name, overflow="fold")
    for row in found:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return [table, Text(quality.LANGUAGE_NOTE, style="dim")]


def _heading(result: RunResult, *, several: bool) -> str:
    model, backend = result.model, result.backend
    processes, control = len(result.processes), result.settings.control
    batch = result.backend.requested_options.get("batch", 1)
    return printable(
        f"{fmt.hyphenated(model.name)}\n"
        + (f"{result.scenario.name}\n" if several else "")
        + f"{model.source_quantization}, run as {model.runtime_quantization}"
        + ("" if model.bits_per_weight is None else f" ({model.bits_per_weight:.1f} bits)")
        + f", {backend.name}\n"
        + f"{_threads(backend.effective_options.get('threads'))}, "
        + (f"batch {batch}, " if batch != 1 else "")
        + f"{processes} process{'es' * (processes != 1)}"
        + (f", control {control}" if control else "")
        + ("" if result.publishable else "\nINVALID, see below")
    )


def _threads(count: object) -> str:
    return f"{count or '?'} thread{'s' * (count != 1)}"


def _behind_the_joules(result: RunResult, name: str) -> list[str]:
    headline = result.energy.headline
    if headline is None:
        return [printable(f"{name}: no energy: {result.energy.headline_missing}")]
    if rows.shape(result) == "idle":
        told = fmt.energy(headline)
        return [printable(f"{name}: {told} while it waited {result.energy.window_s:.0f} s"), *domains(result)]
    scenario = from_facts(result.scenario)
    used = select(result.samples, result.windows, scenario).samples
    tokens = sum(s.output_tokens for s in used)
    line = f"{name}: {fmt.energy(headline)} for {len(used)} requests, {tokens:,} tokens"
    per_token = result.metrics.get("energy_j_per_output_token")
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


def roofline(result: RunResult) -> str:
    """Say which share of the machine's peaks the run used, or why that is not known."""
    found, peaks = result.roofline, result.peaks
    if found is None or not isinstance(peaks, Peaks):
        return f"no share of the machine's peaks: {result.roofline_missing}"
    told, missing = [], []
    kind = found.compute_precision
    arithmetic: Peak | None = None if kind is None else getattr(peaks, kind)
    if found.bandwidth_share is not None and peaks.bandwidth is not None:
        told.append(f"{_share(found.bandwidth_share)} of memory bandwidth ({fmt.si(peaks.bandwidth.best, 'B/s')})")
    else:
        missing.append(f"no share of bandwidth: {found.bandwidth_share_missing}")
    if found.compute_share is not None and arithmetic is not None:
        peak = fmt.si(arithmetic.best, "op/s")
        told.append(f"{_share(found.compute_share)} of {kind} arithmetic in prefill ({peak})")
    else:
        missing.append(f"no share of arithmetic: {found.compute_share_missing}")
    return "; ".join([*told, *missing])


def _share(share: float) -> str:
    return f"{fmt.significant(100 * share, 2)} %"


def _checks(results: Sequence[RunResult]) -> list[RenderableType]:
    """Return each check once; where not all results have it, with the models it speaks of."""
    lines: list[RenderableType] = []
    for group in _grouped(results):
        check = group[0][1]
        same = len({c.message for _, c in group}) == 1
        of = "" if same and len(group) == len(results) else _speaks_of([n for n, _ in group], quoted=not same)
        more = f" (and {len(group) - 1} more of the sweep)" if of and not same else ""
        text = Text(printable(f"{check.severity}: {of}{check.message}{more}"), style=_STYLE[check.severity])
        text.append(printable(f"  hint: {check.hint}"), style="dim")
        lines.append(text)
    return lines


def _grouped(results: Sequence[RunResult]) -> list[list[tuple[str, Check]]]:
    """Return checks that are one line, each with the name of its result: the same message, or one code in a sweep.

    A load that was too much stands above all already.
    """
    said: dict[tuple[str, str], set[str]] = {}  # messages of a code over the points of a sweep
    swept = {id(r) for r in results if sweep.point_name(r)}
    for result in results:
        for check in result.checks if id(result) in swept else ():
            said.setdefault((check.code, result.scenario.name), set()).add(check.message)
    found: dict[tuple[str, str], list[tuple[str, Check]]] = {}
    for result, name in zip(results, names_of_all(results), strict=True):
        for check in result.checks:
            of_sweep = (check.code, result.scenario.name)
            if id(result) in swept and len(said[of_sweep]) > 1:
                found.setdefault(of_sweep, []).append((name, check))
            elif check.code != "saturated" or id(result) in swept:
                found.setdefault((check.code, check.message), []).append((name, check))
    return list(found.values())


def names_of_all(results: Sequence[RunResult]) -> list[str]:
    """Return a name for each result: of a sweep the model and the point, else what differs."""
    single = [r for r in results if not sweep.point_name(r)]
    named = dict(zip(map(id, single), rows.names(single), strict=True))
    several = len({r.scenario.name for r in results}) > 1
    return [
        named.get(id(r)) or ", ".join([r.model.name, *([r.scenario.name] if several else []), sweep.point_name(r)])
        for r in results
    ]


def _speaks_of(names: Sequence[str], *, quoted: bool) -> str:
    """Name the results that a check speaks of; ``quoted``: only the first."""
    return f"{names[0] if quoted else '; '.join(dict.fromkeys(names))}: "
