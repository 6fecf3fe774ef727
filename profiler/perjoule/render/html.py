"""The report: one HTML file that needs nothing else, for a browser of any width, light or dark."""

from __future__ import annotations

import itertools
from importlib.resources import files
from typing import TYPE_CHECKING

from perjoule.records import Energy, Missing, RunResult
from perjoule.render import format as fmt
from perjoule.render import svg
from perjoule.render.plain import printable
from perjoule.render.text import domains, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perjoule.records import Sample

_PHASES = ("load", "prefill", "decode")
_MILLI = 1e3
_LEAST_GAP_S = 1e-9  # shorter than a clock can tell: no rate


def report(results: Sequence[RunResult]) -> str:
    """Return the page for one or several results, side by side."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - only where a page is made

    source = files("perjoule.render").joinpath("assets", "report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["printable"] = printable
    names = [_name(r) for r in results]
    page = environment.from_string(source)
    return page.render(
        names=names,
        rows=[(title, [_cell(r, name) for r in results]) for title, name in rows(results)],
        joules=[_joules(r) for r in results],
        charts=_charts(results, names),
        results=results,
        details=[_details(r) for r in results],
        missing=[_missing(r) for r in results],
    )


def _name(result: RunResult) -> str:
    return printable(f"{result.model.name} / {result.model.runtime_quantization}, {result.backend.name}")


def _cell(result: RunResult, name: str) -> str:
    if name not in result.metrics:
        return fmt.DASH
    return fmt.metric(result.metric(name))


def _joules(result: RunResult) -> str:
    headline = result.energy.headline
    if headline is None:
        return f"No energy: {result.energy.headline_missing}"
    per_token = result.metric("energy_j_per_output_token")
    if not isinstance(per_token, Energy):
        return fmt.energy(headline)
    return f"{fmt.energy(per_token)} per output token"


def _charts(results: Sequence[RunResult], names: Sequence[str]) -> list[dict[str, str]]:
    charts = [
        _dots(results, names, "Time to first token", "ms, every measured request", _ttft_ms),
        _gap_distribution(results, names),
        _rate_over_tokens(results, names),
        _memory(results, names),
        _energy(results, names),
    ]
    return [c for c in charts if c["svg"]]


def _measured(result: RunResult) -> list[Sample]:
    return [s for s in result.samples if s.phase == "measured"]


def _ttft_ms(sample: Sample) -> float:
    return _MILLI * (sample.first_token_s - sample.start_s)


def _gaps(sample: Sample) -> list[float]:
    times = sample.token_times_s or ()
    return [b - a for a, b in itertools.pairwise(times)]


def _dots(results, names, title, unit, value) -> dict[str, str]:  # type: ignore[no-untyped-def]  # noqa: ANN001
    series = [
        svg.Series(name=n, xs=tuple(value(s) for s in _measured(r)), lanes=tuple(s.process for s in _measured(r)))
        for r, n in zip(results, names, strict=True)
    ]
    if not all(s.xs for s in series):
        return {"title": title, "svg": "", "note": ""}
    note = "A dot is one request, a row of dots one fresh process, the tick their median. Warm-ups are left out."
    return {"title": title, "svg": svg.dots(series, title, unit), "note": note}


def _gap_distribution(results: Sequence[RunResult], names: Sequence[str]) -> dict[str, str]:
    """Share of gaps up to a length, one line a process; the longest hundredth is left out of the picture."""
    series, groups = [], []
    for group, (result, name) in enumerate(zip(results, names, strict=True)):
        for process in sorted({s.process for s in _measured(result)}):
            gaps = sorted(g for s in _measured(result) if s.process == process for g in _gaps(s))
            if not gaps:
                continue
            at = [round((len(gaps) - 1) * percent / 100) for percent in range(100)]
            xs, ys = tuple(_MILLI * gaps[i] for i in at), tuple(float(percent) for percent in range(100))
            series.append(svg.Series(name=f"{name}, process {process}", xs=xs, ys=ys))
            groups.append(group)
    title = "Gap between tokens"
    drawn = svg.lines(series, groups, title, "gap, ms", "% of gaps at most this long") if series else ""
    note = (
        "A line is one fresh process: steep is steady, a tail to the right is tokens that came late (99 % are shown)."
    )
    return {"title": title, "svg": drawn, "note": note}


def _rate_over_tokens(results: Sequence[RunResult], names: Sequence[str]) -> dict[str, str]:
    """Median decode rate at each position, one line a process."""
    series, groups = [], []
    for group, (result, name) in enumerate(zip(results, names, strict=True)):
        for process in sorted({s.process for s in _measured(result)}):
            gaps = [_gaps(s) for s in _measured(result) if s.process == process]
            length = min((len(g) for g in gaps), default=0)
            if not length:
                continue
            middle = [sorted(g[i] for g in gaps)[len(gaps) // 2] for i in range(length)]
            rates = tuple(1 / g if g > _LEAST_GAP_S else 0.0 for g in middle)
            label = f"{name}, process {process}"
            series.append(svg.Series(name=label, xs=tuple(float(i + 2) for i in range(length)), ys=rates))
            groups.append(group)
    title = "Tokens per second while decoding"
    drawn = svg.lines(series, groups, title, "position of the token in the answer", "tokens/s") if series else ""
    return {
        "title": title,
        "svg": drawn,
        "note": "A line is one fresh process; lines far apart are the machine's noise.",
    }


def _memory(results: Sequence[RunResult], names: Sequence[str]) -> dict[str, str]:
    items = []
    for group, (result, name) in enumerate(zip(results, names, strict=True)):
        for phase in _PHASES:
            peaks = [m.rss_peak_bytes for m in result.memory if m.phase == phase and m.rss_peak_bytes is not None]
            if peaks:
                low, high = min(peaks) / 2**20, max(peaks) / 2**20
                middle = sorted(peaks)[len(peaks) // 2] / 2**20
                label = f"{name.split(' / ')[0]}, {phase}"
                items.append(svg.Bar(name=label, group=group, value=middle, inner=(low, high), outer=(low, high)))
    title = "Peak resident memory by phase"
    return {
        "title": title,
        "svg": svg.bars(items, title, "MiB") if items else "",
        "note": "The kernel's own high-water mark of the engine's process; bars span the processes.",
    }


def _energy(results: Sequence[RunResult], names: Sequence[str]) -> dict[str, str]:
    items = []
    for group, (result, name) in enumerate(zip(results, names, strict=True)):
        value = result.metric("energy_j_per_output_token")
        if isinstance(value, Energy):
            outer = (value.low or 0.0, value.high or value.value)
            items.append(svg.Bar(
                name=name, group=group, value=value.value, inner=value.random, outer=outer,
                limits=_limits(result, value),
            ))  # fmt: skip
    title = "Energy per output token"
    note = (
        "Thick: what more repeats would narrow. Thin: all uncertainty, the sensor's tolerance or the model's "
        "coefficients included. On one machine these are common to all rows, so ratios are surer than values. "
        "Ticks: what moving the bytes alone must cost, and the most that the machine could draw, where known."
    )
    return {"title": title, "svg": svg.bars(items, title, "J per output token") if items else "", "note": note}


def _limits(result: RunResult, per_token: Energy) -> tuple[float, ...]:
    """Return floor and ceiling per output token: those of all requests, scaled as the headline is."""
    headline, report = result.energy.headline, result.energy
    if headline is None or not headline.value:
        return ()
    scale = per_token.value / headline.value
    return tuple(limit * scale for limit in (report.floor_j, report.ceiling_j) if limit is not None)


def _details(result: RunResult) -> list[tuple[str, str]]:
    host, cpu, model, backend = result.host, result.host.cpu, result.model, result.backend
    governor = cpu.governor or f"unknown ({cpu.governor_missing})"
    bits = fmt.significant(model.bits_per_weight, 3) if model.bits_per_weight else "0"
    options = ", ".join(f"{key} {value}" for key, value in sorted(backend.effective_options.items()))
    share = fmt.significant(100 * result.overhead.harness_share, 2)
    return [
        ("Model file", f"{model.ref}, SHA-256 {model.file_sha256[:16]}\u2026, {fmt.size(model.file_bytes)}"),
        ("Vendor, licence", f"{model.vendor}, {model.license}"),
        ("As run", f"{model.runtime_quantization}, {bits} bits per weight, {fmt.size(model.weights_bytes)}"),
        ("Engine", f"{backend.name} {backend.engine_version}, {options}"),
        ("Processor", f"{cpu.name} ({cpu.vendor} family {cpu.family} model {cpu.model}), {cpu.threads} threads"),
        ("Governor", governor),
        ("Memory", fmt.size(host.memory_bytes)),
        ("Virtualization", host.virtualization or str(host.virtualization_missing)),
        ("System", f"{host.os} {host.kernel}"),
        ("Joules by domain", "; ".join(domains(result)).strip() or "one sum"),
        ("Energy floor, ceiling", _floor_and_ceiling(result)),
        ("Sensors used", "; ".join(f"{m.domain}: {m.source}" for m in result.meters) or "none: joules are modelled"),
        ("Scenario", f"{result.scenario.name} version {result.scenario.version}, {result.scenario.sha256[:16]}\u2026"),
        ("Harness", f"{share} % of the measured time"),
        ("Repeat with", result.reproduce),
        ("Result id", result.id),
    ]


def _floor_and_ceiling(result: RunResult) -> str:
    report = result.energy
    floor = fmt.DASH if report.floor_j is None else fmt.si(report.floor_j, "J", fmt.MODELLED_DIGITS)
    ceiling = fmt.DASH if report.ceiling_j is None else fmt.si(report.ceiling_j, "J", fmt.MODELLED_DIGITS)
    missing = report.floor_j_missing if report.floor_j is None else report.ceiling_j_missing
    return f"{floor} to {ceiling} for all measured requests" + (f" ({missing})" if isinstance(missing, str) else "")


def _missing(result: RunResult) -> list[tuple[str, str]]:
    found = []
    for name in result.metric_names():
        value = result.metric(name)
        if isinstance(value, Missing):
            found.append((name, value.reason))
    return found
