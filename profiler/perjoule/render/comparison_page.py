"""A comparison as one HTML file that needs nothing else: verdict, ratios, table, ranking, Pareto front."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from perjoule.records import Energy, Record
from perjoule.render.comparison import (
    HEAD,
    SAID,
    cells,
    change,
    names,
    notes,
    pareto,
    ranking,
    sentences,
)
from perjoule.render.comparison_charts import Cross, RatioRow, ratios, scatter
from perjoule.render.plain import printable

if TYPE_CHECKING:
    from perjoule.compare import Outcome
    from perjoule.compare.pareto import Front
    from perjoule.compare.verdicts import Pair
    from perjoule.records import Quantity

_MEBI, _MILLI = 2**20, 1e-3
_AXES = {
    "energy_j_per_output_token": ("J per output token", 1.0), "decode_tokens_per_s": ("decode, tokens/s", 1.0),
    "output_tokens_per_s": ("output, tokens/s", 1.0), "ttft_s": ("time to first token, ms", _MILLI),
    "peak_memory_bytes": ("peak memory, MiB", float(_MEBI)),
}  # fmt: skip


class _Picture(Record, frozen=True, kw_only=True):
    title: str
    svg: str
    note: str


def page(outcome: Outcome) -> str:
    """Return the page. Text of results is escaped."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - only where a page is made

    source = files("perjoule.render").joinpath("assets", "comparison.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["printable"] = printable
    return environment.from_string(source).render(
        outcome=outcome,
        sentences=sentences(outcome),
        head=HEAD,
        tables=[
            {
                "title": names(outcome, pair),
                "rows": [(j.verdict, cells(outcome, pair, j)) for j in pair.judgements],
                "picture": _ratios(outcome, pair),
            }
            for pair in outcome.pairs
        ],
        rankings=[ranking(outcome, r) for r in outcome.rankings],
        fronts=[(pareto(outcome, f), _front(outcome, f)) for f in outcome.fronts],
        legend=[(i, e.name) for i, e in enumerate(outcome.results) if not e.control],
        notes=notes(outcome),
    )


def _ratios(outcome: Outcome, pair: Pair) -> _Picture | None:
    items = [
        RatioRow(
            name=f"{SAID[j.metric]}: {change(j)}, {j.verdict}", group=pair.candidate,
            ratio=j.ratio.ratio, low=j.ratio.low, high=j.ratio.high,
        )
        for j in pair.judgements
        if j.ratio is not None
    ]  # fmt: skip
    if not items:
        return None
    title = f"Candidate over baseline: {names(outcome, pair)}"
    note = (
        "A dot is the ratio, the line its 95 % interval over processes, with what of energy does not cancel. Left of "
        "the line is less, right of it more. A verdict is stricter than an interval: it is corrected for all tests."
    )
    return _Picture(title=title, svg=ratios(items, title), note=note)


def _front(outcome: Outcome, found: Front) -> _Picture | None:
    if isinstance(found.missing, str):
        return None
    (x_unit, x_size), (y_unit, y_size) = _AXES[found.x_metric], _AXES[found.y_metric]
    items = [
        Cross(
            name=outcome.results[p.result].name, group=p.result, x=_bounds(p.x, x_size), y=_bounds(p.y, y_size),
            front=not p.dominated_by,
        )
        for p in found.points
    ]  # fmt: skip
    title = f"{SAID[found.y_metric].capitalize()} against {SAID[found.x_metric]}"
    note = (
        "Lines are intervals. A ring: no other configuration surely beats it in both. What is systematic of joules of "
        "one host is common to all, so lines that overlap may still be told apart."
    )
    kinds = {f"{p.x.label}, {p.x.scope}" for p in found.points if isinstance(p.x, Energy)}
    note += f" Joules: {'; '.join(sorted(kinds))}."
    return _Picture(title=title, svg=scatter(items, title, x_unit, y_unit), note=note)


def _bounds(value: Quantity | Energy, size: float) -> tuple[float, float, float]:
    low, high = (value.value if v is None else v for v in (value.low, value.high))
    return low / size, value.value / size, high / size
