"""A verdict for a reader, as one HTML file: two sentences, one picture, then numbers, method, what it does not show."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from perjoule.render.claim import HEAD, method, not_shown, rows, two_sentences
from perjoule.render.comparison_charts import Cross, RatioRow, ratios, scatter
from perjoule.render.plain import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perjoule.claims.verdict import Interval, SideFacts, Verdict


def page(verdict: Verdict, links: Sequence[tuple[str, str]] = (), files_of: Mapping[str, str] | None = None) -> str:
    """Return the page. Text of results and claims is escaped.

    ``links`` (address, text) stand above all else, where the page is one of a site; ``files_of`` are the addresses of
    the results by id, which are named alone otherwise.
    """
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - only where a page is made

    source = files("perjoule.render").joinpath("assets", "claim.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["printable"] = printable
    return environment.from_string(source).render(
        verdict=verdict,
        sentences=two_sentences(verdict),
        picture=_picture(verdict),
        head=HEAD,
        rows=rows(verdict),
        method=method(verdict),
        not_shown=not_shown(verdict),
        links=links,
        files_of=files_of or {},
    )


def _picture(verdict: Verdict) -> dict[str, object]:
    """Return the picture: quality against joules where both sides have both, else the ratios against the margin."""
    crosses = [_cross(i, side, verdict) for i, side in enumerate(verdict.sides)]
    if len(crosses) > 1 and all(cross is not None for cross in crosses):
        points = [cross for cross in crosses if cross is not None]
        return {
            "svg": scatter(points, "Right answers against joules", "J per answer", "right answers, %"),
            "legend": [(cross.group, cross.name) for cross in points],
            "note": "Up and to the left is better. Bars are 95 % intervals; a ring marks what no other side surely "
            "beats in both.",
        }
    shown = [
        RatioRow(name=e.said, group=i, ratio=e.ratio.value, low=e.ratio.low, high=e.ratio.high)
        for i, e in enumerate(verdict.effects) if e.ratio is not None
    ]  # fmt: skip
    bound = verdict.effects[0].bound if verdict.effects else 1.0
    sense = "at most" if verdict.effects and verdict.effects[0].below else "at least"
    return {
        "svg": ratios(shown, "Ratio of the sides") if shown else "",
        "legend": [],
        "note": f"The claim says {sense} {100 * (bound - 1):+.0f} %. Bars are 95 % intervals.",
    }


def _cross(group: int, side: SideFacts, verdict: Verdict) -> Cross | None:
    joules, accuracy = _per_answer(side), side.accuracy
    if joules is None or accuracy is None:
        return None
    others = [one for one in verdict.sides if one is not side]
    return Cross(
        name=side.said,
        group=group,
        x=joules,
        y=_ends(accuracy, 100.0),
        front=not any(_beats(other, side) for other in others) and not _surely_beaten(group, verdict),
    )


def _per_answer(side: SideFacts) -> tuple[float, float, float] | None:
    """Return joules per answer: joules per token times tokens per answer, with the interval of the former."""
    if side.energy_j_per_output_token is None or side.tokens_per_answer is None:
        return None
    return _ends(side.energy_j_per_output_token, side.tokens_per_answer)


def _ends(found: Interval, factor: float) -> tuple[float, float, float]:
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    return low * factor, found.value * factor, high * factor


def _surely_beaten(group: int, verdict: Verdict) -> bool:
    """Say whether the paired ratios leave no doubt, where intervals of each side alone touch: they share much."""
    ratio, difference = verdict.effects[0].ratio, verdict.accuracy_difference
    if ratio is None or difference is None or not verdict.effects[0].below:
        return False
    if group == 1:
        return ratio.high is not None and ratio.high < 1 and difference.low is not None and difference.low > 0
    return ratio.low is not None and ratio.low > 1 and difference.high is not None and difference.high < 0


def _beats(one: SideFacts, other: SideFacts) -> bool:
    """Say whether one is surely cheaper an answer and surely answers better, by intervals that do not touch."""
    mine, theirs = _per_answer(one), _per_answer(other)
    if mine is None or theirs is None or one.accuracy is None or other.accuracy is None:
        return False
    cheaper = mine[2] < theirs[0]
    return cheaper and _ends(one.accuracy, 1.0)[0] > _ends(other.accuracy, 1.0)[2]
