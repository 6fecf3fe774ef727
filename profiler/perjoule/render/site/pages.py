"""Which pages there are: the front page, older results, one page a model and one a machine."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from perjoule import __version__
from perjoule.records import Record
from perjoule.render import format as fmt
from perjoule.render.plain import printable
from perjoule.render.site.cells import Line, label_of, line, machine_page, model_page, name, number, text
from perjoule.render.site.claims import Stated, claim_pages, stated
from perjoule.render.site.pareto import FRONT_LEGEND, LEGEND, pictures

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jinja2 import Template

    from perjoule.publish.index import Entry, VerdictEntry

MOST_ROWS = 1000  # a page's, so that it stays below 1.5 MB
_FRONT_PICTURES, _PAGE_PICTURES = 3, 4


class Page(Record, frozen=True, kw_only=True):
    """A page: its file's name, a key that changes when its content would, and how to make the content."""

    name: str
    key: str
    render: Callable[[], str]


def pages(entries: Sequence[Entry], verdicts: Sequence[VerdictEntry] = ()) -> list[Page]:
    """Return the pages of a site; nothing is rendered before it is asked for. Entries that do not hold are left out."""
    held = sorted((e for e in entries if e.row), key=lambda e: (text(e.row, "created_utc"), e.path))
    left_out = [printable(e.path) for e in entries if not e.row]
    left_out += [printable(e.path) for e in verdicts if e.verdict is None or e.against]
    claims = stated(verdicts, held)
    groups = list(_groups(held, left_out, claims))
    lines: dict[str, Line] = {}  # by path: a result stands on three pages
    found = []
    for about, members in groups:
        newest, older = members[-MOST_ROWS:], members[:-MOST_ROWS]
        stem = about["page"].removesuffix(".html")
        chunks = [older[i : i + MOST_ROWS] for i in range(0, len(older), MOST_ROWS)]
        others = [f"{stem}-older-{n}.html" for n in range(len(chunks), 0, -1)]
        found.append(_page({**about, "others": others, "count": len(members)}, newest, lines))
        for n, chunk in enumerate(chunks, 1):
            part = {**about, "page": f"{stem}-older-{n}.html", "others": [about["page"]], "count": len(members),
                    "left_out": [], "claims": [], "heading": f"{about['heading']}, older results {n}"}  # fmt: skip
            found.append(_page(part, chunk, lines))
    found += [Page(name=page, key=key, render=render) for page, key, render in claim_pages(claims)]
    return found


def _groups(
    held: list[Entry], left_out: list[str], claims: list[Stated]
) -> Iterator[tuple[dict[str, Any], list[Entry]]]:
    models: dict[str, list[Entry]] = {}
    machines: dict[str, list[Entry]] = {}
    for entry in held:
        models.setdefault(text(entry.row, "model"), []).append(entry)
        machines.setdefault(text(entry.row, "machine_id"), []).append(entry)
    yield (
        {
            "page": "index.html", "heading": "What open language models cost to run", "front": False,
            "pictures": _FRONT_PICTURES, "left_out": left_out, "facts": [], "machine_json": None,
            "claims": [c.line for c in claims],
            "models": [
                (model_page(m), name(found[-1].row, "model"), len(found)) for m, found in sorted(models.items())
            ],
            "machines": [
                (machine_page(m), _machine(found[-1]), len(found)) for m, found in sorted(machines.items())
            ],
        },
        held,
    )  # fmt: skip
    bare: dict[str, Any] = {
        "left_out": [],
        "models": [],
        "machines": [],
        "pictures": _PAGE_PICTURES,
        "machine_json": None,
        "claims": [],
    }
    for model, found in sorted(models.items()):
        about = {**bare, "page": model_page(model), "heading": name(found[-1].row, "model"), "front": False}
        of_it = [c.line for c in claims if model in c.models]
        yield {**about, "facts": _model_facts(found[-1]), "claims": of_it}, found
    for machine, found in sorted(machines.items()):
        about = {**bare, "page": machine_page(machine), "heading": _machine(found[-1]), "front": True}
        yield (
            {**about, "facts": _machine_facts(found[-1]), "machine_json": f"../{quote(machine)}/machine.json"},
            found,
        )


def _machine(entry: Entry) -> str:
    row = entry.row
    threads = number(row, "cpu_threads") or 0
    gpus = name(row, "gpus")
    return f"{name(row, 'cpu')}, {threads:.0f} threads" + (f", {gpus}" if gpus else "")


def _model_facts(entry: Entry) -> list[tuple[str, str]]:
    row = entry.row
    parameters = number(row, "parameters")
    shown = "unknown" if parameters is None else f"{parameters:,.0f}"
    return [
        ("Vendor", name(row, "vendor")), ("Country", name(row, "country")), ("Licence", name(row, "license")),
        ("Architecture", name(row, "architecture")), ("Parameters", shown),
    ]  # fmt: skip


def _machine_facts(entry: Entry) -> list[tuple[str, str]]:
    row = entry.row
    return [
        ("Processor", f"{name(row, 'cpu')} ({name(row, 'cpu_vendor')})"),
        ("Cores, threads", f"{number(row, 'cpu_cores') or 0:.0f}, {number(row, 'cpu_threads') or 0:.0f}"),
        ("Memory", fmt.size(number(row, "memory_bytes") or 0)),
        ("GPUs", name(row, "gpus") or "none"),
        ("Virtualization", name(row, "virtualization") or "none: bare metal"),
        ("Kind of machine", name(row, "machine_id")),
    ]


def _page(about: dict[str, Any], entries: list[Entry], lines: dict[str, Line]) -> Page:
    shown = [(e.path, e.fingerprint, e.row) for e in entries]
    told = msgspec.json.encode([about, shown, __version__, _assets()], order="sorted")

    def render() -> str:
        css, script, _ = _assets()
        newest_first = entries[::-1]
        return _template().render(
            about=about,
            lines=[lines.get(e.path) or lines.setdefault(e.path, line(e)) for e in newest_first],
            pictures=pictures(newest_first, about["pictures"], front=about["front"]),
            css=css, script=script, css_hash=_csp(css), script_hash=_csp(script), version=__version__,
            legend=FRONT_LEGEND if about["front"] else LEGEND,
            labels=sorted({label_of(e.row) for e in entries}),
            scenarios=sorted({name(e.row, "scenario") for e in entries}),
        )  # fmt: skip

    return Page(name=about["page"], key=hashlib.sha256(told).hexdigest(), render=render)


@cache
def _assets() -> tuple[str, str, str]:
    """Return style, script and template. Both stand in the page, which so needs no server and no second request."""
    folder = files("perjoule.render.site").joinpath("assets")
    css, script, page = (
        folder.joinpath(n).read_text(encoding="utf-8") for n in ("site.css", "site.js", "page.html.jinja")
    )
    return css, script, page


def _csp(content: str) -> str:
    """Return what a content security policy allows this style or script by, and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - only where a page is made

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_assets()[2])
