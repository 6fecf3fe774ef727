"""The report: one HTML file that needs nothing else, for a browser of any width, light or dark."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from perjoule.records import Energy, Missing, ModelFacts, RunResult
from perjoule.render import format as fmt
from perjoule.render import quality, rows, sweep
from perjoule.render.charts import charts, sweep_charts
from perjoule.render.plain import printable
from perjoule.render.text import domains, first_of_all, names_of_all, roofline

if TYPE_CHECKING:
    from collections.abc import Sequence


def report(results: Sequence[RunResult]) -> str:
    """Return the page for one or several results: sweeps as curves, the rest side by side."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - only where a page is made

    source = files("perjoule.render").joinpath("assets", "report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["printable"] = printable
    sweeps, single = sweep.split(results)
    names = [printable(name) for name in rows.names(single)]
    headings = [_heading(r, n) for r, n in zip(single, names, strict=True)]
    page = environment.from_string(source)
    return page.render(
        models=list(dict.fromkeys(printable(r.model.name) for r in results)),
        scenarios=list(dict.fromkeys(r.scenario.name for r in results)),
        warnings=first_of_all(single),
        invalid=_invalid(results),
        names=names,
        headings=headings,
        rows=[(row.title, [rows.cell(r, row, short=False) for r in single]) for row in rows.rows(single)],
        joules=[_joules(r) for r in single],
        charts=charts(single, names),
        sweeps=[_sweep(s) for s in sweeps],
        results=results,
        quality=[(n, quality.lines(r)) for r, n in zip(single, names, strict=True) if quality.lines(r)],
        languages=[
            {
                "name": n,
                "head": quality.LANGUAGE_HEAD,
                "rows": quality.language_rows(r),
                "picture": quality.language_picture(r),
                "note": quality.LANGUAGE_NOTE,
            }
            for r, n in zip(single, names, strict=True)
            if r.languages
        ],
        details=[
            {"result": r, "name": n, "facts": _details(r), "missing": _missing(r), "folded": False}
            for r, n in zip(single, headings, strict=True)
        ]
        + [
            {"result": r, "name": _point_name(r), "facts": _details(r), "missing": _missing(r), "folded": True}
            for s in sweeps
            for r in s.results
        ],
    )


def _heading(result: RunResult, name: str) -> str:
    return printable(f"{name} / {result.model.runtime_quantization}, {result.backend.name}")


def _point_name(result: RunResult) -> str:
    model = result.model
    return printable(
        f"{result.scenario.name}, {sweep.point_name(result)}: {model.name} / {model.runtime_quantization}, "
        f"{result.backend.name}"
    )


def _sweep(swept: sweep.Swept) -> dict[str, Any]:
    return {
        "title": printable(sweep.title(swept)),
        "head": sweep.head(swept),
        "columns": [column.head for column in sweep.columns(swept)],
        "curves": sweep.cells(swept),
        "remarks": sweep.remarks(swept),
        "charts": sweep_charts(swept),
    }


def _invalid(results: Sequence[RunResult]) -> list[tuple[str, str]]:
    """Return what keeps results from being published: which ones, and why; of a sweep the first point is quoted."""
    found: dict[str, list[tuple[str, str]]] = {}
    for result, name in zip(results, names_of_all(results), strict=True):
        why = "; ".join(c.message for c in result.checks if c.severity == "invalid")
        if not result.publishable:
            key = result.scenario.name if sweep.point_name(result) else why
            found.setdefault(key, []).append((name, why))
    return [("; ".join(name for name, _ in group), group[0][1]) for group in found.values()]


def _joules(result: RunResult) -> str:
    headline = result.energy.headline
    if headline is None:
        return f"No energy: {result.energy.headline_missing}"
    per_token = result.metrics.get("energy_j_per_output_token")
    if not isinstance(per_token, Energy):
        return fmt.energy(headline)
    return f"{fmt.energy(per_token)} per output token"


def _details(result: RunResult) -> list[tuple[str, str]]:
    host, cpu, model, backend = result.host, result.host.cpu, result.model, result.backend
    governor = cpu.governor or f"unknown ({cpu.governor_missing})"
    bits = "unknown" if model.bits_per_weight is None else fmt.significant(model.bits_per_weight, 3)
    bits = "0" if model.bits_per_weight == 0 else bits
    options = ", ".join(f"{key} {value}" for key, value in sorted(backend.effective_options.items()))
    share = fmt.significant(100 * result.overhead.harness_share, 2)
    return [
        ("Model file", _file(model)),
        ("Vendor, licence", f"{model.vendor}, {model.license}"),
        ("As run", f"{model.runtime_quantization}, {bits} bits per weight, {_size(model.weights_bytes)}"),
        ("Engine", f"{backend.name} {backend.engine_version}, {options}"),
        ("Processor", f"{cpu.name} ({cpu.vendor} family {cpu.family} model {cpu.model}), {cpu.threads} threads"),
        ("Governor", governor),
        ("Memory", fmt.size(host.memory_bytes)),
        ("Virtualization", host.virtualization or str(host.virtualization_missing)),
        ("System", f"{host.os} {host.kernel}"),
        ("Joules by domain", "; ".join(domains(result)).strip() or "one sum"),
        ("Energy floor, ceiling", _floor_and_ceiling(result)),
        ("Roofline", roofline(result)),
        ("Sensors used", "; ".join(f"{m.domain}: {m.source}" for m in result.meters) or "none: joules are modelled"),
        ("Scenario", f"{result.scenario.name} version {result.scenario.version}, {result.scenario.sha256[:16]}\u2026"),
        ("Harness", f"{share} % of the measured time"),
        ("Repeat with", result.reproduce),
        ("Result id", result.id),
    ]


def _file(model: ModelFacts) -> str:
    if model.file_sha256 is None:
        return f"{model.ref}, file unknown ({model.file_sha256_missing})"
    return f"{model.ref}, SHA-256 {model.file_sha256[:16]}\u2026, {_size(model.file_bytes)}"


def _size(value: int | None) -> str:
    return "size unknown" if value is None else fmt.size(value)


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
