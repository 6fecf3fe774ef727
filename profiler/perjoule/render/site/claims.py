"""Verdicts on a site: a few lines on the pages they belong to, and a page of their own."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from perjoule import __version__
from perjoule.claims.verdict import Verdict
from perjoule.records import Record
from perjoule.render.claim import two_sentences
from perjoule.render.plain import printable
from perjoule.render.site.cells import machine_page, name, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perjoule.publish.index import Entry, VerdictEntry

_SHORT_ID = 12


class ClaimLine(Record, frozen=True, kw_only=True):
    """One verdict as a page lists it. ``machines`` are (page, name) of those that its results are of."""

    answer: str
    exploratory: bool
    name: str
    first: str
    second: str
    machines: tuple[tuple[str, str], ...]
    page: str
    raw: str  # link to the verdict, from a page in site/


class Stated(Record, frozen=True, kw_only=True):
    """A verdict that holds, the models of its sides, and where its results stand, by id, from a page in site/."""

    verdict: Verdict
    line: ClaimLine
    models: tuple[str, ...]
    files: dict[str, str]


def stated(verdicts: Sequence[VerdictEntry], held: Sequence[Entry]) -> list[Stated]:
    """Return the verdicts that pages show, by the name of their claims; ``held`` are the results that stand."""
    if not verdicts:
        return []
    by_id = {text(e.row, "id"): e for e in held}
    shown = sorted((e for e in verdicts if not e.against), key=lambda e: e.path)
    return [_stated(e, e.verdict, by_id) for e in shown if e.verdict is not None]


def _stated(entry: VerdictEntry, verdict: Verdict, by_id: dict[str, Entry]) -> Stated:
    ids = [id_ for side in verdict.sides for id_ in side.results]
    under = [by_id[id_] for id_ in ids if id_ in by_id]
    first, second = two_sentences(verdict)
    digits = entry.id.removeprefix("sha256:")[:_SHORT_ID]
    line = ClaimLine(
        answer=verdict.answer, exploratory=verdict.exploratory, name=printable(verdict.claim), first=first,
        second=second, page=f"claim-{quote(verdict.claim, safe='')}-{digits}.html", raw=f"../{quote(entry.path)}",
        machines=tuple(dict.fromkeys(
            (machine_page(text(e.row, "machine_id")), name(e.row, "gpus") or name(e.row, "cpu")) for e in under
        )),
    )  # fmt: skip
    return Stated(
        verdict=verdict, line=line, models=tuple(dict.fromkeys(text(e.row, "model") for e in under)),
        files={text(e.row, "id"): f"../{quote(e.path)}" for e in under},
    )  # fmt: skip


def claim_pages(claims: Sequence[Stated]) -> Iterator[tuple[str, str, Callable[[], str]]]:
    """Yield a page a verdict: its name, a key that changes when its content would, and how to make the content."""
    for claim in claims:
        told = msgspec.json.encode([claim, __version__, _template()], order="sorted")
        yield claim.line.page, hashlib.sha256(told).hexdigest(), _rendering(claim)


def _rendering(claim: Stated) -> Callable[[], str]:
    def render() -> str:
        from perjoule.render.claim_page import page  # noqa: PLC0415 - only where a page is made

        return page(claim.verdict, (("index.html", "All results"), (claim.line.raw, "JSON")), claim.files)

    return render


@cache
def _template() -> str:
    return files("perjoule.render").joinpath("assets", "claim.html.jinja").read_text(encoding="utf-8")
